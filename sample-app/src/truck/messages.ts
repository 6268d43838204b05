import * as v from 'valibot'

// The messages between the demo and the processes of the trucks.

/** Which client a truck uses, and what that client does with readings that the link cannot carry. */
export const Kind = v.picklist(['drop', 'latest', 'mqtt'])
export type Kind = v.InferOutput<typeof Kind>

export const TruckPlan = v.object({ truckId: v.string(), kind: Kind, setPointCelsius: v.number() })
export type TruckPlan = v.InferOutput<typeof TruckPlan>

/** The arguments of a process with trucks. */
export const ProcessPlan = v.object({
  brokerUrl: v.string(),
  storeFolder: v.string(),
  trucks: v.array(TruckPlan),
})
export type ProcessPlan = v.InferOutput<typeof ProcessPlan>

/** The condition of a link. `closed` ends its connections and refuses new ones. */
export const LinkCondition = v.variant('mode', [
  v.object({ mode: v.picklist(['free', 'stalled', 'closed']) }),
  v.object({ mode: v.literal('throttled'), bytesPerSecond: v.pipe(v.number(), v.minValue(100)) }),
])
export type LinkCondition = v.InferOutput<typeof LinkCondition>

export const ToTrucks = v.variant('type', [
  v.object({ type: v.literal('link'), condition: LinkCondition }),
  v.object({ type: v.literal('use-door') }),
  v.object({ type: v.literal('stop') }),
])
export type ToTrucks = v.InferOutput<typeof ToTrucks>

const Count = v.number()
const Counts = v.object({
  published: Count,
  pending: Count,
  sent: Count,
  acknowledged: Count,
  stored: Count,
  refused: Count,
  lost: Count,
  dropped: v.record(v.string(), Count),
})

export const TruckReport = v.object({
  truckId: v.string(),
  isConnected: v.boolean(),
  readings: Counts,
  alarms: Counts,
})
export type TruckReport = v.InferOutput<typeof TruckReport>

export const FromTrucks = v.variant('type', [
  v.object({ type: v.literal('report'), trucks: v.array(TruckReport) }),
  v.object({ type: v.literal('alarm'), truckId: v.string(), alarmId: v.string(), status: v.string() }),
])
export type FromTrucks = v.InferOutput<typeof FromTrucks>

import { defineTopic } from 'nestjs-mqtt/client'
import * as v from 'valibot'

// The contracts between the trucks and the operations service. Both sides import this file, so that a change that breaks
// one of them does not compile. `nestjs-mqtt/client` needs no Nest: trucks do not install it.

const Celsius = v.pipe(v.number(), v.minValue(-60), v.maxValue(60))
const AtMs = v.pipe(v.number(), v.integer(), v.minValue(0))

/** Only the newest value counts, so `latest` and QoS 0: an old position is of no use. */
export const telemetry = defineTopic('trucks/+truckId/telemetry', {
  description: 'Position and temperature of a truck, ten times a second.',
  schema: v.object({
    /** Counts the readings of a truck since it started. */
    number: v.pipe(v.number(), v.integer(), v.minValue(1)),
    /** Time of the measurement, in milliseconds since 1970. */
    atMs: AtMs,
    celsius: Celsius,
    latitude: v.pipe(v.number(), v.minValue(-90), v.maxValue(90)),
    longitude: v.pipe(v.number(), v.minValue(-180), v.maxValue(180)),
    /** Spectrum of the compressor. It makes a reading as large as those of real trucks: about 1.5 KB. */
    vibration: v.pipe(v.array(v.number()), v.maxLength(256)),
  }),
  qos: 0,
  whenBlocked: 'latest',
})

const Alarm = v.object({
  /** Unique, so that a receiver recognises an alarm that arrives twice. */
  alarmId: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  atMs: AtMs,
  kind: v.picklist(['door-open', 'door-closed']),
  celsius: Celsius,
})

/** Every alarm counts, however late it arrives, so QoS 1, and a store that survives a crash of the truck. */
export const alarms = defineTopic('trucks/+truckId/alarms', {
  description: 'The door of a truck was opened or closed.',
  schema: Alarm,
  qos: 1,
  whenBlocked: 'store',
})

/** Retained, so that a service that starts later knows the state of every truck. */
export const states = defineTopic('trucks/+truckId/state', {
  description: 'Door and set point of a truck.',
  schema: v.object({ door: v.picklist(['open', 'closed']), setPointCelsius: Celsius }),
  qos: 1,
  retain: true,
  whenBlocked: 'latest',
})

/** Published by the client when it connects and closes, and by the broker when the truck is gone. */
export const presences = defineTopic('trucks/+truckId/presence', {
  description: 'Whether a truck is online.',
  schema: v.object({ isOnline: v.boolean() }),
  qos: 1,
  retain: true,
})

export const setPoints = defineTopic('trucks/+truckId/commands/set-point', {
  description: 'Changes the temperature that a truck keeps.',
  schema: v.object({ celsius: v.pipe(v.number(), v.minValue(-30), v.maxValue(10)) }),
  response: v.object({ setPointCelsius: Celsius }),
})

export const RecordedAlarm = v.object({ ...Alarm.entries, truckId: v.string(), handledBy: v.string() })
export type RecordedAlarm = v.InferOutput<typeof RecordedAlarm>

/** One instance of the service handles an alarm. All instances receive this message and show it. */
export const alarmLog = defineTopic('operations/alarm-log', {
  description: 'An alarm that an instance of the service has recorded.',
  schema: RecordedAlarm,
  qos: 1,
})

/** Alarms that no instance could handle. */
export const DEAD_ALARMS = 'operations/dead-alarms'

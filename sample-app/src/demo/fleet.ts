import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Injectable, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Broker } from '../broker/broker.js'
import { Config } from '../config.js'
import { AlarmHistory } from '../service/alarm-history.js'
import type { Kind, LinkCondition, TruckPlan, TruckReport } from '../truck/messages.js'
import { LinkPhases } from './link-phases.js'
import { TruckProcess } from './truck-process.js'

/** Three trucks on the same bad link. Only their clients differ. */
export const COMPARED: readonly { readonly truckId: string; readonly kind: Kind }[] = [
  { truckId: 'truck-1', kind: 'drop' },
  { truckId: 'truck-2', kind: 'latest' },
  { truckId: 'truck-3', kind: 'mqtt' },
]
/** The truck that can be killed. */
export const MORTAL = 'truck-4'

/** The outcomes with which a client promises that the alarm arrives. */
const PROMISES = new Set(['acknowledged', 'stored'])
const OUTSTANDING_KEPT = 10_000

/** The processes of the simulated trucks. */
@Injectable()
export class DemoFleet implements OnApplicationBootstrap, OnModuleDestroy {
  /** Alarms that a truck may rely on, by the status of its publish. */
  readonly promised: Record<string, number> = { acknowledged: 0, stored: 0 }
  /** Promised alarms that the service has not recorded yet. */
  readonly outstanding = new Set<string>()
  readonly phases = new LinkPhases()
  private processes: readonly TruckProcess[] = []
  private condition: LinkCondition = { mode: 'free' }
  /** The disks of the trucks. They outlive a process that is killed, and end with the demo. */
  private readonly storeFolder = mkdtempSync(join(tmpdir(), 'cold-chain-'))

  constructor(
    private readonly config: Config,
    private readonly broker: Broker,
    private readonly history: AlarmHistory,
  ) {
    history.added.subscribe(({ alarmId }) => this.outstanding.delete(alarmId))
  }

  onApplicationBootstrap(): void {
    const place = { brokerUrl: this.broker.url, storeFolder: this.storeFolder }
    this.processes = plans(this.config.trucks).map(
      trucks => new TruckProcess(trucks, place, ({ alarmId, status }) => this.promise(alarmId, status)),
    )
    for (const process of this.processes) process.start()
  }

  /** Runs after the service has drained and before it disconnects, so that trucks can still publish that they are offline. */
  async onModuleDestroy(): Promise<void> {
    await Promise.all(this.processes.map(process => process.stop()))
    rmSync(this.storeFolder, { recursive: true, force: true })
  }

  /** A truck whose process was killed has one for each process. */
  get reports(): TruckReport[] {
    return this.processes.flatMap(({ earlier, reports }) => [...earlier, ...reports.values()])
  }

  /** Changes the links of the trucks that are compared. */
  setLink(condition: LinkCondition): void {
    this.condition = condition
    this.phases.begin(condition.mode)
    for (const { truckId } of COMPARED) this.processOf(truckId)?.setLink(condition)
  }

  /** Cuts the links of all trucks. */
  closeAll(isClosed: boolean): void {
    this.phases.begin(isClosed ? 'closed' : this.condition.mode)
    for (const process of this.processes) process.close(isClosed)
  }

  /** Garbage keeps the broker busy, or has ended. */
  flood(isFlooded: boolean): void {
    this.phases.begin(isFlooded ? 'flooded' : this.condition.mode)
  }

  processOf(truckId: string): TruckProcess | undefined {
    return this.processes.find(({ trucks }) => trucks.some(truck => truck.truckId === truckId))
  }

  private promise(alarmId: string, status: string): void {
    if (!PROMISES.has(status)) return
    this.promised[status] = (this.promised[status] ?? 0) + 1
    if (this.history.has(alarmId) || this.outstanding.size >= OUTSTANDING_KEPT) return
    this.outstanding.add(alarmId)
  }
}

/** Which trucks share a process: those that are compared, and the one that can be killed, have their own. */
function plans(count: number): TruckPlan[][] {
  const trucks = Array.from({ length: count }, (_, index): TruckPlan => {
    const truckId = `truck-${index + 1}`
    const kind = COMPARED.find(truck => truck.truckId === truckId)?.kind ?? 'latest'
    return { truckId, kind, setPointCelsius: -22 + (index % 5) }
  })
  const alone = COMPARED.length + 1
  const together = trucks.slice(alone)
  return [...trucks.slice(0, alone).map(truck => [truck]), ...(together.length === 0 ? [] : [together])]
}

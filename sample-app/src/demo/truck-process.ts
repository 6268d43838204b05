import * as v from 'valibot'
import { Child } from '../child.js'
import {
  FromTrucks,
  type LinkCondition,
  type ProcessPlan,
  type TruckPlan,
  type TruckReport,
} from '../truck/messages.js'

export const FREE: LinkCondition = { mode: 'free' }

type AlarmMessage = Extract<FromTrucks, { type: 'alarm' }>

/** One process with trucks, seen from the demo. It can be killed and started again. */
export class TruckProcess {
  /** The last report of each truck. */
  readonly reports = new Map<string, TruckReport>()
  /** The last reports of processes that have ended. */
  readonly earlier: TruckReport[] = []
  private child: Child | undefined
  private condition: LinkCondition = FREE
  private isClosed = false

  constructor(
    readonly trucks: readonly TruckPlan[],
    private readonly place: Omit<ProcessPlan, 'trucks'>,
    private readonly onAlarm: (alarm: AlarmMessage) => void,
  ) {}

  get isAlive(): boolean {
    return this.child?.isAlive ?? false
  }

  start(): void {
    this.earlier.push(...this.reports.values())
    this.reports.clear()
    const child = new Child('truck/main.js', [JSON.stringify({ ...this.place, trucks: this.trucks })])
    this.child = child
    child.onMessage(message => this.receive(v.parse(FromTrucks, message)))
    this.applyCondition()
  }

  setLink(condition: LinkCondition): void {
    this.condition = condition
    this.applyCondition()
  }

  /** Cuts the link until it is opened again. It then has its condition from before. */
  close(isClosed = true): void {
    this.isClosed = isClosed
    this.applyCondition()
  }

  useDoor(): void {
    this.child?.send({ type: 'use-door' })
  }

  async kill(): Promise<void> {
    await this.child?.kill()
  }

  async stop(): Promise<void> {
    await this.child?.stop()
  }

  private applyCondition(): void {
    const condition: LinkCondition = this.isClosed ? { mode: 'closed' } : this.condition
    this.child?.send({ type: 'link', condition })
  }

  private receive(message: FromTrucks): void {
    if (message.type === 'alarm') this.onAlarm(message)
    else for (const report of message.trucks) this.reports.set(report.truckId, report)
  }
}

import { setTimeout as sleep } from 'node:timers/promises'
import { Injectable, type OnModuleDestroy } from '@nestjs/common'
import { MqttService } from 'nestjs-mqtt'
import { Subject } from 'rxjs'
import { Broker } from '../broker/broker.js'
import type { LinkCondition } from '../truck/messages.js'
import { DemoFleet, MORTAL } from './fleet.js'
import { Flood, GARBAGE_PER_SECOND, perSecond } from './flood.js'
import type { Garbage } from './garbage-process.js'
import { FREE } from './truck-process.js'

export interface StageEvent {
  readonly atMs: number
  readonly text: string
}

const EVENTS_KEPT = 30
const BACK_WITHIN_MS = 10_000
const DEAD_FOR_MS = 3_000
const LOOK_EVERY_MS = 20

/** Everything that can go wrong, at the push of a button. */
@Injectable()
export class Stage implements OnModuleDestroy {
  readonly events: StageEvent[] = []
  readonly told = new Subject<StageEvent>()
  condition: LinkCondition = FREE
  isRestarting = false
  isDead = false
  private garbage: Flood | undefined

  constructor(
    private readonly mqtt: MqttService,
    private readonly broker: Broker,
    private readonly fleet: DemoFleet,
  ) {}

  async onModuleDestroy(): Promise<void> {
    await this.garbage?.stop()
  }

  get isFlooding(): boolean {
    return this.garbage !== undefined
  }

  get canRestart(): boolean {
    return this.broker.isEmbedded
  }

  setLink(condition: LinkCondition): void {
    this.condition = condition
    this.fleet.setLink(condition)
    this.tell(textOf(condition))
  }

  async restartBroker(): Promise<void> {
    if (this.isRestarting || !this.canRestart) return
    this.isRestarting = true
    // The embedded broker forgets its sessions. So what it has acknowledged is delivered first, and the trucks come back when
    // the service has subscribed. A broker that keeps sessions on disk does not need this precaution.
    this.fleet.closeAll(true)
    await this.until(() => this.mqtt.stats().inbound.waiting + this.mqtt.stats().inbound.running === 0)
    this.tell('The broker is killed and started again.')
    await this.broker.restart()
    await this.until(() => this.isSubscribed)
    this.fleet.closeAll(false)
    this.isRestarting = false
    this.tell('The broker is back, and the service has its subscriptions again.')
  }

  /** @returns what was sent */
  async flood(seconds: number): Promise<Garbage> {
    const flood = new Flood(this.broker.url, seconds)
    this.garbage = flood
    this.fleet.flood(true)
    this.tell(`A device publishes ${GARBAGE_PER_SECOND} unusable messages a second, for ${seconds} s.`)
    await flood.whenEnded()
    this.garbage = undefined
    this.fleet.flood(false)
    this.tell(`The garbage has ended: ${flood.garbage.sent} messages, ${perSecond(flood.garbage)} a second.`)
    return flood.garbage
  }

  /** Kills the process of a truck that has stored an alarm because it is offline, and starts it again. */
  async killTruck(): Promise<void> {
    const process = this.fleet.processOf(MORTAL)
    if (process === undefined || this.isDead) return
    this.isDead = true
    process.close()
    process.useDoor()
    const { stored } = this.fleet.promised
    await this.until(() => this.fleet.promised['stored'] !== stored)
    await process.kill()
    this.tell(`${MORTAL} was killed. It was offline, and an alarm is stored on its disk.`)
    await sleep(DEAD_FOR_MS, undefined, { ref: false })
    process.close(false)
    process.start()
    this.isDead = false
    await this.until(() => this.fleet.outstanding.size === 0)
    this.tell(`${MORTAL} is started again, and its alarm has arrived.`)
  }

  private get isSubscribed(): boolean {
    const { granted, pending } = this.mqtt.stats().subscriptions
    return this.mqtt.state.status === 'connected' && granted > 0 && pending === 0
  }

  private async until(condition: () => boolean): Promise<void> {
    const deadline = Date.now() + BACK_WITHIN_MS
    while (!condition() && Date.now() < deadline) await sleep(LOOK_EVERY_MS, undefined, { ref: false })
  }

  private tell(text: string): void {
    const event = { atMs: Date.now(), text }
    this.told.next(event)
    this.events.push(event)
    if (this.events.length > EVENTS_KEPT) this.events.shift()
  }
}

function textOf(condition: LinkCondition): string {
  switch (condition.mode) {
    case 'throttled':
      return `The three links carry ${condition.bytesPerSecond / 1_000} KB/s each.`
    case 'stalled':
      return 'The three links carry nothing. The connections stay open.'
    case 'closed':
      return 'The three links are cut.'
    case 'free':
      return 'The three links are free again.'
  }
}

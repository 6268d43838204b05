import type { InboundOptions } from '../../options.js'
import type { ConnectedSession } from '../connection/connection-state.js'
import type { Link, PublishPacket } from '../connection/mqtt-client.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { type AckSlot, AckWindow } from './ack-window.js'
import { TopicLanes } from './topic-lanes.js'

/** Runs one handler for one message. Rejects when the handler failed. */
export type InboundHandler = (packet: PublishPacket) => Promise<void>

/** What became of the messages that came in. */
export interface InboundCounters {
  readonly received: number
  /** Handlers of the message have ended, or there were none. */
  readonly handled: number
  /** Of the handled: at least one handler failed. */
  readonly failed: number
  /** Of the handled: no handler takes this topic. */
  readonly unmatched: number
  /** QoS 0 messages that had to make room. */
  readonly dropped: number
  /** QoS 1 messages left to the broker, which delivers them again to the kept session. */
  readonly givenBack: number
  readonly waiting: number
  readonly running: number
}

export interface DispatcherRules extends Required<InboundOptions> {
  /** The broker keeps the session of this client at the end of a connection. */
  readonly keepsSession: boolean
  readonly select: (packet: PublishPacket) => readonly InboundHandler[]
  readonly onUnmatched: (topic: string) => void
  readonly onDropped: () => void
}

interface Job {
  readonly topic: string
  readonly packet: PublishPacket
  readonly acknowledge: (() => void) | undefined
}

/**
 * From the parser to the handlers and back to the acknowledgement. Never keeps the parser waiting: a message is
 * put into the lane of its topic, and PUBACK leaves when its handlers have ended.
 */
export class InboundDispatcher implements ConnectionListener {
  private readonly lanes = new TopicLanes<Job>()
  private readonly waitingQoS0 = new Set<Job>()
  private parked: Job[] = []
  private acks = new AckWindow()
  private running = 0
  private mode: 'holding' | 'open' | 'draining' = 'holding'
  private idleWaiters: (() => void)[] = []
  private readonly counted = { received: 0, handled: 0, failed: 0, unmatched: 0, dropped: 0, givenBack: 0 }

  constructor(private readonly rules: DispatcherRules) {}

  get counters(): InboundCounters {
    return { ...this.counted, waiting: this.lanes.size + this.parked.length, running: this.running }
  }

  /** Messages that came before wait for this: handlers start when the application is ready for them. */
  open(): void {
    if (this.mode === 'holding') this.mode = 'open'
    this.pump()
  }

  /** No more work is taken. Resolves when the handlers that run, and what cannot be given back, are done. */
  drain(): Promise<void> {
    const wasHolding = this.mode === 'holding'
    this.mode = 'draining'
    this.giveBack([...this.parked, ...this.lanes.removeAll(job => this.canGiveBack(job))])
    this.parked = []
    // Held for handlers that will not be started any more.
    if (wasHolding) this.discard(this.lanes.removeAll(() => true))
    this.pump()
    if (this.isIdle()) return Promise.resolve()
    return new Promise(resolve => this.idleWaiters.push(resolve))
  }

  message(packet: PublishPacket, link: Link): void {
    this.counted.received += 1
    const acknowledge = this.acknowledgement(packet, link)
    const job: Job = { topic: packet.topic, packet, acknowledge }
    if (this.mode === 'draining' && this.canGiveBack(job)) return this.giveBack([job])
    this.enqueue(job)
    this.pump()
  }

  connected(_link: Link, session: ConnectedSession): void {
    const parked = this.parked
    this.parked = []
    // A resumed session brings them again; a forgotten one does not, so they are handled now.
    if (session.sessionPresent) return this.giveBack(parked)
    for (const job of parked) this.enqueue({ ...job, acknowledge: undefined })
    this.pump()
  }

  lost(): void {
    this.acks = new AckWindow()
    const unstarted = this.lanes.removeAll(job => this.canGiveBack(job))
    if (this.mode === 'draining') this.giveBack(unstarted)
    else this.parked.push(...unstarted)
  }

  private canGiveBack(job: Job): boolean {
    return this.rules.keepsSession && job.acknowledge !== undefined
  }

  private giveBack(jobs: readonly Job[]): void {
    for (const job of jobs) this.waitingQoS0.delete(job)
    this.counted.givenBack += jobs.length
  }

  private discard(jobs: readonly Job[]): void {
    for (const job of jobs) this.waitingQoS0.delete(job)
    this.counted.dropped += jobs.length
  }

  private acknowledgement(packet: PublishPacket, link: Link): (() => void) | undefined {
    if (packet.qos !== 1 || packet.messageId === undefined) return undefined
    const window = this.acks
    const slot: AckSlot = window.add(packet.messageId)
    return () => {
      const ready = window.complete(slot)
      // The window of an earlier connection: the broker has taken these back.
      if (window !== this.acks) return
      for (const messageId of ready) link.send({ cmd: 'puback', messageId })
    }
  }

  private enqueue(job: Job): void {
    if (job.packet.qos === 0) {
      this.waitingQoS0.add(job)
      if (this.waitingQoS0.size > this.rules.maxQueued) this.dropOldest()
    }
    this.lanes.add(job)
  }

  private dropOldest(): void {
    const [oldest] = this.waitingQoS0
    if (oldest === undefined) return
    this.waitingQoS0.delete(oldest)
    this.lanes.remove(oldest)
    this.counted.dropped += 1
    this.rules.onDropped()
  }

  private pump(): void {
    while (this.mode !== 'holding' && this.running < this.rules.concurrency) {
      const job = this.lanes.take()
      if (job === undefined) break
      this.waitingQoS0.delete(job)
      this.running += 1
      void this.run(job)
    }
    if (this.isIdle()) this.wakeIdle()
  }

  private async run(job: Job): Promise<void> {
    const handlers = this.rules.select(job.packet)
    if (handlers.length === 0) {
      this.counted.unmatched += 1
      this.rules.onUnmatched(job.topic)
    }
    const results = await Promise.allSettled(handlers.map(handler => handler(job.packet)))
    if (results.some(result => result.status === 'rejected')) this.counted.failed += 1
    this.counted.handled += 1
    this.running -= 1
    job.acknowledge?.()
    this.lanes.release(job.topic)
    this.pump()
  }

  private isIdle(): boolean {
    return this.running === 0 && this.lanes.size === 0
  }

  private wakeIdle(): void {
    const waiters = this.idleWaiters
    this.idleWaiters = []
    for (const wake of waiters) wake()
  }
}

import type { InboundOptions } from '../../options.js'
import type { ConnectedSession, ConnectionState } from '../connection/connection-state.js'
import type { Link, PublishPacket } from '../connection/link.js'
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
  /** QoS 0 messages that had to make room, and what no handler took before the end of a shutdown. */
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
  /** @param count of them so far */
  readonly onUnmatched: (topic: string, count: number) => void
  /** @param count of them so far */
  readonly onDropped: (count: number) => void
  /** The broker sends more than may wait, and does not wait for acknowledgements; the connection must end. */
  readonly onOverrun: () => void
}

interface Job {
  readonly topic: string
  readonly packet: PublishPacket
  readonly ack: PendingAck | undefined
}

/** The acknowledgement that a QoS 1 message waits for, on the connection it came by. */
interface PendingAck {
  readonly window: AckWindow
  readonly slot: AckSlot
  readonly link: Link
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
  private readonly running = new Set<Job>()
  private mode: 'holding' | 'open' | 'draining' | 'stopped' = 'holding'
  private idleWaiters: (() => void)[] = []
  private readonly counted = { received: 0, handled: 0, failed: 0, unmatched: 0, dropped: 0, givenBack: 0 }

  constructor(private readonly rules: DispatcherRules) {}

  get counters(): InboundCounters {
    return { ...this.counted, waiting: this.lanes.size + this.parked.length, running: this.running.size }
  }

  /** Messages that came before wait for this: handlers start when the application is ready for them. */
  open(): void {
    if (this.mode === 'holding') this.mode = 'open'
    this.pump()
  }

  /**
   * No more work is taken. Resolves when the handlers that run have ended, and those of messages that came before
   * them: their acknowledgements could not leave otherwise. What comes after them is given back to a broker that
   * keeps the session, and handled too where it does not.
   */
  drain(): Promise<void> {
    const wasHolding = this.mode === 'holding'
    this.mode = 'draining'
    this.giveBack(this.parked.splice(0))
    const last = Math.max(-1, ...[...this.running].map(job => this.positionOf(job)))
    this.giveBack(this.lanes.removeAll(job => this.canGiveBack(job) && this.positionOf(job) > last))
    // Held for handlers that will not be started any more.
    if (wasHolding) this.discard(this.lanes.removeAll(() => true))
    this.pump()
    if (this.isIdle()) return Promise.resolve()
    return new Promise(resolve => this.idleWaiters.push(resolve))
  }

  /** No handler is started any more, whatever waits. */
  stop(): void {
    this.mode = 'stopped'
    this.refuse([...this.parked.splice(0), ...this.lanes.removeAll(() => true)])
    this.wakeIdle()
  }

  stateChanged(state: ConnectionState, before: ConnectionState): void {
    // Opened again after a close.
    if (before.status === 'closed' && state.status === 'connecting') this.mode = 'holding'
  }

  message(packet: PublishPacket, link: Link): void {
    this.counted.received += 1
    const job: Job = { topic: packet.topic, packet, ack: this.pendingAck(packet, link) }
    if (this.mode === 'draining' || this.mode === 'stopped') return this.refuse([job])
    this.enqueue(job)
    this.pump()
  }

  connected(_link: Link, session: ConnectedSession): void {
    const parked = this.parked
    this.parked = []
    // A resumed session brings them again; a forgotten one does not, so they are handled now.
    if (session.sessionPresent) return this.giveBack(parked)
    for (const job of parked) this.enqueue({ ...job, ack: undefined })
    this.pump()
  }

  lost(): void {
    this.acks = new AckWindow()
    const unstarted = this.lanes.removeAll(job => this.canGiveBack(job))
    if (this.mode === 'draining') this.giveBack(unstarted)
    else this.parked = this.parked.concat(unstarted)
  }

  private canGiveBack(job: Job): boolean {
    return this.rules.keepsSession && job.ack !== undefined
  }

  private giveBack(jobs: readonly Job[]): void {
    for (const job of jobs) this.waitingQoS0.delete(job)
    this.counted.givenBack += jobs.length
  }

  private discard(jobs: readonly Job[]): void {
    for (const job of jobs) this.waitingQoS0.delete(job)
    this.counted.dropped += jobs.length
  }

  /** What comes too late to be handled. */
  private refuse(jobs: readonly Job[]): void {
    this.giveBack(jobs.filter(job => this.canGiveBack(job)))
    this.discard(jobs.filter(job => !this.canGiveBack(job)))
  }

  private positionOf({ ack }: Job): number {
    return ack === undefined ? -1 : this.acks.positionOf(ack.slot)
  }

  private pendingAck(packet: PublishPacket, link: Link): PendingAck | undefined {
    if (packet.qos !== 1 || packet.messageId === undefined) return undefined
    return { window: this.acks, slot: this.acks.add(packet.messageId), link }
  }

  private acknowledge({ window, slot, link }: PendingAck): void {
    const ready = window.complete(slot)
    // The window of an earlier connection: the broker has taken these back.
    if (window !== this.acks) return
    for (const messageId of ready) link.send({ cmd: 'puback', messageId })
  }

  private enqueue(job: Job): void {
    this.lanes.add(job)
    const { maxQueued, maxInFlight } = this.rules
    if (job.packet.qos === 0) {
      this.waitingQoS0.add(job)
      if (this.waitingQoS0.size > maxQueued) this.dropOldest()
    } else if (this.lanes.size - this.waitingQoS0.size > maxQueued + maxInFlight) this.rules.onOverrun()
  }

  private dropOldest(): void {
    const [oldest] = this.waitingQoS0
    if (oldest === undefined) return
    this.waitingQoS0.delete(oldest)
    this.lanes.remove(oldest)
    this.counted.dropped += 1
    this.rules.onDropped(this.counted.dropped)
  }

  private pump(): void {
    const isWorking = this.mode === 'open' || this.mode === 'draining'
    while (isWorking && this.running.size < this.rules.concurrency) {
      const job = this.lanes.take()
      if (job === undefined) break
      this.waitingQoS0.delete(job)
      this.running.add(job)
      void this.run(job)
    }
    if (this.isIdle()) this.wakeIdle()
  }

  private async run(job: Job): Promise<void> {
    const handlers = this.rules.select(job.packet)
    if (handlers.length === 0) {
      this.counted.unmatched += 1
      this.rules.onUnmatched(job.topic, this.counted.unmatched)
    }
    const results = await Promise.allSettled(handlers.map(handler => handler(job.packet)))
    if (results.some(result => result.status === 'rejected')) this.counted.failed += 1
    this.counted.handled += 1
    this.running.delete(job)
    if (job.ack !== undefined) this.acknowledge(job.ack)
    this.lanes.release(job.topic)
    this.pump()
  }

  private isIdle(): boolean {
    return this.running.size === 0 && this.lanes.size === 0
  }

  private wakeIdle(): void {
    const waiters = this.idleWaiters
    this.idleWaiters = []
    for (const wake of waiters) wake()
  }
}

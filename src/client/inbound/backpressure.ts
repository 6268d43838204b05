import { MqttError } from '../../core/errors.js'
import type { InboundCount } from '../../core/inbound/inbound-count.js'
import type { HeldBytes } from '../../core/inbound/open-messages.js'
import type { InboundOptions } from '../../options/options.js'
import type { Link } from '../connection/link.js'
import type { ClientEvents } from '../events.js'
import type { Collecting } from './batches.js'
import type { Delivery, HandlerRun } from './delivery.js'
import { Stall } from './window-watch.js'

/** Messages are left to the broker at this multiple of the number that may be held. */
const OVERRUN = 10
/** How long the broker may take to release a QoS 2 message if there is no room for another one. */
const RELEASE_MS = 10_000

/** Incoming messages that are held. */
export interface IntakeState {
  /** QoS 1 messages without their PUBACK on the current connection. */
  readonly unacknowledged: { readonly length: number }
  /** QoS 2 messages that the broker has released. */
  readonly qos2: number
  readonly held: HeldBytes
  readonly count: Pick<InboundCount, 'leftUnreleased'>
}

/** What pauses the intake, and what replaces the connection. */
export interface BackpressureSession {
  readonly options: {
    readonly inbound: Required<InboundOptions>
    /** The broker keeps the session of this client when a connection ends. */
    readonly keepsSession: boolean
  }
  /** Whether this client waits for a response from the broker. */
  readonly awaitsResponses: boolean
  readonly connection: { terminate(cause: MqttError): void }
  /** Replaces the connection, so that the broker delivers again what was not acknowledged. */
  readonly renewal: { reconnect(): Promise<void> }
  readonly events: ClientEvents
}

/**
 * QoS 1 and 2 messages cannot be dropped. While too many are held, nothing is read. If handlers may wait for data that is
 * not read, reading resumes. A message for which there is no room is then left to the broker, together with all later ones,
 * so that the order is kept: it is not acknowledged. When those that are held are finished, the connection is replaced, and the
 * broker delivers the others again. Each connection thus finishes at least one message.
 */
export class Backpressure {
  private readonly stall: Stall
  /** Handlers that wait for several messages. */
  readonly batches = new Set<Collecting>()
  /** The intake is paused, or only resumed because handlers may wait for it. */
  isHolding = false
  /** Messages of QoS 1 and 2 are left to the broker until the connection is replaced. */
  isSkipping = false
  private timer: NodeJS.Timeout | undefined
  private isReplacing = false
  private isEnded = false
  private readonly inbound: Required<InboundOptions>
  /** Used if the broker knows no limit. */
  private readonly most: number
  /** Private (`#`), so that `util.inspect` does not repeat the session at every level. */
  readonly #session: BackpressureSession

  constructor(
    private readonly state: IntakeState,
    session: BackpressureSession,
  ) {
    this.#session = session
    this.inbound = session.options.inbound
    this.stall = new Stall(session)
    this.most = this.inbound.maxQueued + this.inbound.maxInFlight
  }

  /** The maximum number of QoS 1 messages that wait for their PUBACK. */
  mostUnacknowledged({ protocolVersion }: Pick<Link, 'protocolVersion'>): number {
    return protocolVersion === 5 ? this.inbound.maxInFlight : this.most
  }

  /**
   * The number of messages above which `bound` must be called. With batches, a full window must be noticed as well.
   * @param added a handler that waits for several messages
   */
  limitOf(link: Link | undefined, added?: Collecting): number {
    if (added !== undefined) this.batches.add(added)
    if (this.isEnded) added?.drain()
    return link === undefined ? 0 : this.mostUnacknowledged(link) - (this.batches.size > 0 ? 1 : 0)
  }

  /** Starts all batches, because the broker may not send the messages that they wait for. */
  flush(): void {
    for (const batches of this.batches) batches.flush()
  }

  /** A message of QoS 1 or 2 arrived, so there may be too many. */
  bound(link: Link): void {
    const { held, unacknowledged } = this.state
    const most = this.mostUnacknowledged(link)
    if (this.batches.size > 0 && (held.isOver || unacknowledged.length >= most)) this.flush()
    if (held.isPermanentlyOver) return this.skip()
    if (!this.isFull(most)) return
    if (!this.pause(link) && this.isFull(OVERRUN * this.most)) this.skip()
  }

  /** A QoS 2 message arrived that this client does not hold. @returns false if it is left to the broker */
  mayStore(link: Link): boolean {
    this.bound(link)
    // `mqtt` ends a connection with more of them than Receive Maximum.
    const isOver = link.protocolVersion === 5 && this.state.held.unreleased.count >= this.inbound.maxInFlight
    if (isOver) this.skip()
    if (!this.isSkipping && !isOver && !this.state.held.isPermanentlyOver) return true
    this.state.count.leftUnreleased(this.#session.options.keepsSession)
    this.skipped(link)
    return false
  }

  /** @returns false if reading must continue */
  pause(link: Link | undefined): boolean {
    if (link === undefined) return false
    this.isHolding = true
    return this.stall.pause(link)
  }

  /** There is room for QoS 0 messages again. */
  release(): void {
    if (this.isSkipping) this.settleSkipped()
    else if (!this.isFull(this.inbound.maxInFlight)) this.settle()
  }

  /** A handler has ended or paused. */
  progressed(): void {
    this.stall.progressed()
  }

  /** A message was left to the broker. Reading on only helps if something is awaited. */
  skipped(link: Link): void {
    if (!this.isSkipping || this.isReplacing) return
    if (!this.#session.awaitsResponses && this.state.held.unreleased.count === 0) this.stall.pauseAgain(link)
    this.settleSkipped()
  }

  /** No new work is accepted. */
  end(): void {
    this.isEnded = true
    for (const batches of this.batches) batches.drain()
    this.stopSkipping()
    this.settle()
  }

  /** The held messages are within the limits again. */
  private settle(): void {
    this.isHolding = false
    this.stall.release()
  }

  /** The connection has ended. */
  forget(): void {
    this.isHolding = false
    this.stopSkipping()
    this.stall.forget()
  }

  private skip(): void {
    if (this.isSkipping || this.isEnded) return
    this.isSkipping = true
    this.isHolding = true
    this.#session.events.notice.emit({
      type: 'connection-warning',
      text: this.#session.options.keepsSession ? LEFT_TO_BROKER : LEFT_AND_LOST,
    })
    this.lookLater(this.state.held.unreleased.count)
  }

  private lookLater(unreleased: number): void {
    this.timer = setTimeout(() => {
      this.settleSkipped()
      if (this.isReplacing) return
      const { unacknowledged, qos2 } = this.state
      const isStuck = unacknowledged.length + qos2 === 0 && this.state.held.unreleased.count >= unreleased
      if (isStuck) this.#session.connection.terminate(overrun())
      else this.lookLater(this.state.held.unreleased.count)
    }, RELEASE_MS)
  }

  /** Replaces the connection if all messages that are held are finished. */
  private settleSkipped(): void {
    const { unacknowledged, qos2 } = this.state
    if (this.isReplacing) return
    if (this.state.held.unreleased.count > 0) return this.stall.release()
    if (unacknowledged.length + qos2 > 0) return
    this.isReplacing = true
    this.stall.release()
    void this.#session.renewal.reconnect()
  }

  private stopSkipping(): void {
    clearTimeout(this.timer)
    this.isSkipping = false
    this.isReplacing = false
  }

  private isFull(most: number): boolean {
    const { held, unacknowledged, qos2 } = this.state
    if (held.isOver || unacknowledged.length > most) return true
    return qos2 > 0 && unacknowledged.length + qos2 > Math.max(most, this.most)
  }
}

export const LEFT_TO_BROKER =
  'the broker sent more QoS 1 and 2 messages than the client can hold; it will reconnect to receive the others again; raise inbound.maxQueued or inbound.maxQueuedBytes'
export const LEFT_AND_LOST =
  'QoS 1 and 2 messages are dropped, because the broker sent more than the client can hold; set clean: false, or raise inbound.maxQueued or inbound.maxQueuedBytes'
const RECEIVE_MAXIMUM_EXCEEDED = 0x93

/** The broker sends more than may wait, and does not release what it has sent. */
function overrun(): MqttError {
  return new MqttError(
    'CONNECTION_LOST',
    'the broker sent more QoS 2 messages than the client can hold, and does not release them with PUBREL; raise inbound.maxQueuedBytes',
    { reasonCode: RECEIVE_MAXIMUM_EXCEEDED },
  )
}

/** Decides what must be dropped when too much waits. */
export interface Overflow {
  /** The link should stop reading instead, if possible. */
  readonly mayStall: boolean
  readonly drop: readonly HandlerRun[]
}

/** QoS 0 messages that wait for handlers. Limited, because the broker sends them without waiting for their handlers. */
export class Intake {
  /** In order of arrival, each with the runs that have not started. */
  private readonly waiting = new Map<Delivery, HandlerRun | Set<HandlerRun>>()
  /** The newest run for each topic and handler; undefined unless `overflow` is `latest`. */
  private readonly newest: Map<string, HandlerRun> | undefined

  constructor(private readonly options: Pick<Required<InboundOptions>, 'maxQueued' | 'overflow'>) {
    this.newest = options.overflow === 'latest' ? new Map() : undefined
  }

  get size(): number {
    return this.waiting.size
  }

  /** Whether there is room again for the messages of a stalled link. */
  get hasRoom(): boolean {
    return this.waiting.size <= this.options.maxQueued / 2
  }

  /** In order of arrival. */
  messages(): Iterable<Delivery> {
    return this.waiting.keys()
  }

  /** One more message waits. */
  add(run: HandlerRun): Overflow | undefined {
    const { maxQueued, overflow } = this.options
    const isFull = this.waiting.size >= maxQueued && !this.waiting.has(run.delivery)
    if (overflow === 'drop-newest' && isFull) return { mayStall: false, drop: [run] }
    const replaced = this.newest && replace(this.newest, run)
    const oldest = isFull ? this.oldest() : []
    const runs = this.waiting.get(run.delivery)
    // Most messages have one handler, and a set with one entry would be most of the cost of a message.
    if (runs === undefined) this.waiting.set(run.delivery, run)
    else if (runs instanceof Set) runs.add(run)
    else this.waiting.set(run.delivery, new Set([runs, run]))
    if (replaced !== undefined) return { mayStall: false, drop: [replaced] }
    return isFull ? { mayStall: overflow === 'stall', drop: oldest } : undefined
  }

  /** The run no longer waits. */
  remove(run: HandlerRun): void {
    const runs = this.waiting.get(run.delivery)
    if (runs === run) this.waiting.delete(run.delivery)
    else if (!(runs instanceof Set) || !runs.delete(run)) return
    else if (runs.size === 0) this.waiting.delete(run.delivery)
    if (this.newest === undefined) return
    const key = keyOf(run)
    if (this.newest.get(key) === run) this.newest.delete(key)
  }

  private oldest(): HandlerRun[] {
    for (const runs of this.waiting.values()) return runs instanceof Set ? [...runs] : [runs]
    return []
  }
}

function replace(newest: Map<string, HandlerRun>, run: HandlerRun): HandlerRun | undefined {
  const key = keyOf(run)
  const older = newest.get(key)
  newest.set(key, run)
  return older
}

/** The newest message of each topic per handler, because handlers may have progressed differently. */
function keyOf({ handler, delivery }: HandlerRun): string {
  return `${handler.id} ${delivery.packet.topic}`
}

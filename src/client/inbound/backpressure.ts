import { MqttError } from '../../core/errors.js'
import type { HeldBytes } from '../../core/inbound/open-messages.js'
import type { InboundOptions } from '../../options/options.js'
import type { Link } from '../connection/link.js'
import type { Collecting } from './batches.js'
import type { Delivery, HandlerRun } from './delivery.js'

/** The connection is closed at this multiple of the number of messages that may be held. */
const OVERRUN = 10

type InboundLimits = Pick<Required<InboundOptions>, 'maxQueued' | 'maxInFlight'>

/** Incoming messages that are held. */
export interface IntakeState {
  /** QoS 1 messages without their PUBACK on the current connection. */
  readonly unacknowledged: { readonly length: number }
  /** QoS 2 messages that the broker has released. */
  readonly qos2: number
  readonly held: HeldBytes
}

/** What pauses the intake, and what closes the connection. */
export interface BackpressureSession {
  /** Whether this client waits for a response from the broker. */
  readonly awaitsResponses: boolean
  readonly connection: { terminate(cause: MqttError): void }
}

/**
 * QoS 1 and 2 messages cannot be dropped. While too many are held, nothing is read. If handlers may wait for data that is
 * not read, reading resumes, and the connection is closed once too much is held.
 */
export class Backpressure {
  private readonly stall: Stall
  /** Handlers that wait for several messages. */
  readonly batches = new Set<Collecting>()
  /** The intake is paused, or only resumed because handlers may wait for it. */
  isHolding = false
  private isEnded = false
  /** Used if the broker knows no limit. */
  private readonly most: number

  constructor(
    private readonly inbound: InboundLimits,
    private readonly state: IntakeState,
    private readonly session: BackpressureSession,
  ) {
    this.stall = new Stall(session)
    this.most = inbound.maxQueued + inbound.maxInFlight
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
    if (this.batches.size > 0 && (this.state.held.isOver || this.isWindowFull(link))) this.flush()
    if (this.state.held.isPermanentlyOver) return this.session.connection.terminate(overrun())
    if (!this.isFull(this.mostUnacknowledged(link))) return
    if (!this.pause(link) && this.isFull(OVERRUN * this.most)) this.session.connection.terminate(overrun())
  }

  /** @returns false if reading must continue */
  pause(link: Link | undefined): boolean {
    if (link === undefined) return false
    this.isHolding = true
    return this.stall.pause(link)
  }

  /** There is room for QoS 0 messages again. */
  release(): void {
    if (!this.isFull(this.inbound.maxInFlight)) this.settle()
  }

  /** A handler has ended or paused. */
  progressed(): void {
    this.stall.progressed()
  }

  /** No new work is accepted. */
  end(): void {
    this.isEnded = true
    for (const batches of this.batches) batches.drain()
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
    this.stall.forget()
  }

  private isWindowFull(link: Link): boolean {
    return this.state.unacknowledged.length >= this.mostUnacknowledged(link)
  }

  private isFull(most: number): boolean {
    const { held, unacknowledged, qos2 } = this.state
    if (held.isOver || unacknowledged.length > most) return true
    return qos2 > 0 && unacknowledged.length + qos2 > Math.max(most, this.most)
  }
}

/** If no handler ends within this time, the running handlers may wait for data that is not read. */
const PATIENCE_MS = 250

/**
 * Stops reading, so that the broker does not send more than the handlers process. Responses to requests and QoS 1 publishes
 * of handlers on the same connection arrive behind the unread messages. Before handlers would wait forever, reading
 * resumes, and messages are dropped to make room after all.
 */
export class Stall {
  private paused: Link | undefined
  private isYielding = false
  private hasProgressed = false
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly session: Pick<BackpressureSession, 'awaitsResponses'>) {}

  /** @returns false if reading must continue */
  pause(link: Link): boolean {
    if (this.isYielding) return false
    if (this.paused === undefined) {
      link.pauseIntake()
      this.paused = link
      this.watch()
    }
    return true
  }

  /** A handler has ended. */
  progressed(): void {
    this.hasProgressed = true
  }

  /** There is room again. */
  release(): void {
    this.isYielding = false
    if (this.paused === undefined) return
    const link = this.paused
    this.forget()
    link.resumeIntake()
  }

  /** The connection has ended. */
  forget(): void {
    clearTimeout(this.timer)
    this.paused = undefined
    this.isYielding = false
  }

  private watch(): void {
    this.hasProgressed = false
    this.timer = setTimeout(() => {
      if (this.hasProgressed || !this.session.awaitsResponses) return this.watch()
      const link = this.paused
      this.forget()
      this.isYielding = true
      link?.resumeIntake()
    }, PATIENCE_MS)
  }
}

const RECEIVE_MAXIMUM_EXCEEDED = 0x93

/** The broker sends more than may wait, and does not wait for acknowledgements. */
function overrun(): MqttError {
  return new MqttError(
    'CONNECTION_LOST',
    'the broker sent more QoS 1 and 2 messages than the client can hold; raise inbound.maxQueued or inbound.maxQueuedBytes',
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

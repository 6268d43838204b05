import { MqttError } from '../../core/errors.js'
import type { HeldBytes } from '../../core/inbound/open-messages.js'
import type { InboundOptions } from '../../options/options.js'
import type { Link } from '../connection/link.js'
import type { Delivery, HandlerRun } from './delivery.js'

/** The connection ends at this multiple of the number of messages that may be held. */
const OVERRUN = 10

type InboundLimits = Pick<Required<InboundOptions>, 'maxQueued' | 'maxInFlight'>

/** What came in and is held. */
export interface IntakeState {
  /** QoS 1 messages without their PUBACK on the present connection. */
  readonly unacknowledged: { readonly length: number }
  /** QoS 2 messages that the broker has handed over. */
  readonly qos2: number
  readonly held: HeldBytes
}

/** What holds the intake up, and what ends it. */
export interface BackpressureSession {
  /** Whether something of ours waits for a response of the broker. */
  readonly awaitsResponses: boolean
  readonly connection: { hangUp(cause: MqttError): void }
}

/**
 * QoS 1 and 2 messages cannot be dropped. While more of them are held than may be, nothing is read; and when that would
 * hold up what handlers wait for, what is read all the same ends the connection once there is too much of it.
 */
export class Backpressure {
  private readonly stall: Stall
  /** Nothing is read, or is only read since handlers may wait for it. */
  isHolding = false
  /** Where the broker knows no limit. */
  private readonly most: number

  constructor(
    private readonly inbound: InboundLimits,
    private readonly state: IntakeState,
    private readonly session: BackpressureSession,
  ) {
    this.stall = new Stall(session)
    this.most = inbound.maxQueued + inbound.maxInFlight
  }

  /** More QoS 1 messages than this may not wait for their PUBACK. */
  mostUnacknowledged({ protocolVersion }: Pick<Link, 'protocolVersion'>): number {
    return protocolVersion === 5 ? this.inbound.maxInFlight : this.most
  }

  /** A message of QoS 1 or 2 came, and there may be too many. */
  bound(link: Link): void {
    if (this.state.held.isHopeless) return this.session.connection.hangUp(overrun())
    if (!this.isFull(this.mostUnacknowledged(link))) return
    if (!this.pause(link) && this.isFull(OVERRUN * this.most)) this.session.connection.hangUp(overrun())
  }

  /** @returns false when it must be read on */
  pause(link: Link | undefined): boolean {
    if (link === undefined) return false
    this.isHolding = true
    return this.stall.pause(link)
  }

  /** QoS 0 has room again. */
  release(): void {
    if (!this.isFull(this.inbound.maxInFlight)) this.end()
  }

  /** A handler has come to an end, or to a pause. */
  progressed(): void {
    this.stall.progressed()
  }

  /** No more work is taken. */
  end(): void {
    this.isHolding = false
    this.stall.release()
  }

  /** The connection is gone. */
  forget(): void {
    this.isHolding = false
    this.stall.forget()
  }

  private isFull(most: number): boolean {
    const { held, unacknowledged, qos2 } = this.state
    if (held.isOver || unacknowledged.length > most) return true
    return qos2 > 0 && unacknowledged.length + qos2 > Math.max(most, this.most)
  }
}

/** Without a handler that ends for so long, the ones that run may wait for what cannot be read. */
const PATIENCE_MS = 250

/**
 * Keeps the broker from sending more than handlers take, by not reading. What handlers publish with QoS 1 and request
 * on the same connection gets its response behind the messages that are not read: before they would wait for ever, it
 * is read on, and messages make room for others after all.
 */
export class Stall {
  private paused: Link | undefined
  private isYielding = false
  private hasProgressed = false
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly session: Pick<BackpressureSession, 'awaitsResponses'>) {}

  /** @returns false when it must be read on */
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

  /** The connection is gone. */
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

/** What must go so that no more waits than may. */
export interface Overflow {
  /** The link is to wait instead, where it can. */
  readonly mayStall: boolean
  readonly drop: readonly HandlerRun[]
}

/** QoS 0 messages that wait for handlers: bounded, since the broker does not wait for them to be handled. */
export class Intake {
  /** In the order in which they came, with those of their handlers that have not begun. */
  private readonly waiting = new Map<Delivery, HandlerRun | Set<HandlerRun>>()
  private readonly newest = new Map<string, HandlerRun>()

  constructor(private readonly options: Pick<Required<InboundOptions>, 'maxQueued' | 'overflow'>) {}

  get size(): number {
    return this.waiting.size
  }

  /** Whether there is room again for what a stalled link holds. */
  get hasRoom(): boolean {
    return this.waiting.size <= this.options.maxQueued / 2
  }

  /** In the order in which they came. */
  messages(): Iterable<Delivery> {
    return this.waiting.keys()
  }

  /** One more waits. */
  add(run: HandlerRun): Overflow | undefined {
    const { maxQueued, overflow } = this.options
    const isFull = this.waiting.size >= maxQueued && !this.waiting.has(run.delivery)
    if (overflow === 'drop-newest' && isFull) return { mayStall: false, drop: [run] }
    const replaced = overflow === 'latest' ? this.replace(run) : undefined
    const oldest = isFull ? this.oldest() : []
    const runs = this.waiting.get(run.delivery)
    // Most messages have one handler: a set of one would be most of what a message costs.
    if (runs === undefined) this.waiting.set(run.delivery, run)
    else if (runs instanceof Set) runs.add(run)
    else this.waiting.set(run.delivery, new Set([runs, run]))
    if (replaced !== undefined) return { mayStall: false, drop: [replaced] }
    return isFull ? { mayStall: overflow === 'stall', drop: oldest } : undefined
  }

  /** It waits no longer. */
  remove(run: HandlerRun): void {
    const runs = this.waiting.get(run.delivery)
    if (runs === run) this.waiting.delete(run.delivery)
    else if (!(runs instanceof Set) || !runs.delete(run)) return
    else if (runs.size === 0) this.waiting.delete(run.delivery)
    if (this.options.overflow !== 'latest') return
    const key = keyOf(run)
    if (this.newest.get(key) === run) this.newest.delete(key)
  }

  private oldest(): HandlerRun[] {
    for (const runs of this.waiting.values()) return runs instanceof Set ? [...runs] : [runs]
    return []
  }

  private replace(run: HandlerRun): HandlerRun | undefined {
    const key = keyOf(run)
    const older = this.newest.get(key)
    this.newest.set(key, run)
    return older
  }
}

/** The newest of a topic for each handler: one may be ahead of the other. */
function keyOf({ handler, delivery }: HandlerRun): string {
  return `${handler.id} ${delivery.packet.topic}`
}

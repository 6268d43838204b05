import { LinkWindow } from '../../core/outbound/link-window.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import { AckPulse } from '../../core/outbound/pings.js'
import type { BrokerLimits } from '../../core/protocol/packets.js'
import { TopicAliases } from '../../core/protocol/write-batch.js'
import type { Link } from '../connection/link.js'
import type { ClientEvents } from '../events.js'

export interface Pacing {
  readonly flowControl: 'markers' | 'kernel'
  readonly topicAlias: boolean
}

const MAX_BACKLOG_BYTES = 262_144
/** A link that is not known to be slow may accept the message soon. */
const MAX_BURST_BYTES = 4_194_304

/** A single response in time does not prove that a slow link has become fast. */
const SLOW_FOR_MS = 1_000

/** A timer with this delay shows that the process was busy. */
const LATE_TURN_MS = 50
/** At most 500 per second. */
const PULSE_MS = 2
const PINGREQ = { cmd: 'pingreq' } as const

/** A link that accepts a message only if it can carry it soon. Used for one connection. */
export class PacedLink {
  /** Something else must be sent first. */
  isHeld = false
  private readonly window: LinkWindow | undefined
  /** Undefined if the connection allows no aliases, as most do. */
  private readonly aliases: TopicAliases | undefined
  private timer: NodeJS.Timeout | undefined
  private timerDueMs = Number.POSITIVE_INFINITY
  /** The event loop was late at this time, so responses may have waited unread. */
  private lateMs = Number.NEGATIVE_INFINITY
  /** A publish whose PUBACK is awaited, and the number of bytes up to it. */
  private awaitedId: number | undefined
  private awaitedAt = 0
  private awaitedSentMs = 0
  /** Time of this turn of the event loop. Cached, because reading the clock costs more than writing a message. */
  private turnMs: number | undefined
  /** Time at which the uplink was last the limit. */
  private slowMs = Number.NEGATIVE_INFINITY
  /** Set until all responses of the current read are handled. */
  private reading: NodeJS.Immediate | undefined
  private pulse: AckPulse | undefined
  private pulseTimer: NodeJS.Timeout | undefined
  /** Numbers of PINGREQ and PINGRESP packets. */
  private pings = 0
  private responses = 0
  /** Callers that wait for the PINGRESP with this number. */
  private trips: { readonly ping: number; readonly done: (isDone: boolean) => void }[] = []
  /** Number of written bytes. */
  bytes = 0

  constructor(
    readonly link: Link,
    readonly limits: BrokerLimits,
    pacing: Pacing,
    /** Publishes may be written again. */
    private readonly onRead: () => void = () => {},
    private readonly events?: ClientEvents,
  ) {
    this.window = pacing.flowControl === 'markers' ? new LinkWindow() : undefined
    const { topicAliasMaximum } = limits
    const hasAliases = pacing.topicAlias && topicAliasMaximum > 0
    this.aliases = hasAliases ? new TopicAliases(topicAliasMaximum) : undefined
  }

  get nowMs(): number {
    if (this.turnMs !== undefined) return this.turnMs
    this.turnMs = performance.now()
    setImmediate(this.endTurn)
    return this.turnMs
  }

  /** Number of these bytes that the broker has read. Bytes without a marker after them count as read. */
  get readBytes(): number {
    return this.window?.read ?? this.bytes
  }

  get unconfirmedBytes(): number {
    return this.window?.unconfirmed ?? 0
  }

  get bytesPerSecond(): number | undefined {
    return this.window?.bytesPerSecond
  }

  isOpen(): boolean {
    const { link, window } = this
    if (this.isHeld || link.writer.isCongested()) return false
    // Responses, which measure the link, cannot be read while the intake is paused.
    if (window === undefined || link.isIntakePaused) return true
    const { behindSinceMs } = link
    return window.isOpen(this.nowMs, behindSinceMs === undefined ? 0 : this.nowMs - behindSinceMs)
  }

  /** Estimated time until the broker has read this many more bytes. */
  delayMs(bytes: number): number {
    return this.window?.delayMs(bytes, this.nowMs) ?? 0
  }

  /** Time at which data written now arrives, counting only the queue caused by other traffic. */
  get arrivalMs(): number {
    return this.nowMs + (this.window?.crowdedMs(this.nowMs) ?? 0)
  }

  /** Number of bytes that may wait for this link under `drop`. */
  get backlogBytes(): number {
    const { nowMs } = this
    if (this.window?.isSlow(nowMs) === true) this.slowMs = nowMs
    return nowMs - this.slowMs < SLOW_FOR_MS ? MAX_BACKLOG_BYTES : MAX_BURST_BYTES
  }

  sizeOf(message: OutboundMessage): number {
    return this.link.writer.sizeOf(message)
  }

  publish(message: OutboundMessage, messageId: number | undefined): void {
    const { aliases, link, window } = this
    const bytes =
      aliases === undefined
        ? link.writer.publish(message, messageId, undefined)
        : this.publishWithAlias(message, messageId, aliases)
    this.bytes += bytes
    if (window?.wrote(bytes, this.nowMs)) this.mark()
    if (message.qos !== 1 || this.awaitedId !== undefined) return
    this.awaitedId = messageId
    this.awaitedAt = this.bytes
    this.awaitedSentMs = this.nowMs
  }

  /** PUBACK arrived: the broker has read everything before its PUBLISH. */
  acknowledged(messageId: number | undefined): void {
    if (messageId === undefined || messageId !== this.awaitedId) return
    this.awaitedId = undefined
    this.window?.acknowledged(this.awaitedAt, this.awaitedSentMs, this.nowMs)
  }

  /** Sends a message, which may have been sent on an earlier connection. */
  repeat(message: OutboundMessage, messageId: number): void {
    this.link.send({ cmd: 'publish', ...message, messageId, dup: true })
    const bytes = this.sizeOf(message)
    this.bytes += bytes
    if (this.window?.wrote(bytes, this.nowMs)) this.mark()
  }

  private publishWithAlias(
    message: OutboundMessage,
    messageId: number | undefined,
    aliases: TopicAliases,
  ): number {
    const alias = aliases.assign(message.topic)
    try {
      return this.link.writer.publish(message, messageId, alias)
    } catch (error) {
      // The broker does not know the alias on this connection.
      aliases.forget(message.topic)
      throw error
    }
  }

  /** A request or a response was written at QoS 1, and TCP must not delay what follows its PUBACK. */
  exchanging(): void {
    if (this.window === undefined) return
    this.pulse ??= new AckPulse()
    if (this.pulse.begin(this.nowMs, this.link.receivedBytes, this.bytes))
      this.pulseTimer ??= setTimeout(this.beat, PULSE_MS)
  }

  private readonly beat = (): void => {
    this.pulseTimer = undefined
    const step = this.pulse?.beat(performance.now(), this.link.receivedBytes, this.bytes)
    if (step === 'stop') return
    if (step === 'ping') this.mark()
    this.pulseTimer = setTimeout(this.beat, PULSE_MS)
  }

  /** The turn ends. A marker that is due is written with the packets of the turn. */
  flushing(): void {
    if (this.window?.isTending) this.tend(this.nowMs)
  }

  /**
   * Sends a PINGREQ.
   * @param done called with PINGRESP, after the messages that the broker sent before it, or with `false` if the connection ends
   */
  roundTrip(done: (isDone: boolean) => void): void {
    this.pinged()
    this.trips.push({ ping: this.pings, done })
    this.link.send(PINGREQ)
  }

  /** Keep Alive has sent a PINGREQ, which also serves as a marker. */
  pinged(): void {
    this.pings += 1
    this.window?.mark(performance.now())
  }

  /** PINGRESP arrived. */
  confirm(): void {
    const { link, window } = this
    this.pulse?.responded()
    this.responses += 1
    if (this.trips.length > 0) this.endTrips()
    if (window === undefined) return
    const nowMs = performance.now()
    window.received = link.receivedBytes
    window.confirm(nowMs, this.isBlind() ? nowMs : Math.max(link.intakeResumedMs, this.lateMs))
    if (window.holdDue === 'now') this.reading ??= setImmediate(this.endRead)
    else this.tend(nowMs)
    if (this.events?.link.hasListeners) {
      const { ageMs } = window.markers
      this.events.link.emit({ client: this.events.client, ageMs, bytesPerSecond: this.bytesPerSecond })
    }
  }

  /** The connection has ended. */
  stop(): void {
    clearTimeout(this.timer)
    clearTimeout(this.pulseTimer)
    clearImmediate(this.reading)
    for (const { done } of this.trips.splice(0)) done(false)
  }

  private endTrips(): void {
    const ended = this.trips.filter(({ ping }) => ping <= this.responses)
    this.trips = this.trips.filter(({ ping }) => ping > this.responses)
    for (const { done } of ended) done(true)
  }

  private readonly endRead = (): void => {
    this.reading = undefined
    this.tend(performance.now())
    this.onRead()
  }

  private readonly endTurn = (): void => {
    this.turnMs = undefined
  }

  private readonly wake = (): void => {
    const nowMs = performance.now()
    const isLate = nowMs - this.timerDueMs > LATE_TURN_MS
    this.timerDueMs = Number.POSITIVE_INFINITY
    // Data that has arrived in the meantime is read later in this turn.
    if (isLate) this.lateMs = nowMs
    else if (this.window !== undefined && !this.isBlind()) {
      this.window.received = this.link.receivedBytes
      this.window.look(nowMs)
    }
    this.tend(nowMs)
  }

  private isBlind(): boolean {
    return this.link.isIntakePaused || this.link.behindSinceMs !== undefined
  }

  /** Sends a due marker, and sets the timer for the next one. */
  private tend(nowMs: number): void {
    const { window } = this
    if (window === undefined) return
    if (window.isMarkerDue(nowMs)) this.mark()
    const dueMs = window.dueMs(nowMs)
    if (dueMs === undefined || dueMs >= this.timerDueMs) return
    clearTimeout(this.timer)
    this.timerDueMs = dueMs
    this.timer = setTimeout(this.wake, Math.max(1, Math.ceil(dueMs - nowMs)))
  }

  private mark(): void {
    if (this.window === undefined) return
    this.window.received = this.link.receivedBytes
    this.window.mark(performance.now())
    this.pings += 1
    // The second probe of a pause ends it. Waiting publishes are written after the probe.
    this.link.writer.isFlushAwaited = true
    this.link.send(PINGREQ)
  }
}

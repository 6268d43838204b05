import type { BrokerLimits } from '../connection/broker-limits.js'
import type { Link, OutgoingPublish } from '../connection/link.js'
import { LinkWindow } from './link-window.js'
import type { OutboundMessage } from './outbound-message.js'
import { TopicAliases } from './topic-aliases.js'

export interface Pacing {
  readonly flowControl: 'markers' | 'kernel'
  readonly topicAlias: boolean
}

const MAX_BACKLOG_BYTES = 262_144
/** A link that is not known to be slow may take it in the next moments. */
const MAX_BURST_BYTES = 4_194_304

/** A link that takes a message only while it can carry it soon. Good for one connection. */
export class PacedLink {
  /** Something else has to leave first. */
  isHeld = false
  private readonly window: LinkWindow | undefined
  private readonly aliases: TopicAliases
  private timer: NodeJS.Timeout | undefined
  /** The time of this turn of the event loop: asking for it costs more than writing a message. */
  private turnMs: number | undefined
  private written = 0

  constructor(
    readonly link: Link,
    readonly limits: BrokerLimits,
    pacing: Pacing,
  ) {
    this.window = pacing.flowControl === 'markers' ? new LinkWindow() : undefined
    this.aliases = new TopicAliases(pacing.topicAlias ? limits.topicAliasMaximum : 0)
  }

  get nowMs(): number {
    if (this.turnMs !== undefined) return this.turnMs
    this.turnMs = performance.now()
    setImmediate(this.endTurn)
    return this.turnMs
  }

  get bytes(): number {
    return this.written
  }

  /** How many of these the broker has read, as far as that is known. */
  get readBytes(): number {
    return this.written - this.unconfirmedBytes
  }

  get unconfirmedBytes(): number {
    return this.window?.unconfirmed ?? 0
  }

  get bytesPerSecond(): number | undefined {
    return this.window?.bytesPerSecond
  }

  isOpen(): boolean {
    if (this.isHeld) return false
    // What measures the link cannot be read while the intake is paused.
    const isBlind = this.window === undefined || this.link.isIntakePaused
    return (isBlind || this.window.isOpen(this.nowMs)) && !this.link.isCongested()
  }

  /** How long until so many bytes more would be read by the broker, as far as that is known. */
  delayMs(bytes: number): number {
    if (this.window !== undefined) return this.window.delayMs(bytes, this.nowMs) ?? 0
    return this.link.isCongested() ? Number.POSITIVE_INFINITY : 0
  }

  /** How many bytes may wait for this link under `drop`. */
  get backlogBytes(): number {
    return this.window?.isSlow(this.nowMs) === true ? MAX_BACKLOG_BYTES : MAX_BURST_BYTES
  }

  sizeOf(message: OutboundMessage): number {
    return this.link.sizeOf({ ...message, messageId: message.qos === 0 ? undefined : 1, alias: undefined })
  }

  publish(message: OutboundMessage, messageId: number | undefined): void {
    // Alone on the wire, the first marker tells the round trip.
    if (this.written === 0) this.mark()
    const { topic, payload, qos, retain, properties } = message
    const alias = this.aliases.assign(topic)
    const outgoing: OutgoingPublish = {
      topic,
      payload,
      qos,
      retain,
      messageId,
      alias,
      ...(properties === undefined ? undefined : { properties }),
    }
    this.count(this.send(outgoing))
  }

  /** Sends a message that an earlier connection has sent, too. */
  repeat(message: OutboundMessage, messageId: number): void {
    this.link.send({ cmd: 'publish', ...message, messageId, dup: true })
    this.count(this.sizeOf(message))
  }

  private send(outgoing: OutgoingPublish): number {
    try {
      return this.link.publish(outgoing)
    } catch (error) {
      // The broker has not heard of the alias.
      this.aliases.forget(outgoing.topic)
      throw error
    }
  }

  /** Counts bytes that were sent on the link directly. */
  count(bytes: number): void {
    this.written += bytes
    if (this.window === undefined) return
    this.window.wrote(bytes, this.nowMs)
    if (this.window.wantsMarker) this.mark()
  }

  /** The turn ends: what was written gets a marker with it, unless there was one just now. */
  flushing(): void {
    const dueMs = this.window?.markerDueMs
    if (dueMs !== undefined && dueMs <= this.nowMs) this.mark()
    else if (dueMs !== undefined) this.timer ??= setTimeout(this.markLate, dueMs - this.nowMs)
  }

  /** Keep Alive has sent a PINGREQ of its own: a marker like any other. */
  pinged(): void {
    this.window?.mark(performance.now())
  }

  /** PINGRESP came. */
  confirm(): void {
    this.window?.confirm(performance.now(), this.link.intakeResumedMs)
    if (this.window?.wantsProbe) this.mark()
  }

  /** The connection is gone. */
  stop(): void {
    clearTimeout(this.timer)
  }

  private readonly endTurn = (): void => {
    this.turnMs = undefined
  }

  private readonly markLate = (): void => {
    this.timer = undefined
    if (this.window?.markerDueMs !== undefined) this.mark()
  }

  private mark(): void {
    if (this.window === undefined) return
    this.window.mark(performance.now())
    this.link.send({ cmd: 'pingreq' })
  }
}

import { MqttError } from '../../core/errors.js'
import type { Publication } from '../../core/outbound/outbound-message.js'
import type { AckRules, PacketIds } from '../../core/protocol/packets.js'
import type { AcknowledgingPacket, Link } from './link.js'

/** A packet that the broker has not acknowledged yet. */
export interface Unacknowledged {
  /** Time at which it was written on this connection. */
  readonly sentMs: number
}

/** What an {@link AckDeadline} monitors. */
export interface AckWatch<T extends Unacknowledged> {
  /** The unacknowledged packet that was written first on this connection. */
  oldest(): T | undefined
  /** Additional time for a packet that the broker cannot have read yet, in milliseconds. */
  extraMs?(oldest: T): number
  /**
   * Called when the oldest packet was not acknowledged in time. The connection must be closed; the deadline is then
   * inactive.
   */
  onOverdue(oldest: T): void
}

/** If a timer is late by more than this fraction of its delay, the process was busy and read nothing in the meantime. */
const BUSY_SHARE = 1 / 4
const BUSY_MIN_MS = 100

/**
 * One deadline for the oldest of many unacknowledged packets on one connection. It needs a single timer, and per packet
 * only the time at which it was written. The full time of a packet starts when it becomes the oldest, so that a slow link
 * with many packets is not mistaken for a broker that does not acknowledge.
 */
export class AckDeadline<T extends Unacknowledged> {
  /** Time of the last acknowledgement of any packet. */
  acknowledgedMs = Number.NEGATIVE_INFINITY
  /** Whether the timer is running, in which case `sent` need not be called. */
  isArmed = false
  private oldest: T | undefined
  /** Time at which the oldest packet became the oldest. */
  private sinceMs = 0
  private timer: NodeJS.Timeout | undefined
  private dueMs = 0
  private busyUntilMs = Number.NEGATIVE_INFINITY
  private isStopped = false

  constructor(
    private readonly link: Pick<Link, 'isIntakePaused' | 'intakeResumedMs' | 'behindSinceMs'>,
    private readonly timeoutMs: number,
    private readonly watch: AckWatch<T>,
  ) {}

  /** A packet that the broker must acknowledge was written. */
  sent(): void {
    if (!this.isArmed && !this.isStopped) this.arm(this.timeoutMs / 2)
  }

  /** Whether half of the time of the oldest packet has passed. */
  get isLate(): boolean {
    const oldest = this.isStopped ? undefined : this.watch.oldest()
    return oldest !== undefined && this.waitedMs(oldest, performance.now()) >= this.timeoutMs / 2
  }

  /** The connection has ended. */
  stop(): void {
    this.isStopped = true
    clearTimeout(this.timer)
  }

  private arm(delayMs: number): void {
    this.isArmed = true
    this.dueMs = performance.now() + delayMs
    this.timer = setTimeout(this.check, delayMs)
  }

  private readonly check = (): void => {
    this.isArmed = false
    const nowMs = performance.now()
    const isBusy = nowMs - this.dueMs > Math.max(BUSY_MIN_MS, this.timeoutMs * BUSY_SHARE)
    if (isBusy) this.busyUntilMs = nowMs
    const oldest = this.watch.oldest()
    if (oldest === undefined) return
    const waitedMs = this.waitedMs(oldest, nowMs)
    const lateMs = this.timeoutMs / 2
    const overdueMs = this.timeoutMs + (this.watch.extraMs?.(oldest) ?? 0)
    if (waitedMs < overdueMs) return this.arm((waitedMs < lateMs ? lateMs : overdueMs) - waitedMs)
    this.stop()
    this.watch.onOverdue(oldest)
  }

  private waitedMs(oldest: T, nowMs: number): number {
    const { isIntakePaused, intakeResumedMs, behindSinceMs } = this.link
    const isBlind = isIntakePaused || behindSinceMs !== undefined
    const blindUntilMs = isBlind ? nowMs : Math.max(intakeResumedMs, this.busyUntilMs)
    // It became the oldest when the packet before it was acknowledged, which was at this time or earlier.
    if (oldest !== this.oldest) this.sinceMs = this.acknowledgedMs
    this.oldest = oldest
    this.sinceMs = Math.max(this.sinceMs, oldest.sentMs, blindUntilMs)
    return nowMs - this.sinceMs
  }
}

interface Sent<T> extends Unacknowledged {
  readonly content: T
}

const UNSPECIFIED_ERROR = 0x80

/** Packets of one type that wait for a response from the broker, with one deadline. Most connections send none of most types. */
export class AwaitedResponses<T> implements AckWatch<Sent<T>> {
  private packets: Map<number, Sent<T>> | undefined
  private link: Link | undefined
  private deadline: AckDeadline<Sent<T>> | undefined

  constructor(
    private readonly packetIds: PacketIds,
    private readonly rules: AckRules,
    private readonly describe: (content: T) => string,
  ) {}

  get size(): number {
    return this.packets?.size ?? 0
  }

  get contents(): T[] {
    return this.all.map(({ content }) => content)
  }

  /** The packets whose wait has exceeded half of the time limit. */
  get late(): T[] {
    if (this.deadline?.isLate !== true) return []
    const dueMs = performance.now() - this.rules.ackTimeoutMs / 2
    return this.all.filter(({ sentMs }) => sentMs <= dueMs).map(({ content }) => content)
  }

  connected(link: Link): void {
    this.link = link
    this.deadline = undefined
  }

  sent(messageId: number, content: T): void {
    this.packets ??= new Map()
    this.packets.set(messageId, { content, sentMs: performance.now() })
    if (this.link === undefined) return
    this.deadline ??= new AckDeadline(this.link, this.rules.ackTimeoutMs, this)
    this.deadline.sent()
  }

  /** A response arrived. @returns what the response is for; undefined if nothing waits for it */
  responded(messageId: number | undefined): T | undefined {
    const sent = messageId === undefined ? undefined : this.packets?.get(messageId)
    if (messageId === undefined || sent === undefined) return undefined
    this.packets?.delete(messageId)
    this.packetIds.release(messageId)
    if (this.deadline !== undefined) this.deadline.acknowledgedMs = performance.now()
    return sent.content
  }

  /** The connection has ended. @returns what was waiting */
  lost(): T[] {
    const { contents } = this
    this.deadline?.stop()
    this.deadline = undefined
    this.link = undefined
    for (const messageId of this.packets?.keys() ?? []) this.packetIds.release(messageId)
    this.packets = undefined
    return contents
  }

  oldest(): Sent<T> | undefined {
    return this.packets?.values().next().value
  }

  onOverdue({ content }: Sent<T>): void {
    const text = `the broker did not respond to ${this.describe(content)} within ${this.rules.ackTimeoutMs} ms`
    this.rules.onOverdue(new MqttError('TIMEOUT', text, { reasonCode: UNSPECIFIED_ERROR }))
  }

  private get all(): Sent<T>[] {
    return this.packets === undefined ? [] : [...this.packets.values()]
  }
}

type SentPublish = Pick<Publication, 'message' | 'isReleased'>

/** The acknowledgement that is due for a publish. */
export function dueFor({ message, isReleased }: SentPublish): string {
  if (message.qos === 1) return 'PUBACK'
  return isReleased ? 'PUBCOMP' : 'PUBREC'
}

const PROTOCOL_ERROR = 0x82

/** The broker sent another acknowledgement than the one that is due (MQTT 5, 4.3 and 4.13.1). */
export function unexpected({ cmd }: AcknowledgingPacket, publication: SentPublish): MqttError {
  const { topic, qos } = publication.message
  const text = `the broker sent ${cmd.toUpperCase()} instead of ${dueFor(publication)} for the publish to "${topic}" (QoS ${qos})`
  return new MqttError('CONNECTION_LOST', text, { reasonCode: PROTOCOL_ERROR })
}

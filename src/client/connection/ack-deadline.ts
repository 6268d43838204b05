import { MqttError } from '../../core/errors.js'
import type { AckRules, PacketIds } from '../../core/protocol/packets.js'
import type { Link } from './link.js'

/** A packet that waits for the broker's acknowledgement. */
export interface Unacknowledged {
  /** When it was written on this connection. */
  readonly sentMs: number
}

/** What an {@link AckDeadline} watches over. */
export interface AckWatch<T extends Unacknowledged> {
  /** Of the packets that wait for an acknowledgement on this connection, the one that was written first. */
  oldest(): T | undefined
  /** More time for a packet that the broker cannot have read yet, in milliseconds. */
  extraMs?(oldest: T): number
  /** The oldest was not acknowledged in time. The connection is to be given up; nothing is watched any more. */
  onOverdue(oldest: T): void
}

/** A timer that is later than this part of the time shows that this process was busy, and read nothing meanwhile. */
const BUSY_SHARE = 1 / 4
const BUSY_MIN_MS = 100

/**
 * One deadline over the oldest of many packets that wait for an acknowledgement on one connection: one timer,
 * whatever their number, and nothing to do for a packet but to keep the time when it was written. A packet has its
 * whole time from the moment when it becomes the oldest, so that a slow link with many packets on it is not taken for
 * a broker that acknowledges nothing.
 */
export class AckDeadline<T extends Unacknowledged> {
  /** When the last acknowledgement arrived, for whichever packet. */
  acknowledgedMs = Number.NEGATIVE_INFINITY
  /** Whether the timer runs: it needs no call of `sent` then. */
  isArmed = false
  private oldest: T | undefined
  /** Since when the oldest waits. */
  private sinceMs = 0
  private timer: NodeJS.Timeout | undefined
  private dueMs = 0
  private busyUntilMs = Number.NEGATIVE_INFINITY
  private isStopped = false

  constructor(
    private readonly link: Pick<Link, 'isIntakePaused' | 'intakeResumedMs'>,
    private readonly timeoutMs: number,
    private readonly watch: AckWatch<T>,
  ) {}

  /** A packet was written that the broker has to acknowledge. */
  sent(): void {
    if (!this.isArmed && !this.isStopped) this.arm(this.timeoutMs / 2)
  }

  /** Whether the oldest has waited for half of its time. */
  get isLate(): boolean {
    const oldest = this.isStopped ? undefined : this.watch.oldest()
    return oldest !== undefined && this.waitedMs(oldest, performance.now()) >= this.timeoutMs / 2
  }

  /** The connection is gone. */
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
    const { isIntakePaused, intakeResumedMs } = this.link
    const blindUntilMs = isIntakePaused ? nowMs : Math.max(intakeResumedMs, this.busyUntilMs)
    // It became the oldest when the one before it was acknowledged, which was not later than this.
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

/** Packets of one kind that wait for the broker's response, under one deadline. */
export class AwaitedResponses<T> {
  private readonly packets = new Map<number, Sent<T>>()
  private deadline: AckDeadline<Sent<T>> | undefined

  constructor(
    private readonly packetIds: PacketIds,
    private readonly rules: AckRules,
    private readonly describe: (content: T) => string,
  ) {}

  get size(): number {
    return this.packets.size
  }

  get contents(): T[] {
    return [...this.packets.values()].map(({ content }) => content)
  }

  /** What has waited for half of its time. */
  get late(): T[] {
    if (this.deadline?.isLate !== true) return []
    const dueMs = performance.now() - this.rules.ackTimeoutMs / 2
    return [...this.packets.values()].filter(({ sentMs }) => sentMs <= dueMs).map(({ content }) => content)
  }

  connected(link: Link): void {
    this.deadline = new AckDeadline<Sent<T>>(link, this.rules.ackTimeoutMs, {
      oldest: () => this.packets.values().next().value,
      onOverdue: ({ content }) => this.giveUp(content),
    })
  }

  sent(messageId: number, content: T): void {
    this.packets.set(messageId, { content, sentMs: performance.now() })
    this.deadline?.sent()
  }

  /** A response arrived. @returns what it is for; undefined when nothing waits for it */
  responded(messageId: number | undefined): T | undefined {
    const sent = messageId === undefined ? undefined : this.packets.get(messageId)
    if (messageId === undefined || sent === undefined) return undefined
    this.packets.delete(messageId)
    this.packetIds.release(messageId)
    if (this.deadline !== undefined) this.deadline.acknowledgedMs = performance.now()
    return sent.content
  }

  /** The connection is gone. @returns what has waited */
  lost(): T[] {
    const { contents } = this
    this.deadline?.stop()
    this.deadline = undefined
    for (const messageId of this.packets.keys()) this.packetIds.release(messageId)
    this.packets.clear()
    return contents
  }

  private giveUp(oldest: T): void {
    const text = `the broker did not respond to ${this.describe(oldest)} within ${this.rules.ackTimeoutMs} ms`
    this.rules.onOverdue(new MqttError('TIMEOUT', text, { reasonCode: UNSPECIFIED_ERROR }))
  }
}

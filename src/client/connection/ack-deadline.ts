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

import { OldestWait, type Unacknowledged } from '../../core/protocol/oldest-wait.js'
import type { Link } from './link.js'

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
 * whatever their number, and nothing to do for a packet but to keep the time when it was written.
 */
export class AckDeadline<T extends Unacknowledged> {
  private readonly wait = new OldestWait<T>()
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
    if (this.timer === undefined && !this.isStopped) this.arm(this.timeoutMs / 2)
  }

  /** An acknowledgement arrived. */
  answered(nowMs: number): void {
    this.wait.answered(nowMs)
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
    this.dueMs = performance.now() + delayMs
    this.timer = setTimeout(this.check, delayMs)
  }

  private readonly check = (): void => {
    this.timer = undefined
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
    return this.wait.waitedMs(oldest, blindUntilMs, nowMs)
  }
}

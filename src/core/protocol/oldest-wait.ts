import type { MqttError } from '../errors.js'

/** How long a response may take, and what follows. */
export interface AckRules {
  /** In milliseconds. */
  readonly ackTimeoutMs: number
  /** The connection is to be given up. */
  readonly onOverdue: (cause: MqttError) => void
}

/** A packet that waits for the broker's acknowledgement. */
export interface Unacknowledged {
  /** When it was written on this connection. */
  readonly sentMs: number
}

/**
 * How long the oldest of many unacknowledged packets has waited. A packet has its whole time from the moment when it
 * becomes the oldest, so that a slow link with many packets on it is not taken for a broker that says nothing.
 */
export class OldestWait<T extends Unacknowledged> {
  private oldest: T | undefined
  private sinceMs = 0
  private answeredMs = Number.NEGATIVE_INFINITY

  /** An acknowledgement arrived, for whichever packet. */
  answered(nowMs: number): void {
    this.answeredMs = nowMs
  }

  /** @param blindUntilMs nothing could be read before this, so an acknowledgement may have been there */
  waitedMs(oldest: T, blindUntilMs: number, nowMs: number): number {
    // It became the oldest when the one before it was acknowledged, which was not later than this.
    if (oldest !== this.oldest) this.sinceMs = this.answeredMs
    this.oldest = oldest
    this.sinceMs = Math.max(this.sinceMs, oldest.sentMs, blindUntilMs)
    return nowMs - this.sinceMs
  }
}

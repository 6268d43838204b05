import type { MqttError } from '../errors.js'

/** Time limit for a response of the broker. */
export interface AckRules {
  /** Time limit, in milliseconds. */
  readonly ackTimeoutMs: number
  /** Called when the time limit has expired. */
  readonly onOverdue: (cause: MqttError) => void
}

/** A packet without an acknowledgement. */
export interface Unacknowledged {
  /** Time at which it was written on this connection. */
  readonly sentMs: number
}

/**
 * Measures how long the oldest unacknowledged packet has waited. The time starts when a packet becomes the oldest, so that
 * a slow link with many packets does not look like an unresponsive broker.
 */
export class OldestWait<T extends Unacknowledged> {
  private oldest: T | undefined
  private sinceMs = 0
  private answeredMs = Number.NEGATIVE_INFINITY

  /** Records the arrival of any acknowledgement. */
  answered(nowMs: number): void {
    this.answeredMs = nowMs
  }

  /** @param blindUntilMs until then nothing could be read, so an acknowledgement may have arrived unnoticed */
  waitedMs(oldest: T, blindUntilMs: number, nowMs: number): number {
    // The packet became the oldest no later than the last acknowledgement.
    if (oldest !== this.oldest) this.sinceMs = this.answeredMs
    this.oldest = oldest
    this.sinceMs = Math.max(this.sinceMs, oldest.sentMs, blindUntilMs)
    return nowMs - this.sinceMs
  }
}

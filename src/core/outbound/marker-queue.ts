/** A PINGREQ among the bytes: its PINGRESP says that the broker has read everything in front of it. */
export interface Marker {
  /** Bytes written before it. */
  readonly at: number
  readonly sentMs: number
  /** What was confirmed when it was sent, and since when the link had been busy with what came behind that. */
  readonly confirmed: number
  readonly sinceMs: number
}

const FIRST_PAUSE_MS = 2_000
const LONGEST_PAUSE_MS = 4_000

/**
 * PINGREQs without a response. PINGRESP has no identifier, so a response belongs to the oldest PINGREQ. A lost
 * PINGRESP shifts that by one: what is confirmed is then less than what the broker has read, never more. Overdue
 * markers are repeated, with growing pauses. The repeats confirm nothing by themselves; their responses fill the
 * place of lost ones. When none is missing any more, and no response came for a while, matching starts anew.
 */
export class MarkerQueue {
  private readonly sent: Marker[] = []
  private repeats = 0
  private pauseMs = FIRST_PAUSE_MS
  private lastSentMs = Number.NEGATIVE_INFINITY
  private lastResponseMs = Number.NEGATIVE_INFINITY

  get oldest(): Marker | undefined {
    return this.sent[0]
  }

  get size(): number {
    return this.sent.length
  }

  /** Whether a response that comes may belong to a repeat. */
  isRepeating(nowMs: number, quietMs: number): boolean {
    if (this.repeats > 0 && this.sent.length === 0 && nowMs - this.lastResponseMs >= quietMs) this.repeats = 0
    return this.repeats > 0
  }

  /** When repeats are due, if the oldest marker is overdue. */
  get repeatDueMs(): number {
    return this.lastSentMs + this.pauseMs
  }

  push(marker: Marker): void {
    this.sent.push(marker)
    this.lastSentMs = marker.sentMs
  }

  /** As many PINGREQs again as have no response. @returns how many */
  repeat(nowMs: number): number {
    this.repeats += this.sent.length
    this.lastSentMs = nowMs
    this.pauseMs = Math.min(LONGEST_PAUSE_MS, this.pauseMs * 2)
    return this.sent.length
  }

  /** A response came. @returns the marker it belongs to */
  take(nowMs: number): Marker | undefined {
    this.lastResponseMs = nowMs
    this.pauseMs = FIRST_PAUSE_MS
    const marker = this.sent.shift()
    if (marker === undefined && this.repeats > 0) this.repeats -= 1
    return marker
  }
}

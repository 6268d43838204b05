import type { Marker } from './marker-queue.js'

/** Shorter samples say little. */
const SHORTEST_MS = 12.5
const LONGEST_MS = 100
/** How long the link must have been the limit before messages are dropped by its rate. */
const SURE_AFTER_MS = 300
/** One sample raises the rate by no more than this: responses that are read together pretend a higher one. */
const MOST_GROWTH = 2

interface Response {
  readonly at: number
  readonly sentMs: number
  readonly responseMs: number
}

/** What the link carries: the rate between the responses to two markers while our own bytes queue in front of it. */
export class DeliveredRate {
  bytesPerMs: number | undefined
  /** The last hold found the uplink to be the limit. */
  isUplinkFull = false
  /** When a pause in writing ended, in which the link may have been idle. */
  pausedMs = Number.NEGATIVE_INFINITY
  /** Since when every marker says that the link is the limit. */
  private limitSinceMs: number | undefined
  private start: Response | undefined
  private train: Response | undefined

  /** How long every marker has said that the link is the limit. */
  limitMs(nowMs: number): number {
    return this.limitSinceMs === undefined ? 0 : nowMs - this.limitSinceMs
  }

  /** Whether the uplink is the limit, by the finding of a hold and every marker for a while. */
  isSure(nowMs: number): boolean {
    return this.isUplinkFull && this.limitMs(nowMs) >= SURE_AFTER_MS
  }

  /** The link is not the limit now. */
  notLimited(): void {
    this.limitSinceMs = undefined
  }

  /** Nothing queues on the link: it carries more than this. */
  raise(sample: number): void {
    if (this.bytesPerMs !== undefined) this.bytesPerMs = Math.max(this.bytesPerMs, sample)
  }

  /** The link is the limit, so what it delivered is what it carries. @returns bytes per millisecond */
  fit(sample: number, nowMs: number): number {
    this.limitSinceMs ??= nowMs
    const known = this.bytesPerMs ?? sample
    const isSteady = sample > known / 2 && sample < known * 2
    this.bytesPerMs = isSteady ? (known + sample) / 2 : Math.min(sample, known * MOST_GROWTH)
    return this.bytesPerMs
  }

  /**
   * @param isQueued whether our bytes queued on the link up to this response
   * @returns bytes per millisecond, once that can be told
   */
  sample({ at, sentMs }: Marker, responseMs: number, isQueued: boolean): number | undefined {
    const { start } = this
    const response = { at, sentMs, responseMs }
    const isAcrossPause = start !== undefined && start.sentMs < this.pausedMs && sentMs >= this.pausedMs
    if (!isQueued) this.start = undefined
    else if (start === undefined || isAcrossPause) this.start = response
    if (!isQueued || start === undefined || isAcrossPause) return undefined
    const elapsedMs = responseMs - start.responseMs
    if (elapsedMs < SHORTEST_MS) return undefined
    if (elapsedMs > LONGEST_MS) this.start = response
    return (at - start.at) / elapsedMs
  }

  /**
   * The rate at which the link lets through what was written at once: the responses are further apart than the markers.
   * @returns bytes per millisecond, once that can be told
   */
  trainRate({ at, sentMs }: Marker, responseMs: number): number | undefined {
    const { train } = this
    const elapsedMs = train === undefined ? 0 : responseMs - train.responseMs
    if (train === undefined || sentMs - train.sentMs > elapsedMs / 2) this.train = { at, sentMs, responseMs }
    else if (elapsedMs >= SHORTEST_MS) return (at - train.at) / elapsedMs
    return undefined
  }
}

import type { Marker } from './marker-queue.js'

/** Shorter samples say little. */
const SHORTEST_MS = 12.5
const LONGEST_MS = 100

interface Response {
  readonly at: number
  readonly sentMs: number
  readonly responseMs: number
}

/** The rate between the responses to two markers, if our bytes queued on the link all the time in between. */
export class BusyRate {
  private start: Response | undefined
  /** When a pause in writing ended, in which the link may have been idle. */
  pausedMs = Number.NEGATIVE_INFINITY

  /** @returns bytes per millisecond, once that can be told */
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
}

import type { Marker } from './marker-queue.js'

/** Longer than our own queue, which is to be gone at the end. */
const HOLD_MS = 100

export interface Finding {
  /** Nothing of ours was in front of the second probe: its age is the round trip. */
  readonly isDrained: boolean
  /** The uplink was idle for most of the hold: what makes responses late is not our own queue. */
  readonly isUplinkFree: boolean
  readonly ageMs: number
}

/** A pause in writing with a probe at its start and at its end. What is to be written waits in the buffer. */
export class LinkHold {
  readonly endMs: number
  private first: Marker | undefined
  private second: Marker | undefined
  private firstResponseMs = 0

  constructor(nowMs: number) {
    this.endMs = nowMs + HOLD_MS
  }

  wantsProbe(nowMs: number): boolean {
    return this.first === undefined || (this.second === undefined && nowMs >= this.endMs)
  }

  /** Nothing may be written until the second probe is out. */
  get isPausing(): boolean {
    return this.second === undefined
  }

  /** @returns whether the marker is the second probe, which ends the pause */
  sent(marker: Marker): boolean {
    if (this.first === undefined) this.first = marker
    else if (this.second === undefined && marker.sentMs >= this.endMs) this.second = marker
    return marker === this.second
  }

  /** @returns what the hold has found, once the second probe has its response */
  responded(marker: Marker, nowMs: number): Finding | undefined {
    const { first, second } = this
    if (marker === first) this.firstResponseMs = nowMs
    if (first === undefined || second === undefined || marker !== second) return undefined
    const pausedMs = second.sentMs - first.sentMs
    // Our own queue drains during the hold and brings the responses together.
    const apartMs = nowMs - this.firstResponseMs
    return {
      isDrained: apartMs > pausedMs / 8,
      isUplinkFree: apartMs >= pausedMs / 2,
      ageMs: nowMs - second.sentMs,
    }
  }
}

import type { Marker } from './marker-queue.js'

/** Time that our own bytes may queue on the way. */
export const QUEUE_MS = 100
/** How long a round trip is believed while the link is the limit. */
const VALID_MS = 10_000
/** After a hold that did not show the round trip. */
const LOOK_AGAIN_MS = 2_000
/** How long ages that are not ours are followed before the link is held again. */
const FOLLOW_MS = 3_000

/**
 * The round trip without our own queue: the smallest age of a marker. A longer one is believed where it cannot be our
 * own queue: of a marker with nothing of ours in front, or for some seconds after a hold found the uplink free.
 */
export class RoundTrip {
  ms: number | undefined
  /** How long what is on its way may take: one round trip, and our own queue. */
  wireMs = QUEUE_MS
  private measuredMs = 0
  /** What was in front of the marker that measured it first. */
  private firstBytes = 0
  /** The round trip before what is not ours made it longer. */
  private ownMs: number | undefined
  private followUntilMs = Number.NEGATIVE_INFINITY

  /** What makes responses late is not ours: something else queues on the way. */
  get isLengthened(): boolean {
    return this.ownMs !== undefined
  }

  /** Whether ages are followed, since a hold found that they are not ours. */
  isFollowing(nowMs: number): boolean {
    return nowMs < this.followUntilMs
  }

  isOld(nowMs: number): boolean {
    return nowMs - this.measuredMs > VALID_MS
  }

  /** A response says how old its marker is. */
  responded(marker: Marker, ageMs: number, isLimited: boolean, nowMs: number): void {
    const known = this.ms
    const isAlone = marker.at === marker.confirmed
    if (isAlone || known === undefined) this.measuredMs = nowMs
    if (isAlone || ageMs < (known ?? 0)) this.firstBytes = 0
    if (known === undefined) this.firstBytes = marker.at - marker.confirmed
    if (known === undefined || isAlone || ageMs < known || (this.isFollowing(nowMs) && !isLimited))
      this.set(ageMs)
  }

  /** Responses come as early as before it became longer. */
  forgetLengthened(ageMs: number): void {
    if (ageMs < (this.ownMs ?? 0) + QUEUE_MS / 2) this.ownMs = undefined
  }

  /** A hold with nothing of ours left at its end showed it. */
  measured(ageMs: number, nowMs: number): void {
    this.set(ageMs)
    this.firstBytes = 0
    this.measuredMs = nowMs
  }

  /** A hold did not show it, because more than its time was our own queue: it is shorter than it was taken for. */
  notMeasured(bytesPerMs: number | undefined, nowMs: number): void {
    const known = this.ms ?? 0
    if (this.ownMs !== undefined) this.set((this.ownMs + known) / 2)
    else if (bytesPerMs !== undefined)
      this.set(Math.max(0, known - Math.max(this.firstBytes / bytesPerMs, Math.min(known, QUEUE_MS) / 4)))
    this.firstBytes = 0
    this.measuredMs = nowMs - VALID_MS + LOOK_AGAIN_MS
  }

  /** The uplink is free. @param before the round trip before responses came late */
  lengthened(before: number, nowMs: number): void {
    this.ownMs ??= before
    this.followUntilMs = nowMs + FOLLOW_MS
  }

  private set(ms: number): void {
    this.ms = ms
    this.wireMs = ms + QUEUE_MS
  }
}

import type { Marker } from './pings.js'

/** Time that our own bytes may wait in the queue of the link, in milliseconds. */
export const QUEUE_MS = 100
/** Time for which a round trip remains valid while the link is the limit. */
const VALID_MS = 10_000
/**
 * Increase of the round trip that is accepted without inbound traffic as an explanation, because others may use the same
 * uplink.
 */
const UNEXPLAINED_MS = 200
/** Bytes that must arrive while a response is late. PUBACKs alone are a smaller part of what is sent. */
const INBOUND_BYTES = 1_024
const INBOUND_PART = 1 / 8
/** Used after a hold that did not show the round trip. */
const LOOK_AGAIN_MS = 2_000
/** Time for which delays caused by other traffic are accepted before the link is held again. */
const FOLLOW_MS = 3_000

/**
 * The round trip without our own queue: the smallest age of a marker. A longer value is accepted if our own queue cannot be
 * the cause: for a marker with none of our bytes before it, or for some seconds after a hold found that the uplink was
 * free.
 */
export class RoundTrip {
  ms: number | undefined
  /** Maximum time for bytes in transit: one round trip and our own queue. */
  wireMs = QUEUE_MS
  /** The shortest round trip on this connection. */
  private shortestMs = Number.POSITIVE_INFINITY
  isExplained = false
  private measuredMs = 0
  /** Number of bytes before the marker that measured it first. */
  private firstBytes = 0
  /** The round trip before other traffic made it longer. */
  private ownMs: number | undefined
  private followUntilMs = Number.NEGATIVE_INFINITY

  /** Responses are late because of other traffic in a queue on the path. */
  get isLengthened(): boolean {
    return this.ownMs !== undefined
  }

  /** No inbound traffic explains the delay, so others may be filling the same uplink. */
  get isShared(): boolean {
    return this.isLengthened && !this.isExplained
  }

  /** Whether the round trip follows the ages, because a hold found that our bytes are not the cause. */
  isFollowing(nowMs: number): boolean {
    return nowMs < this.followUntilMs
  }

  /** A hold started. The cause of longer round trips is assumed to persist until the hold has a result. */
  held(): void {
    if (this.isLengthened) this.followUntilMs = Number.POSITIVE_INFINITY
  }

  isOld(nowMs: number): boolean {
    return nowMs - this.measuredMs > VALID_MS
  }

  /**
   * PUBACK shows the age of its PUBLISH. The broker may respond late, so this only proves that the round trip is not
   * longer.
   */
  acknowledged(ageMs: number): void {
    this.shortestMs = Math.min(this.shortestMs, ageMs)
    this.set(ageMs)
  }

  /** A response shows the age of its marker. */
  responded(marker: Marker, ageMs: number, isLimited: boolean, nowMs: number): void {
    const known = this.ms
    this.shortestMs = Math.min(this.shortestMs, ageMs)
    const isAlone = marker.at === marker.confirmed
    if (isAlone || known === undefined) this.measuredMs = nowMs
    if (isAlone || ageMs < (known ?? 0)) this.firstBytes = 0
    if (known === undefined) this.firstBytes = marker.at - marker.confirmed
    if (known === undefined || isAlone || ageMs < known || (this.isFollowing(nowMs) && !isLimited))
      this.set(ageMs)
  }

  /**
   * The part of the age that is not caused by our own bytes: bytes in transit for longer than this wait in front of the
   * link.
   */
  carryMs(bytesPerMs: number): number {
    const known = this.ms ?? 0
    return Math.max(
      0,
      (this.isExplained ? known : Math.min(known, this.shortestMs)) - this.firstBytes / bytesPerMs,
    )
  }

  /** The part of the age of a marker that is not explained by the round trip, our own queue or inbound traffic. */
  crowdedMs(ageMs: number): number {
    return this.isExplained ? 0 : Math.max(0, ageMs - this.shortestMs - QUEUE_MS / 2)
  }

  /** Whether inbound traffic explains the age of a marker. */
  explains({ at, confirmed, received }: Marker, nowReceived: number): boolean {
    return nowReceived - received >= Math.max(INBOUND_BYTES, (at - confirmed) * INBOUND_PART)
  }

  /** Responses arrive as early as before the round trip became longer. */
  forgetLengthened(ageMs: number): void {
    if (ageMs < (this.ownMs ?? 0) + QUEUE_MS / 2) this.ownMs = undefined
  }

  /** A hold whose end found none of our bytes in the queue measured the round trip. */
  measured(ageMs: number, nowMs: number): void {
    this.followUntilMs = nowMs
    this.set(ageMs)
    this.firstBytes = 0
    this.measuredMs = nowMs
  }

  /** A hold did not measure it, because our own queue took longer than the hold: the round trip is shorter than assumed. */
  notMeasured(bytesPerMs: number | undefined, nowMs: number): void {
    this.followUntilMs = nowMs
    const known = this.ms ?? 0
    if (this.ownMs !== undefined) this.set(Math.max((this.ownMs + known) / 2, known - QUEUE_MS / 2))
    else if (bytesPerMs !== undefined)
      this.set(Math.max(0, known - Math.max(this.firstBytes / bytesPerMs, Math.min(known, QUEUE_MS) / 4)))
    this.firstBytes = 0
    this.measuredMs = nowMs - VALID_MS + LOOK_AGAIN_MS
  }

  /** The uplink is free. @param before the round trip before responses were late */
  lengthened(before: number, nowMs: number): void {
    this.ownMs ??= before
    this.followUntilMs = nowMs + FOLLOW_MS
  }

  private set(ms: number): void {
    this.ms = ms
    this.wireMs = (this.isExplained ? ms : Math.min(ms, this.shortestMs + UNEXPLAINED_MS)) + QUEUE_MS
  }
}

/** Shorter samples are not reliable. */
const SHORTEST_MS = 12.5
/** Responses may be read this late. */
const TURN_MS = 1
const LONGEST_MS = 100
/** Time for which the link must have been the limit before messages are dropped by its rate. */
const SURE_AFTER_MS = 300
/**
 * Maximum increase of the rate by one sample, because responses that are read together indicate a rate that is too high.
 */
const MOST_GROWTH = 2

interface Delivery {
  readonly at: number
  readonly sentMs: number
  readonly responseMs: number
}

/** The rate of the link: measured between the responses to two markers while our own bytes wait in its queue. */
export class DeliveredRate {
  bytesPerMs: number | undefined
  /** The last hold found that the uplink was the limit. */
  isUplinkFull = false
  /** Time at which a pause in writing ended, in which the link may have been idle. */
  pausedMs = Number.NEGATIVE_INFINITY
  /** Time since which every marker has shown that the link is the limit. */
  private limitSinceMs: number | undefined
  private start: Delivery | undefined
  private train: Delivery | undefined

  /** Time for which every marker has shown that the link is the limit. */
  limitMs(nowMs: number): number {
    return this.limitSinceMs === undefined ? 0 : nowMs - this.limitSinceMs
  }

  /** Whether the uplink is the limit, according to a hold and to every marker for a while. */
  isSure(nowMs: number): boolean {
    return this.isUplinkFull && this.limitMs(nowMs) >= SURE_AFTER_MS
  }

  /** The link is not the limit now. */
  notLimited(): void {
    this.limitSinceMs = undefined
  }

  /** Nothing waits in the queue of the link, so its rate is higher than this. */
  raise(sample: number): void {
    if (this.bytesPerMs !== undefined) this.bytesPerMs = Math.max(this.bytesPerMs, sample)
  }

  /** The link is the limit, so the delivered rate is its rate. @returns bytes per millisecond */
  fit(sample: number, nowMs: number): number {
    this.limitSinceMs ??= nowMs
    const known = this.bytesPerMs ?? sample
    const isSteady = sample > known / 2 && sample < known * 2
    this.bytesPerMs = isSteady ? (known + sample) / 2 : Math.min(sample, known * MOST_GROWTH)
    return this.bytesPerMs
  }

  /**
   * @param isQueued whether our bytes waited in the queue of the link up to this response
   * @returns bytes per millisecond, once the rate is known
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
    // Between the probes of a hold nothing was written.
    return at === start.at ? undefined : (at - start.at) / elapsedMs
  }

  /**
   * Returns the rate at which the link delivers a burst: the responses are further apart than the markers.
   * @returns bytes per millisecond, once the rate is known
   */
  trainRate({ at, sentMs }: Marker, responseMs: number): number | undefined {
    const { train } = this
    const elapsedMs = train === undefined ? 0 : Math.max(responseMs - train.responseMs + TURN_MS, SHORTEST_MS)
    if (train !== undefined && sentMs - train.sentMs <= elapsedMs / 2) return (at - train.at) / elapsedMs
    this.train = { at, sentMs, responseMs }
    return undefined
  }
}

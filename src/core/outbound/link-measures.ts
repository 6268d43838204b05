import type { Marker } from './pings.js'

/** Time that our own bytes may queue on the way. */
export const QUEUE_MS = 100
/** How long a round trip is believed while the link is the limit. */
const VALID_MS = 10_000
/** What round trips may become longer, if nothing comes in that explains it: others may fill the same uplink. */
const UNEXPLAINED_MS = 200
/** So much has to come in while a response is late. PUBACKs alone are a smaller part of what is sent. */
const INBOUND_BYTES = 1_024
const INBOUND_PART = 1 / 8
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
  /** The shortest that was seen on this connection. */
  private shortestMs = Number.POSITIVE_INFINITY
  isExplained = false
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

  /** Nothing that comes in explains it, so it may be the uplink that others fill as well. */
  get isShared(): boolean {
    return this.isLengthened && !this.isExplained
  }

  /** Whether ages are followed, since a hold found that they are not ours. */
  isFollowing(nowMs: number): boolean {
    return nowMs < this.followUntilMs
  }

  /** A hold began: what made round trips longer is taken to go on until it has found something else. */
  held(): void {
    if (this.isLengthened) this.followUntilMs = Number.POSITIVE_INFINITY
  }

  isOld(nowMs: number): boolean {
    return nowMs - this.measuredMs > VALID_MS
  }

  /** PUBACK says how old its PUBLISH is. The broker may take its time, so it only shows that a round trip is no longer. */
  acknowledged(ageMs: number): void {
    this.shortestMs = Math.min(this.shortestMs, ageMs)
    this.set(ageMs)
  }

  /** A response says how old its marker is. */
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

  /** The part of it that our own bytes do not wait: what is on its way longer queues in front of the link. */
  carryMs(bytesPerMs: number): number {
    const known = this.ms ?? 0
    return Math.max(
      0,
      (this.isExplained ? known : Math.min(known, this.shortestMs)) - this.firstBytes / bytesPerMs,
    )
  }

  /** The part of the age of a marker that is neither the round trip nor our own queue, and that nothing explains. */
  crowdedMs(ageMs: number): number {
    return this.isExplained ? 0 : Math.max(0, ageMs - this.shortestMs - QUEUE_MS / 2)
  }

  /** Whether inbound traffic explains the age of a marker. */
  explains({ at, confirmed, received }: Marker, nowReceived: number): boolean {
    return nowReceived - received >= Math.max(INBOUND_BYTES, (at - confirmed) * INBOUND_PART)
  }

  /** Responses come as early as before it became longer. */
  forgetLengthened(ageMs: number): void {
    if (ageMs < (this.ownMs ?? 0) + QUEUE_MS / 2) this.ownMs = undefined
  }

  /** A hold with nothing of ours left at its end showed it. */
  measured(ageMs: number, nowMs: number): void {
    this.followUntilMs = nowMs
    this.set(ageMs)
    this.firstBytes = 0
    this.measuredMs = nowMs
  }

  /** A hold did not show it, because more than its time was our own queue: it is shorter than it was taken for. */
  notMeasured(bytesPerMs: number | undefined, nowMs: number): void {
    this.followUntilMs = nowMs
    const known = this.ms ?? 0
    if (this.ownMs !== undefined) this.set(Math.max((this.ownMs + known) / 2, known - QUEUE_MS / 2))
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
    this.wireMs = (this.isExplained ? ms : Math.min(ms, this.shortestMs + UNEXPLAINED_MS)) + QUEUE_MS
  }
}

/** Shorter samples say little. */
const SHORTEST_MS = 12.5
/** Responses are read so late. */
const TURN_MS = 1
const LONGEST_MS = 100
/** How long the link must have been the limit before messages are dropped by its rate. */
const SURE_AFTER_MS = 300
/** One sample raises the rate by no more than this: responses that are read together pretend a higher one. */
const MOST_GROWTH = 2

interface Delivery {
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
  private start: Delivery | undefined
  private train: Delivery | undefined

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
    // Between the probes of a hold nothing was written.
    return at === start.at ? undefined : (at - start.at) / elapsedMs
  }

  /**
   * The rate at which the link lets through what was written at once: the responses are further apart than the markers.
   * @returns bytes per millisecond, once that can be told
   */
  trainRate({ at, sentMs }: Marker, responseMs: number): number | undefined {
    const { train } = this
    const elapsedMs = train === undefined ? 0 : Math.max(responseMs - train.responseMs + TURN_MS, SHORTEST_MS)
    if (train !== undefined && sentMs - train.sentMs <= elapsedMs / 2) return (at - train.at) / elapsedMs
    this.train = { at, sentMs, responseMs }
    return undefined
  }
}

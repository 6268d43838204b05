import { BusyRate } from './busy-rate.js'
import { type Finding, LinkHold } from './link-hold.js'
import { type Marker, MarkerQueue } from './marker-queue.js'

/** Time that our own bytes may queue on the way. */
const QUEUE_MS = 100
/** The first window: a fifth of a second of a link of 10 KB/s. */
const START_BYTES = 2_048
const FLOOR_BYTES = 512
const CEILING_BYTES = 64 * 1_048_576
/** A marker so often while the link is the limit, so that the window moves on in small steps. */
const MARKER_MS = 12.5
/** So little goes without a marker while the window is not the limit. */
const SPARSE_BYTES = 1_024
/** How long the window counts as the limit after it was shut. */
const PRESSED_MS = 1_000
/** A response that is later than expected by more than this has to be explained. */
const LATE_MS = 100
/** How long the first response of a connection may take. */
const LONGEST_ROUND_TRIP_MS = 2_000
/** What may be written on a link that was never the limit, until a late response is explained. */
const DOUBT_BYTES = 6_144
/** How long a round trip is believed while the link is the limit. */
const ROUND_TRIP_VALID_MS = 10_000
/** How long ages that are not ours are followed before the link is held again. */
const FOLLOW_MS = 3_000
/** After a hold that did not show the round trip. */
const LOOK_AGAIN_MS = 2_000
const HOLD_PAUSE_MS = 1_000
/** How long the link must have been the limit before it is asked whether it is, and before messages are dropped by its rate. */
const ASK_AFTER_MS = 100
const SURE_AFTER_MS = 300
/** A window that shrank to this part of what it was may have shrunk because round trips are longer now. */
const SUSPICIOUS_SHRINK = 1 / 2
/** A window so many times as large as the rate had it shows that the rate is another one now. */
const OUTGROWN = 2
const SHORTEST_INTERVAL_MS = 0.05

interface Size {
  readonly bytes: number
  readonly bytesPerMs: number | undefined
  readonly wireMs: number
  readonly roundTripMs: number
}

/**
 * How many bytes may be on their way: what the link carries in one round trip and 100 ms. It knows nothing of the
 * link but when the responses to its markers come. What cannot be written now waits where it can still be dropped.
 *
 * A late response has one of two reasons: our own queue in front of the uplink, or something else (inbound traffic
 * in front of the response, a busy broker, longer round trips). A hold tells them apart: nothing is written for
 * 100 ms, with a probe at the start and at the end. If the two responses come together, our own queue has drained
 * meanwhile: the uplink is the limit, and the window follows its rate. If they come 100 ms apart, as they were sent,
 * the uplink is free: the age is the round trip of now, and the window is as much larger.
 */
export class LinkWindow {
  private readonly markers = new MarkerQueue()
  private readonly busyRate = new BusyRate()
  private written = 0
  private marked = 0
  private confirmed = 0
  /** Since when the link is busy with what is unconfirmed. */
  private sinceMs = 0
  private lastMarkerMs = Number.NEGATIVE_INFINITY
  private lastBlockedMs = Number.NEGATIVE_INFINITY
  /** The window has doubled for what was written before this. */
  private grownAt = 0
  private bytes = START_BYTES
  private bytesPerMs: number | undefined
  private roundTripMs: number | undefined
  private measuredMs = 0
  /** What was in front of the marker that measured it first. */
  private firstBytes = 0
  /** The round trip before what is not ours made it longer. */
  private ownRoundTripMs: number | undefined
  private lastAgeMs = 0
  private followUntilMs = Number.NEGATIVE_INFINITY
  private hold: LinkHold | undefined
  private lastHoldMs = Number.NEGATIVE_INFINITY
  /** How it was before responses came late. */
  private before: Size | undefined
  /** Bytes written when a response became overdue. */
  private doubtedAt: number | undefined
  /** The largest window since the last hold. */
  private largest = START_BYTES
  /** The last hold found the uplink to be the limit. */
  private isUplinkFull = false
  /** Since when every marker says that the link is the limit. */
  private fitSinceMs: number | undefined

  get unconfirmed(): number {
    return this.written - this.confirmed
  }

  /** Bytes that the broker has read, as far as a marker asks for them: few are sent without one. */
  get read(): number {
    return this.markers.size === 0 ? this.written : this.confirmed
  }

  get size(): number {
    return this.bytes
  }

  /** What the link carries, in bytes per second, once it was the limit. */
  get bytesPerSecond(): number | undefined {
    return this.bytesPerMs === undefined ? undefined : this.bytesPerMs * 1_000
  }

  /** How long until so many bytes more are read by the broker, once that can be told for sure. */
  delayMs(bytes: number, nowMs: number): number | undefined {
    if (this.bytesPerMs === undefined || !this.isSlow(nowMs)) return undefined
    return (this.unconfirmed + bytes) / this.bytesPerMs
  }

  /** Whether the uplink is the limit, by the finding of a hold and every marker for a while. */
  isSlow(nowMs: number): boolean {
    const { fitSinceMs } = this
    return this.isUplinkFull && fitSinceMs !== undefined && nowMs - fitSinceMs >= SURE_AFTER_MS
  }

  /**
   * Whether something may be written now.
   * @param behindMs how long this process has been behind with reading: responses may wait unread for as long
   */
  isOpen(nowMs: number, behindMs = 0): boolean {
    if (this.hold?.isPausing) return false
    if (this.unconfirmed === 0 || this.unconfirmed < this.allowance(nowMs, behindMs)) return true
    this.lastBlockedMs = nowMs
    return false
  }

  wrote(bytes: number, nowMs: number): void {
    if (this.unconfirmed === 0) this.sinceMs = nowMs
    this.written += bytes
  }

  /** Whether a marker is due for what was written; cheap, for every message. */
  wantsMarker(nowMs: number): boolean {
    const unmarked = this.written - this.marked
    if (unmarked < (this.bytes * MARKER_MS) / this.wireMs()) return false
    return this.mayMark(nowMs)
  }

  /** Whether a marker is due now, also by time or as a probe of a hold. */
  isMarkerDue(nowMs: number): boolean {
    const { hold } = this
    if (hold?.isPausing) return hold.wantsProbe(nowMs)
    if (this.unconfirmed >= this.bytes && this.markers.size === 0) return !this.isRepeating(nowMs)
    return nowMs - this.lastMarkerMs >= MARKER_MS && this.mayMark(nowMs)
  }

  /** How many PINGREQs are to be sent again, because responses may be lost. No call of `mark` belongs to these. */
  takeRepeats(nowMs: number): number {
    if (!this.isOverdue(nowMs) || nowMs < this.repeatDueMs) return 0
    return this.markers.repeat(nowMs)
  }

  /** When time alone makes something due, or undefined. */
  dueMs(nowMs: number): number | undefined {
    const { hold, markers } = this
    if (hold?.isPausing) return hold.endMs
    if (this.unconfirmed === 0) return undefined
    const { oldest } = markers
    if (oldest === undefined && this.isRepeating(nowMs)) return nowMs + this.quietMs()
    const markerMs = this.mayMark(nowMs) ? this.lastMarkerMs + MARKER_MS : Infinity
    const overdueMs = oldest === undefined ? Infinity : oldest.sentMs + this.overdueMs() + 1
    const dueMs = Math.min(markerMs, nowMs < overdueMs ? overdueMs : this.repeatDueMs)
    return dueMs === Infinity ? undefined : dueMs
  }

  /** A PINGREQ was sent behind everything so far. */
  mark(nowMs: number): void {
    const { written, confirmed } = this
    const sinceMs = written === confirmed ? nowMs : this.sinceMs
    const marker: Marker = { at: written, sentMs: nowMs, confirmed, sinceMs }
    this.markers.push(marker)
    if (this.hold?.sent(marker)) this.busyRate.pausedMs = nowMs
    this.marked = written
    this.lastMarkerMs = nowMs
  }

  /** Time passes without a response. Not to be called while responses may wait unread. */
  look(nowMs: number): void {
    if (nowMs < this.followUntilMs || !this.isOverdue(nowMs)) return
    this.doubt(nowMs)
    if (this.mayHold(nowMs)) this.startHold(nowMs)
  }

  /** The broker has acknowledged a packet, and read everything before it: a marker for free while none is on its way. */
  acknowledged(at: number, nowMs: number): void {
    if (this.markers.size > 0 || at <= this.confirmed) return
    this.confirmed = at
    this.marked = Math.max(this.marked, at)
    this.sinceMs = nowMs
  }

  /**
   * A PINGRESP came.
   * @param blindUntilMs until then responses may have waited unread here
   */
  confirm(nowMs: number, blindUntilMs = Number.NEGATIVE_INFINITY): void {
    const isRepeated = this.isRepeating(nowMs)
    const marker = this.markers.take(nowMs)
    if (marker === undefined) return
    const ageMs = nowMs - marker.sentMs
    this.confirmed = Math.max(this.confirmed, marker.at)
    this.sinceMs = nowMs
    if (marker.sentMs <= blindUntilMs || isRepeated) {
      this.hold = undefined
      return this.settleDoubt()
    }
    this.lastAgeMs = ageMs
    const isLimited = this.lastBlockedMs >= marker.sentMs
    this.followRoundTrip(marker, ageMs, isLimited, nowMs)
    const finding = this.hold?.responded(marker, nowMs)
    if (finding !== undefined) this.judge(finding, isLimited, nowMs)
    else this.adapt(marker, ageMs, isLimited, nowMs)
    if (ageMs > this.wireMs() + LATE_MS) this.doubt(nowMs)
    else if (this.hold === undefined) this.doubtedAt = undefined
    if (this.wantsHold(ageMs, isLimited, nowMs)) this.startHold(nowMs)
  }

  private adapt(marker: Marker, ageMs: number, isLimited: boolean, nowMs: number): void {
    const roundTripMs = this.roundTripMs ?? 0
    const busySample = this.busyRate.sample(marker, nowMs, ageMs > roundTripMs + QUEUE_MS / 4)
    const bytes = marker.at - marker.confirmed
    if (bytes <= 0) return
    const sample = bytes / Math.max(nowMs - marker.sinceMs, SHORTEST_INTERVAL_MS)
    if (ageMs < roundTripMs + QUEUE_MS / 2) this.grow(marker, sample, isLimited)
    else if (isLimited && this.mayFit(nowMs)) {
      const known = busySample ?? (ageMs > this.wireMs() + LATE_MS ? sample : undefined)
      if (known !== undefined) this.fit(known, nowMs)
    }
    this.largest = Math.max(this.largest, this.bytes)
  }

  /** What is written around a hold says less of the rate, and a free uplink nothing. */
  private mayFit(nowMs: number): boolean {
    return nowMs >= this.followUntilMs && (this.hold === undefined || this.doubtedAt !== undefined)
  }

  /** Nothing queues on the link: it carries more than this. */
  private grow(marker: Marker, sample: number, isLimited: boolean): void {
    if (this.bytesPerMs !== undefined) this.bytesPerMs = Math.max(this.bytesPerMs, sample)
    // A small window on a slow link has moments without a queue, too.
    const isOutgrown = this.bytes > OUTGROWN * (this.bytesPerMs ?? 0) * this.wireMs()
    if (!isLimited || isOutgrown) this.fitSinceMs = undefined
    if (this.hold === undefined) this.settleDoubt()
    if (!isLimited || marker.at <= this.grownAt) return
    this.bytes = Math.min(CEILING_BYTES, this.bytes * 2)
    this.grownAt = this.written
  }

  /** The link is the limit, so what it delivered is what it carries. */
  private fit(sample: number, nowMs: number): void {
    if (!this.isUplinkFull) this.before ??= this.sizeNow()
    this.fitSinceMs ??= nowMs
    const known = this.bytesPerMs ?? sample
    const isSteady = sample > known / 2 && sample < known * 2
    // Responses that are read together pretend a higher rate.
    this.bytesPerMs = isSteady ? (known + sample) / 2 : Math.min(sample, known * OUTGROWN)
    const target = this.bytesPerMs * this.wireMs()
    this.bytes = Math.max(FLOOR_BYTES, this.bytes / 2, Math.min(target, this.bytes * 2, CEILING_BYTES))
    this.grownAt = this.written
  }

  /** The smallest age is the round trip; a longer one is believed where it cannot be our own queue. */
  private followRoundTrip(marker: Marker, ageMs: number, isLimited: boolean, nowMs: number): void {
    const known = this.roundTripMs
    const isAlone = marker.at === marker.confirmed
    if (isAlone || known === undefined) this.measuredMs = nowMs
    if (isAlone || ageMs < (known ?? 0)) this.firstBytes = 0
    if (known === undefined) {
      this.roundTripMs = ageMs
      this.firstBytes = marker.at - marker.confirmed
    } else if (ageMs < known || isAlone) this.setRoundTrip(ageMs)
    else if (nowMs < this.followUntilMs && !isLimited) this.setRoundTrip(ageMs)
    if (this.hold === undefined && ageMs < (this.ownRoundTripMs ?? 0) + QUEUE_MS / 2)
      this.ownRoundTripMs = undefined
  }

  /** The window is what the link carries in this time, so it goes along. */
  private setRoundTrip(roundTripMs: number): void {
    const wireMs = this.wireMs()
    this.roundTripMs = roundTripMs
    const floor = this.bytesPerMs === undefined ? START_BYTES : FLOOR_BYTES
    this.bytes = Math.min(CEILING_BYTES, Math.max(floor, (this.bytes * this.wireMs()) / wireMs))
  }

  private wantsHold(ageMs: number, isLimited: boolean, nowMs: number): boolean {
    if (!this.mayHold(nowMs)) return false
    const isLate = ageMs > this.wireMs() + LATE_MS
    if (nowMs < this.followUntilMs) return isLimited && isLate
    if (this.ownRoundTripMs !== undefined) return true
    if (isLimited && this.bytes < this.largest * SUSPICIOUS_SHRINK) return true
    if (isLimited && nowMs - this.measuredMs > ROUND_TRIP_VALID_MS) return true
    if (this.isUplinkFull && isLimited) return false
    const isUnproven = isLimited && this.fitSinceMs !== undefined && nowMs - this.fitSinceMs >= ASK_AFTER_MS
    return isUnproven || isLate
  }

  private mayHold(nowMs: number): boolean {
    if (this.hold !== undefined || this.unconfirmed === 0 || this.isRepeating(nowMs)) return false
    return nowMs < this.followUntilMs || nowMs - this.lastHoldMs >= HOLD_PAUSE_MS
  }

  private startHold(nowMs: number): void {
    this.hold = new LinkHold(nowMs)
    this.lastHoldMs = nowMs
    this.before ??= this.sizeNow()
  }

  private judge({ isDrained, isUplinkFree, ageMs }: Finding, isLimited: boolean, nowMs: number): void {
    const before = this.before ?? this.sizeNow()
    this.hold = undefined
    this.lastHoldMs = nowMs
    this.isUplinkFull = !isUplinkFree
    if (isDrained) this.setRoundTrip(ageMs)
    // The first responses of a new flight come early on any link.
    this.grownAt = this.written + this.bytes
    if (isUplinkFree) this.restore(before, isLimited, nowMs)
    // Part of what is taken for the round trip may be our own queue: halve that, and look again.
    else if (!isDrained && this.ownRoundTripMs !== undefined)
      this.setRoundTrip((this.ownRoundTripMs + (this.roundTripMs ?? 0)) / 2)
    else if (!isDrained && this.bytesPerMs !== undefined) this.lowerRoundTrip(this.bytesPerMs)
    if (!isUplinkFree || isDrained) this.firstBytes = 0
    this.measuredMs = isDrained ? nowMs : nowMs - ROUND_TRIP_VALID_MS + LOOK_AGAIN_MS
    this.settleDoubt()
    this.largest = this.bytes
  }

  /** More than the hold was ours, so the round trip is shorter than it was taken for. */
  private lowerRoundTrip(bytesPerMs: number): void {
    const known = this.roundTripMs ?? 0
    const excessMs = Math.max(this.firstBytes / bytesPerMs, Math.min(known, QUEUE_MS) / 4)
    this.setRoundTrip(Math.max(0, known - excessMs))
  }

  /** What was taken for a slow uplink since responses came late was none. */
  private restore({ bytes, bytesPerMs, wireMs, roundTripMs }: Size, isLimited: boolean, nowMs: number): void {
    this.fitSinceMs = undefined
    this.bytesPerMs = bytesPerMs
    const isLonger = (this.roundTripMs ?? 0) >= roundTripMs + QUEUE_MS / 2
    const known = bytesPerMs === undefined ? (bytes / wireMs) * (isLonger && isLimited ? 2 : 1) : bytesPerMs
    this.bytes = Math.min(CEILING_BYTES, Math.max(this.bytes, known * this.wireMs()))
    this.grownAt = this.written
    if (!isLonger) return
    this.ownRoundTripMs ??= roundTripMs
    this.followUntilMs = nowMs + FOLLOW_MS
  }

  private doubt(nowMs: number): void {
    if (nowMs < this.followUntilMs) return
    this.before ??= this.sizeNow()
    // A window that was used in part only says nothing of what the link carries now.
    this.doubtedAt ??= this.unconfirmed < this.bytes / 2 ? this.written : Infinity
  }

  private settleDoubt(): void {
    this.doubtedAt = undefined
    this.before = undefined
  }

  private sizeNow(): Size {
    const { bytes, bytesPerMs, roundTripMs = 0 } = this
    return { bytes, bytesPerMs, wireMs: this.wireMs(), roundTripMs }
  }

  private allowance(nowMs: number, behindMs: number): number {
    if (behindMs > 0) return (this.bytes * (this.wireMs() + behindMs)) / this.wireMs()
    if (this.doubtedAt === undefined && !this.isOverdue(nowMs)) return this.bytes
    this.doubt(nowMs)
    if (this.doubtedAt === undefined) return this.bytes
    const isUnknown = this.bytesPerMs === undefined && this.roundTripMs !== undefined
    const mostBytes = isUnknown ? Math.max(this.bytes, DOUBT_BYTES) : this.bytes
    return Math.min(mostBytes, this.doubtedAt - this.confirmed + DOUBT_BYTES)
  }

  /** Sparse traffic gets no markers: brokers with Nagle's algorithm hold up what follows a PINGRESP. */
  private mayMark(nowMs: number): boolean {
    const unmarked = this.written - this.marked
    if (unmarked === 0 || this.hold?.isPausing || this.isRepeating(nowMs)) return false
    const isPressed = nowMs - this.lastBlockedMs < PRESSED_MS
    // A response that is missing shows when no other one comes in its place.
    if (this.hold !== undefined && this.ownRoundTripMs !== undefined && !isPressed) return false
    return unmarked >= SPARSE_BYTES || isPressed
  }

  private isRepeating(nowMs: number): boolean {
    return this.markers.isRepeating(nowMs, this.quietMs())
  }

  private isOverdue(nowMs: number): boolean {
    const { oldest } = this.markers
    return oldest !== undefined && this.unconfirmed > 0 && nowMs - oldest.sentMs > this.overdueMs()
  }

  private overdueMs(): number {
    return this.roundTripMs === undefined ? LONGEST_ROUND_TRIP_MS : this.wireMs() + LATE_MS
  }

  private get repeatDueMs(): number {
    return this.markers.repeatDueMs + 2 * this.lastAgeMs
  }

  /** So long after the last response none is on its way any more. */
  private quietMs(): number {
    return this.wireMs() + 2 * this.lastAgeMs
  }

  private wireMs(): number {
    return (this.roundTripMs ?? 0) + QUEUE_MS
  }
}

import { LinkHold, type Marker, MarkerQueue } from './pings.js'
import { type Response, WindowSize } from './window-size.js'

/** Interval of markers while the link is the limit, so that the window advances in small steps. */
const MARKER_MS = 12.5
/** Bytes that are sent without a marker while the window is not the limit. */
const SPARSE_BYTES = 1_024
/** Time for which the window counts as the limit after it was closed. */
const PRESSED_MS = 1_000
/** A response that is later than expected by more than this needs an explanation. */
const LATE_MS = 100
/** Time limit for the first response of a connection. */
const LONGEST_ROUND_TRIP_MS = 2_000
/** Bytes that may be written on a link that was never the limit, until a late response is explained. */
const DOUBT_BYTES = 6_144
/** While round trips become longer, an increase by this much needs no explanation. */
const MOST_EXPLAINED = 3
const MOST_UNEXPLAINED = 1.5
const EXPECTED_MS = 1_000
const HOLD_PAUSE_MS = 1_000
/** Time for which the link must have been the limit before a hold checks it. */
const ASK_AFTER_MS = 100

/**
 * Limits the number of bytes in transit. Data that cannot be written now waits where it can still be dropped.
 *
 * The window is the amount that the link carries in one round trip and 100 ms, as the responses to markers (PINGREQ) show
 * it. `LinkHold` finds out whether a late response is caused by our own queue. Until then a few KB more may be written, and
 * while this process reads slower than data arrives, the window is larger by the time for which responses may have waited.
 */
export class LinkWindow {
  readonly markers = new MarkerQueue()
  private readonly window = new WindowSize()
  /** Whether `isMarkerDue` and `dueMs` may return something. */
  isTending = false
  received = 0
  private written = 0
  private lastBytes = 0
  /** The largest message since there were last no unconfirmed bytes. */
  private largestBytes = 0
  private marked = 0
  private confirmed = 0
  /** Time since which the link is busy with unconfirmed bytes. */
  private sinceMs = 0
  private lastMarkerMs = Number.NEGATIVE_INFINITY
  private lastBlockedMs = Number.NEGATIVE_INFINITY
  private hold: LinkHold | undefined
  private lastHoldMs = Number.NEGATIVE_INFINITY
  /** A hold begins at the end of a read, or behind the next write if this read (a TLS record) confirmed everything. */
  holdDue: 'now' | 'written' | undefined
  /** Number of bytes written when a response became overdue. */
  private doubtedAt: number | undefined

  get unconfirmed(): number {
    return this.written - this.confirmed
  }

  /** Number of bytes that the broker has read. Bytes without a marker after them count as read, because they are few. */
  get read(): number {
    return this.markers.sent.length === 0 ? this.written : this.confirmed
  }

  get size(): number {
    return this.window.bytes
  }

  get bytesPerSecond(): number | undefined {
    const { bytesPerMs } = this.window.rate
    return bytesPerMs === undefined ? undefined : bytesPerMs * 1_000
  }

  /** Time until the broker has read this many more bytes, once it can be estimated reliably. */
  delayMs(bytes: number, nowMs: number): number | undefined {
    const { roundTrip } = this.window
    const { bytesPerMs } = this.window.rate
    if (bytesPerMs === undefined || !this.isSlow(nowMs)) return undefined
    return Math.max(0, this.unconfirmed / bytesPerMs - roundTrip.carryMs(bytesPerMs)) + bytes / bytesPerMs
  }

  /** Delay of a message by the traffic of others on a link that is the limit. */
  crowdedMs(nowMs: number): number {
    if (nowMs - this.lastBlockedMs >= PRESSED_MS || !this.window.isSettled) return 0
    return this.window.roundTrip.crowdedMs(this.markers.ageMs)
  }

  /** Whether the uplink is the limit, according to a hold and to every marker for a while. */
  isSlow(nowMs: number): boolean {
    // Otherwise a wrong rate, for example after lost responses, would hold back every message that could correct it.
    return nowMs - this.lastBlockedMs < PRESSED_MS && this.window.rate.isSure(nowMs)
  }

  /**
   * Whether data may be written now.
   * @param behindMs how long reading has been behind: responses may have waited unread for as long
   */
  isOpen(nowMs: number, behindMs = 0): boolean {
    const { hold, markers, written, confirmed } = this
    const isQuiet = markers.sent.length === 0 && this.doubtedAt === undefined
    if (hold === undefined && isQuiet && written - confirmed < this.window.bytes) return true
    if (hold?.isPausing || this.holdDue === 'now') return false
    if (written === confirmed || written - confirmed < this.allowance(nowMs, behindMs)) return true
    this.lastBlockedMs = nowMs
    this.isTending = true
    return false
  }

  /** @returns whether a marker is due */
  wrote(bytes: number, nowMs: number): boolean {
    const isFirst = this.written === this.confirmed
    if (isFirst) this.sinceMs = nowMs
    this.largestBytes = Math.max(bytes, isFirst ? 0 : this.largestBytes)
    this.written += bytes
    this.lastBytes = bytes
    const unmarked = this.written - this.marked
    if (unmarked < SPARSE_BYTES && nowMs - this.lastBlockedMs >= PRESSED_MS) return false
    this.isTending = true
    const { bytes: size, roundTrip } = this.window
    return unmarked >= (size * MARKER_MS) / roundTrip.wireMs && this.mayMark(nowMs)
  }

  /** Whether a marker is due now, including one that is due by time or as a probe of a hold. */
  isMarkerDue(nowMs: number): boolean {
    if (this.holdDue !== undefined) this.holdWhenDue(nowMs)
    const { hold } = this
    if (hold?.isPausing) return hold.wantsProbe(nowMs)
    const { window, markers, written } = this
    // The markers of the first burst are the first to show the rate.
    const isFirst = window.roundTrip.ms === undefined || markers.sent.length === 0
    if (isFirst && written > this.marked && written - this.confirmed >= window.bytes) return true
    if (this.isOverdue(nowMs) && nowMs >= markers.askMs(this.roundTripMs)) return true
    return nowMs - this.lastMarkerMs >= MARKER_MS && this.mayMark(nowMs)
  }

  /** Time at which something becomes due without further events, or undefined. */
  dueMs(nowMs: number): number | undefined {
    const { hold, markers } = this
    if (hold?.isPausing) return hold.endMs
    const isIdle = this.written === this.confirmed
    const oldest = isIdle ? undefined : markers.oldest
    const markerMs = !isIdle && this.mayMark(nowMs) ? this.lastMarkerMs + MARKER_MS : Infinity
    const overdueMs = oldest === undefined ? Infinity : oldest.sentMs + this.lateMs() + 1
    const dueMs = Math.min(markerMs, nowMs < overdueMs ? overdueMs : markers.askMs(this.roundTripMs))
    this.isTending = dueMs !== Infinity
    return this.isTending ? dueMs : undefined
  }

  /** A PINGREQ was sent after everything so far. */
  mark(nowMs: number): void {
    const { written, confirmed } = this
    const sinceMs = written === confirmed ? nowMs : this.sinceMs
    const marker: Marker = { at: written, sentMs: nowMs, confirmed, sinceMs, received: this.received }
    this.markers.push(marker, this.roundTripMs)
    this.isTending = true
    if (this.hold?.sent(marker)) this.window.rate.pausedMs = nowMs
    this.marked = written
    this.lastMarkerMs = nowMs
  }

  /** Handles the passage of time without a response. Must not be called while responses may wait unread. */
  look(nowMs: number): void {
    if (!this.isOverdue(nowMs)) return
    if (!this.window.roundTrip.isFollowing(nowMs) && this.mayHold(nowMs)) this.startHold(nowMs)
    this.doubt(nowMs)
  }

  /** The broker has acknowledged a packet and read everything before it. Serves as a marker while none is in transit. */
  acknowledged(at: number, sentMs: number, nowMs: number): void {
    const { roundTrip } = this.window
    if (roundTrip.ms === undefined || nowMs - sentMs < roundTrip.ms) roundTrip.acknowledged(nowMs - sentMs)
    if (this.markers.sent.length > 0 || at <= this.confirmed) return
    this.confirmed = at
    this.marked = Math.max(this.marked, at)
    this.sinceMs = nowMs
  }

  /**
   * A PINGRESP arrived.
   * @param blindUntilMs time until which responses may have waited unread
   */
  confirm(nowMs: number, blindUntilMs = Number.NEGATIVE_INFINITY): void {
    const { window } = this
    const response = this.markers.take(nowMs, this.roundTripMs)
    if (response === undefined) return
    const { marker, isLoss, isDoubtful } = response
    this.confirmed = Math.max(this.confirmed, marker.at)
    this.sinceMs = nowMs
    if (isDoubtful) return
    const ageMs = nowMs - marker.sentMs
    if (marker.sentMs <= blindUntilMs || isLoss) {
      this.hold = undefined
      this.doubtedAt = undefined
      return isLoss ? window.restoreAfterLoss(ageMs, nowMs) : window.forget()
    }
    window.roundTrip.isExplained = window.roundTrip.explains(marker, this.received)
    this.judge(marker, ageMs, nowMs)
  }

  private judge(marker: Marker, ageMs: number, nowMs: number): void {
    const { hold, window, written } = this
    const isLimited = this.lastBlockedMs >= marker.sentMs
    const [isHolding, isDoubted] = [hold !== undefined, this.doubtedAt !== undefined]
    const response: Response = { marker, ageMs, nowMs, written, isLimited, isHolding, isDoubted }
    window.measure(response)
    const finding = hold?.responded(marker, nowMs)
    if (finding === undefined) window.adapt(response, this.lateMs())
    else {
      window.judge(finding, response)
      this.hold = undefined
      this.lastHoldMs = nowMs
      this.doubtedAt = undefined
    }
    if (ageMs > this.lateMs()) this.doubt(nowMs)
    else if (this.hold === undefined) this.doubtedAt = undefined
    if (this.wantsHold(ageMs, isLimited, nowMs)) this.holdDue = 'now'
  }

  private wantsHold(ageMs: number, isLimited: boolean, nowMs: number): boolean {
    const { rate, roundTrip, hasShrunk } = this.window
    if (!this.mayHold(nowMs)) return false
    const isLate = ageMs > this.lateMs()
    if (roundTrip.isFollowing(nowMs)) return isLimited && isLate
    if (roundTrip.isLengthened) return true
    if (isLimited && (hasShrunk || roundTrip.isOld(nowMs))) return true
    if (rate.isUplinkFull && isLimited) return false
    return isLate || (isLimited && rate.limitMs(nowMs) >= ASK_AFTER_MS)
  }

  private mayHold(nowMs: number): boolean {
    if (this.hold !== undefined || this.unconfirmed === 0) return false
    return this.window.roundTrip.isFollowing(nowMs) || nowMs - this.lastHoldMs >= HOLD_PAUSE_MS
  }

  private holdWhenDue(nowMs: number): void {
    const least = this.window.bytes / (this.holdDue === 'now' ? 4 : 1)
    this.holdDue = this.unconfirmed < least ? 'written' : undefined
    if (this.holdDue === undefined && this.mayHold(nowMs)) this.startHold(nowMs)
  }

  private startHold(nowMs: number): void {
    this.hold = new LinkHold(nowMs)
    this.isTending = true
    if (nowMs - this.lastBlockedMs >= PRESSED_MS) this.window.roundTrip.held()
    this.lastHoldMs = nowMs
    this.window.remember()
  }

  private doubt(nowMs: number): void {
    if (this.isExpected(nowMs)) return
    this.window.remember()
    // A partly used window shows nothing about the current rate of the link.
    this.doubtedAt ??= this.unconfirmed < this.window.bytes / 2 ? this.written : Infinity
  }

  /** A late response is expected if the last ones were late because of other traffic. */
  private isExpected(nowMs: number): boolean {
    const { roundTrip } = this.window
    const isModest = roundTrip.isLengthened && nowMs - this.lastBlockedMs >= PRESSED_MS
    if (!isModest && !roundTrip.isFollowing(nowMs)) return false
    const [oldest] = this.markers.sent
    const most = !oldest || roundTrip.explains(oldest, this.received) ? MOST_EXPLAINED : MOST_UNEXPLAINED
    return nowMs - (oldest?.sentMs ?? nowMs) <= most * this.roundTripMs + EXPECTED_MS
  }

  private allowance(nowMs: number, behindMs: number): number {
    const { bytes, rate, roundTrip } = this.window
    if (behindMs > 0) return (bytes * (roundTrip.wireMs + behindMs)) / roundTrip.wireMs
    if (this.doubtedAt === undefined && !this.isOverdue(nowMs))
      // Two messages on a slow link, so that it does not run empty between them.
      return rate.bytesPerMs === undefined ? bytes : Math.max(bytes, Math.min(2 * bytes, this.lastBytes + 1))
    this.doubt(nowMs)
    if (this.doubtedAt === undefined) return bytes
    const isUnknown = rate.bytesPerMs === undefined && roundTrip.ms !== undefined && !rate.isUplinkFull
    const mostBytes = isUnknown ? Math.max(bytes, DOUBT_BYTES) : bytes
    return Math.min(mostBytes, this.doubtedAt - this.confirmed + DOUBT_BYTES)
  }

  /** Sparse traffic gets no markers, because brokers with Nagle's algorithm delay the packets after a PINGRESP. */
  private mayMark(nowMs: number): boolean {
    const unmarked = this.written - this.marked
    if (unmarked === 0 || this.hold?.isPausing) return false
    const isPressed = nowMs - this.lastBlockedMs < PRESSED_MS
    // A missing response can only be detected if no other response takes its place.
    if (this.hold !== undefined && !isPressed) return false
    return unmarked >= SPARSE_BYTES || isPressed
  }

  private isOverdue(nowMs: number): boolean {
    const oldest = this.unconfirmed === 0 ? undefined : this.markers.oldest
    return oldest !== undefined && nowMs - oldest.sentMs > this.lateMs()
  }

  /** An age that needs an explanation. */
  private lateMs(): number {
    return this.roundTripMs + this.window.queueMs(this.largestBytes) + LATE_MS
  }

  private get roundTripMs(): number {
    return this.window.roundTrip.ms ?? LONGEST_ROUND_TRIP_MS
  }
}

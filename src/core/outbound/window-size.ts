import { DeliveredRate, QUEUE_MS, RoundTrip } from './link-measures.js'
import type { Finding, Marker } from './pings.js'

/** The first window: the amount that a link of 10 KB/s carries in 200 ms. */
const START_BYTES = 2_048
const FLOOR_BYTES = 512
const CEILING_BYTES = 64 * 1_048_576
/** If a window has shrunk to this fraction, longer round trips may be the cause. */
const SUSPICIOUS_SHRINK = 1 / 2
/** A hold that finds other traffic on the link lowers the rate to no less than this fraction. */
const LEAST_YIELD = 0.7
/** Time after such a hold in which bursts do not show the rate, because other traffic is interleaved with them. */
const SHARED_MS = 30_000
/** A rate that is far too low must not delay an explanation for longer. */
const LONGEST_QUEUE_MS = 2_000
const SHORTEST_INTERVAL_MS = 0.05

/** How the response to a marker is judged. */
export interface Response {
  readonly marker: Marker
  readonly ageMs: number
  readonly nowMs: number
  /** Number of bytes written so far. */
  readonly written: number
  /** The window was closed since the marker was sent. */
  readonly isLimited: boolean
  readonly isHolding: boolean
  /** A response was late and has not been explained yet. */
  readonly isDoubted: boolean
}

interface Size {
  readonly bytes: number
  readonly bytesPerMs: number | undefined
  readonly wireMs: number
  readonly roundTripMs: number
}

/**
 * Size of the window: the amount that the link carries in one round trip and 100 ms. While nothing waits in the queue of
 * the link, it doubles with each round trip in which it was closed. While our own bytes wait, it follows the delivered
 * rate.
 */
export class WindowSize {
  bytes = START_BYTES
  readonly rate = new DeliveredRate()
  readonly roundTrip = new RoundTrip()
  /** The window has doubled for the bytes written before this. */
  private grownAt = 0
  /** The window was opened at once for the bytes written before this. */
  private jumpedAt = 0
  private sharedUntilMs = 0
  /** A burst has left the link. */
  isSettled = true
  /** The largest window since the last hold. */
  private largest = START_BYTES
  /** The size before responses were late. */
  private before: Size | undefined

  get hasShrunk(): boolean {
    return this.bytes < this.largest * SUSPICIOUS_SHRINK
  }

  /** Time for which our own bytes may wait in the queue of the link. The window has a floor, and one message may exceed it. */
  queueMs(messageBytes: number): number {
    const { bytesPerMs = Infinity } = this.rate
    return (
      Math.max(QUEUE_MS, FLOOR_BYTES / bytesPerMs) + Math.min(messageBytes / bytesPerMs, LONGEST_QUEUE_MS)
    )
  }

  /** Responses are late. If the uplink turns out to be free, the current size is restored. */
  remember(): void {
    const { bytes, rate, roundTrip } = this
    const { ms: roundTripMs = 0, wireMs } = roundTrip
    this.before ??= { bytes, bytesPerMs: rate.bytesPerMs, wireMs, roundTripMs }
  }

  forget(): void {
    this.before = undefined
  }

  /** Responses were lost, not late. */
  restoreAfterLoss(ageMs: number, nowMs: number): void {
    const { before, rate, roundTrip } = this
    roundTrip.measured(ageMs, nowMs)
    if (before !== undefined) {
      rate.bytesPerMs = before.bytesPerMs
      this.bytes = Math.max(this.bytes, before.bytes)
    }
    this.before = undefined
  }

  /** Updates the round trip, and the window with it. */
  measure({ marker, ageMs, isLimited, isHolding, nowMs }: Response): void {
    const { roundTrip } = this
    const { ms, wireMs } = roundTrip
    roundTrip.responded(marker, ageMs, isLimited, nowMs)
    if (ms !== undefined) this.scale(wireMs)
    if (!isHolding) roundTrip.forgetLengthened(ageMs)
  }

  adapt(response: Response, lateMs: number): void {
    const { marker, ageMs, isLimited, nowMs } = response
    const { rate, roundTrip } = this
    const roundTripMs = roundTrip.wireMs - QUEUE_MS
    const busySample = rate.sample(marker, nowMs, ageMs > roundTripMs + QUEUE_MS / 4)
    const bytes = marker.at - marker.confirmed
    if (bytes <= 0) return
    const sample = bytes / Math.max(nowMs - marker.sinceMs, SHORTEST_INTERVAL_MS)
    this.isSettled = marker.at > this.jumpedAt
    const trainRate = nowMs < this.sharedUntilMs ? undefined : rate.trainRate(marker, nowMs)
    if (ageMs < roundTripMs + QUEUE_MS / 2) this.grow(response, sample, trainRate)
    else if (isLimited && this.mayFit(response)) {
      const known = busySample ?? (ageMs > lateMs ? sample : undefined)
      // The queue is longer than our own: others share the link, and our share is the amount of our bytes that it carried.
      const isCrowded =
        nowMs < this.sharedUntilMs || (this.isSettled && ageMs > roundTrip.wireMs + QUEUE_MS / 4)
      if (known !== undefined) this.fit(isCrowded ? Math.min(known, bytes / ageMs) : known, response)
    }
    this.largest = Math.max(this.largest, this.bytes)
  }

  /** A hold has a result. */
  judge(
    { isDrained, isUplinkFree, ageMs, delivered }: Finding,
    { written, isLimited, nowMs }: Response,
  ): void {
    this.remember()
    const { before, rate, roundTrip } = this
    const { wireMs } = roundTrip
    rate.isUplinkFull = !isUplinkFree
    if (isDrained) roundTrip.measured(ageMs, nowMs)
    else roundTrip.notMeasured(rate.bytesPerMs, nowMs)
    this.scale(wireMs)
    // The first responses of a new burst are early on any link.
    this.grownAt = written + this.bytes
    if (isUplinkFree && before !== undefined) {
      this.restore(before, isLimited, nowMs)
      if (isLimited && roundTrip.isShared) {
        this.sharedUntilMs = nowMs + SHARED_MS
        this.yield(delivered)
      }
      this.grownAt = written
    }
    this.before = undefined
    this.largest = this.bytes
  }

  /** The uplink that was considered slow since responses were late is not slow. */
  private restore({ bytes, bytesPerMs, wireMs, roundTripMs }: Size, isLimited: boolean, nowMs: number): void {
    const { rate, roundTrip } = this
    rate.bytesPerMs = bytesPerMs
    const isLonger = (roundTrip.ms ?? 0) >= roundTripMs + QUEUE_MS / 2
    if (!isLonger || !isLimited || roundTrip.isExplained) rate.notLimited()
    const known = bytesPerMs ?? (bytes / wireMs) * (isLonger && isLimited && roundTrip.isExplained ? 2 : 1)
    this.bytes = Math.min(CEILING_BYTES, Math.max(this.bytes, known * roundTrip.wireMs))
    if (isLonger) roundTrip.lengthened(roundTripMs, nowMs)
  }

  /** Others may fill the same uplink. Each sender uses its share and leaves the queue as it is. */
  private yield(delivered: number): void {
    const { rate, roundTrip } = this
    const known = rate.bytesPerMs ?? delivered
    rate.isUplinkFull = true
    rate.bytesPerMs = Math.min(known, Math.max(delivered, known * LEAST_YIELD))
    this.bytes = Math.max(FLOOR_BYTES, rate.bytesPerMs * roundTrip.wireMs)
  }

  /** The bytes written around a hold are less reliable for the rate, and with a free uplink not at all. */
  private mayFit({ isHolding, isDoubted, nowMs }: Response): boolean {
    return !this.roundTrip.isFollowing(nowMs) && (!isHolding || isDoubted)
  }

  /** Nothing waits in the queue of the link, so its rate is higher than this. */
  private grow(
    { marker, isLimited, isHolding, written }: Response,
    sample: number,
    trainRate?: number,
  ): void {
    const { rate, roundTrip } = this
    rate.raise(sample)
    if (!isHolding) this.forget()
    if (!isLimited) return rate.notLimited()
    const bytes = Math.min(CEILING_BYTES, (trainRate ?? 0) * roundTrip.wireMs)
    if (bytes > this.bytes) {
      this.bytes = bytes
      this.jumpedAt = written + bytes
      // The first responses of a new burst are early on any link.
      this.grownAt = written + bytes
    } else if (trainRate === undefined && marker.at > this.grownAt) {
      // On a long round trip, a window of twice the size would add a queue of the same length.
      const step = rate.bytesPerMs === undefined ? this.bytes : rate.bytesPerMs * QUEUE_MS
      this.bytes = Math.min(CEILING_BYTES, this.bytes + Math.min(this.bytes, step))
      this.grownAt = written
    }
  }

  /** The link is the limit, so the window is the amount that it carries. */
  private fit(sample: number, { written, nowMs }: Response): void {
    if (!this.rate.isUplinkFull) this.remember()
    const target = this.rate.fit(sample, nowMs) * this.roundTrip.wireMs
    this.bytes = Math.max(FLOOR_BYTES, this.bytes / 2, Math.min(target, this.bytes * 2, CEILING_BYTES))
    this.grownAt = written
  }

  /** The window is the amount that the link carries in this time, so it changes with it. */
  private scale(fromWireMs: number): void {
    const { wireMs } = this.roundTrip
    if (wireMs === fromWireMs) return
    const floor = this.rate.bytesPerMs === undefined ? START_BYTES : FLOOR_BYTES
    this.bytes = Math.min(CEILING_BYTES, Math.max(floor, (this.bytes * wireMs) / fromWireMs))
  }
}

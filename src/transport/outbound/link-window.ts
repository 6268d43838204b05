/** A PINGREQ among the bytes: its PINGRESP says that the broker has read everything in front of it. */
interface Marker {
  /** Bytes written before it. */
  readonly at: number
  readonly sentMs: number
  /** What was confirmed when it was sent, and since when the link had been busy with what came behind that. */
  readonly confirmed: number
  readonly sinceMs: number
}

/** Time that the bytes on the wire may take, where round trips do not ask for more. */
const WIRE_MS = 100
/** The first window: a fifth of a second of a link of 10 KB/s. */
const START_BYTES = 2_048
const FLOOR_BYTES = 512
const CEILING_BYTES = 64 * 1_048_576
/** Markers in a window, so that it moves on in small steps. */
const MARKERS = 8
/** How long a measured round trip is believed while the link is busy. */
const ROUND_TRIP_VALID_MS = 30_000
/** How long the link must have been the limit before messages are dropped by its rate. */
const SURE_AFTER_MS = 300
const PROBE_PAUSE_MS = 1_000
/** A window that shrank to this part of what it was may have shrunk because round trips are longer now. */
const SUSPICIOUS_SHRINK = 1 / 4
/** A window so many times as large as the rate had it shows that the rate is another one now. */
const OUTGROWN = 2
const SHORTEST_INTERVAL_MS = 0.05

/**
 * How many bytes may be on their way: about what the link carries in 100 ms, or in four round trips where that is
 * more. Knows nothing of the link but when markers come back. What cannot be written now waits where it can still
 * be dropped.
 */
export class LinkWindow {
  private readonly markers: Marker[] = []
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
  private roundTripMs: number | undefined
  private probedMs = 0
  /** The largest window since the round trip was measured. */
  private largest = START_BYTES
  /** Waiting for an empty wire, on which a marker tells the round trip. */
  private isProbing = false
  private bytesPerMs: number | undefined
  /** Since when every marker says that the link is the limit. */
  private fitSinceMs: number | undefined

  get unconfirmed(): number {
    return this.written - this.confirmed
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

  /** Whether the link, and not the window, is the limit. One late marker may be a pause of this process. */
  isSlow(nowMs: number): boolean {
    return this.fitSinceMs !== undefined && nowMs - this.fitSinceMs >= SURE_AFTER_MS
  }

  /** Whether something may be written now. A marker that stays away shuts the window, however little is on the wire. */
  isOpen(nowMs: number): boolean {
    const [oldest] = this.markers
    const isOverdue = oldest !== undefined && nowMs - oldest.sentMs > 2 * this.wireMs()
    if (this.unconfirmed < this.bytes && !isOverdue && !this.isProbing) return true
    this.lastBlockedMs = nowMs
    return false
  }

  wrote(bytes: number, nowMs: number): void {
    if (this.unconfirmed === 0) this.sinceMs = nowMs
    this.written += bytes
  }

  /** Whether a marker is due for the number of bytes behind the last one. */
  get wantsMarker(): boolean {
    return this.written - this.marked >= this.bytes / MARKERS
  }

  /** When the next marker is due by time, or undefined when every byte has one behind it. */
  get markerDueMs(): number | undefined {
    return this.written === this.marked ? undefined : this.lastMarkerMs + this.wireMs() / MARKERS
  }

  /** Whether it would stay shut without a marker now: nothing on the wire will be answered. */
  get wantsProbe(): boolean {
    return (this.isProbing || this.unconfirmed >= this.bytes) && this.markers.length === 0
  }

  /** A PINGREQ was sent behind everything so far. */
  mark(nowMs: number): void {
    const { written, confirmed } = this
    const sinceMs = written === confirmed ? nowMs : this.sinceMs
    this.markers.push({ at: written, sentMs: nowMs, confirmed, sinceMs })
    this.marked = written
    this.lastMarkerMs = nowMs
  }

  /**
   * A PINGRESP came: the answer to the oldest marker, since the broker reads in order.
   * @param blindUntilMs until then nothing was read here, and answers had to wait
   */
  confirm(nowMs: number, blindUntilMs = Number.NEGATIVE_INFINITY): void {
    const marker = this.markers.shift()
    if (marker === undefined) return
    const isAlone = marker.at === marker.confirmed
    const ageMs = nowMs - marker.sentMs
    this.confirmed = marker.at
    this.sinceMs = nowMs
    if (marker.sentMs <= blindUntilMs) return
    if (isAlone) return this.takeRoundTrip(ageMs, nowMs)
    const sample = (marker.at - marker.confirmed) / Math.max(nowMs - marker.sinceMs, SHORTEST_INTERVAL_MS)
    const isLimited = this.lastBlockedMs >= marker.sentMs
    if (ageMs < (this.wireMs() + (this.roundTripMs ?? 0)) / 2) this.grow(marker, sample, isLimited)
    else if (isLimited) this.fit(sample, nowMs)
    this.largest = Math.max(this.largest, this.bytes)
    if (isLimited) this.considerProbe(nowMs)
  }

  private takeRoundTrip(roundTripMs: number, nowMs: number): void {
    this.roundTripMs = roundTripMs
    this.probedMs = nowMs
    this.largest = this.bytes
    this.isProbing = false
  }

  /** Nothing queues on the link: it carries more than this. */
  private grow(marker: Marker, sample: number, isLimited: boolean): void {
    if (this.bytesPerMs !== undefined) this.bytesPerMs = Math.max(this.bytesPerMs, sample)
    // A small window on a slow link has moments without a queue, too.
    const isOutgrown = this.bytes > OUTGROWN * (this.bytesPerMs ?? 0) * this.wireMs()
    if (!isLimited || isOutgrown) this.fitSinceMs = undefined
    if (!isLimited || marker.at <= this.grownAt) return
    this.bytes = Math.min(CEILING_BYTES, this.bytes * 2)
    this.grownAt = this.written
  }

  /** The link is the limit, so what it delivered is what it carries. */
  private fit(sample: number, nowMs: number): void {
    this.fitSinceMs ??= nowMs
    const known = this.bytesPerMs ?? sample
    const isSteady = sample > known / 2 && sample < known * 2
    this.bytesPerMs = isSteady ? (known + sample) / 2 : sample
    const target = this.bytesPerMs * this.wireMs()
    this.bytes = Math.max(FLOOR_BYTES, this.bytes / 2, Math.min(target, this.bytes * 2, CEILING_BYTES))
    this.grownAt = this.written
  }

  private considerProbe(nowMs: number): void {
    const sinceMs = nowMs - this.probedMs
    const hasShrunk = this.bytes < this.largest * SUSPICIOUS_SHRINK && sinceMs > PROBE_PAUSE_MS
    if (this.roundTripMs === undefined || hasShrunk || sinceMs > ROUND_TRIP_VALID_MS) this.isProbing = true
  }

  /** At most four round trips, and for long ones two and a tenth of a second: no more of it can be called back. */
  private wireMs(): number {
    const roundTripMs = this.roundTripMs ?? 0
    return Math.max(WIRE_MS, Math.min(4 * roundTripMs, 2 * roundTripMs + WIRE_MS))
  }
}

/** A PINGREQ between the messages. Its PINGRESP shows that the broker has read everything before it. */
export interface Marker {
  /** Number of bytes written before it. */
  readonly at: number
  readonly sentMs: number
  /**
   * Number of confirmed bytes when it was sent, and the time since which the link had been busy with the following ones.
   */
  readonly confirmed: number
  readonly sinceMs: number
  /** Number of received bytes. */
  readonly received: number
}

interface Taken {
  readonly marker: Marker
  /** Older markers were given up. */
  readonly isLoss: boolean
  /** The response may belong to a later marker, so its age is not used. */
  readonly isDoubtful: boolean
}

const LONGEST_PAUSE_MS = 2_000
/** Time by which a prompt response may exceed the round trip. */
const TOLERANCE_MS = 50

/**
 * PINGREQs without a response. PINGRESP has no identifier, so a response is matched to the oldest PINGREQ. A lost PINGRESP
 * shifts this by one: fewer bytes are then confirmed than the broker has read, never more.
 *
 * If responses are missing, another PINGREQ is sent. A response within a round trip after that, with none for a long time
 * before, may belong to this PINGREQ. If the next PINGREQ gets its response as quickly, this is confirmed, and the older
 * ones are given up. If their responses arrive after all, they are too early for the PINGREQs sent since, and are ignored.
 */
export class MarkerQueue {
  /** Age of the marker of the last response. */
  ageMs = 0
  readonly sent: Marker[] = []
  private givenUp = 0
  /** Time after which a PINGREQ that followed a silence last got a response. */
  private promptMs: number | undefined
  private asked = 0
  /** The newest marker was sent after a silence. */
  private isAsking = false
  private lastMs = Number.NEGATIVE_INFINITY

  get oldest(): Marker | undefined {
    return this.sent[0]
  }

  push(marker: Marker, roundTripMs: number): void {
    this.isAsking = marker.sentMs - this.lastMs >= this.quietMs(roundTripMs)
    this.asked = this.sent.length > 0 && this.isAsking ? this.asked + 1 : 0
    this.sent.push(marker)
    this.lastMs = marker.sentMs
  }

  /** Time at which another PINGREQ is sent, unless a response arrives. */
  askMs(roundTripMs: number): number {
    const quietMs = this.quietMs(roundTripMs)
    return this.lastMs + Math.max(quietMs, Math.min(LONGEST_PAUSE_MS, quietMs * 2 ** this.asked))
  }

  /** A response arrived. @returns the marker that it belongs to */
  take(nowMs: number, roundTripMs: number): Taken | undefined {
    const { sent, promptMs } = this
    const newest = sent.at(-1)
    const oldest = sent[0]
    if (newest === undefined || oldest === undefined) return undefined
    if (this.givenUp > 0 && nowMs - oldest.sentMs < 0.8 * roundTripMs - 1) {
      this.givenUp -= 1
      return undefined
    }
    this.lastMs = nowMs
    this.asked = 0
    const soonMs = nowMs - newest.sentMs
    const isPrompt = this.isAsking && sent.length > 1 && soonMs <= 1.25 * roundTripMs + TOLERANCE_MS
    const isLoss =
      isPrompt && promptMs !== undefined && Math.abs(soonMs - promptMs) <= soonMs / 4 + TOLERANCE_MS
    if (this.isAsking) this.promptMs = isPrompt && !isLoss ? soonMs : undefined
    this.isAsking = false
    if (isLoss) this.givenUp = sent.length - 1
    sent.splice(0, isLoss ? sent.length : 1)
    const marker = isLoss ? newest : oldest
    if (isLoss || !isPrompt) this.ageMs = nowMs - marker.sentMs
    return { marker, isLoss, isDoubtful: isPrompt && !isLoss }
  }

  /** Time after the last response after which no further response is in transit. */
  private quietMs(roundTripMs: number): number {
    return roundTripMs + Math.min(LONGEST_PAUSE_MS, 2 * this.ageMs + TOLERANCE_MS)
  }
}

/** Longer than our own queue, which must be empty at the end. */
const HOLD_MS = 100

export interface Finding {
  /** None of our bytes were before the second probe, so its age is the round trip. */
  readonly isDrained: boolean
  /** The uplink was idle for most of the hold, so our own queue is not the reason for late responses. */
  readonly isUplinkFree: boolean
  readonly ageMs: number
  /** Bytes per millisecond that were delivered up to the hold. */
  readonly delivered: number
}

/** A pause in writing with a probe at its start and at its end. Publishes wait in the buffer in the meantime. */
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

  /** Nothing may be written until the second probe has been sent. */
  get isPausing(): boolean {
    return this.second === undefined
  }

  /** @returns whether the marker is the second probe, which ends the pause */
  sent(marker: Marker): boolean {
    if (this.first === undefined) this.first = marker
    else if (this.second === undefined && marker.sentMs >= this.endMs) this.second = marker
    return marker === this.second
  }

  /** @returns the result of the hold, once the second probe has its response */
  responded(marker: Marker, nowMs: number): Finding | undefined {
    const { first, second } = this
    if (marker === first) this.firstResponseMs = nowMs
    if (first === undefined || second === undefined || marker !== second) return undefined
    const pausedMs = second.sentMs - first.sentMs
    // Our own queue drains during the hold, so that the responses arrive together.
    const apartMs = nowMs - this.firstResponseMs
    return {
      isDrained: apartMs > pausedMs / 8,
      isUplinkFree: apartMs >= pausedMs / 2,
      ageMs: nowMs - second.sentMs,
      delivered: (first.at - first.confirmed) / Math.max(1, this.firstResponseMs - first.sentMs),
    }
  }
}

/** Longest time for which the operating system of this side delays the TCP acknowledgement of received data. */
const DELAYED_ACK_MS = 40
/** By then most responses of a broker that holds nothing back have arrived, and the next packet carries the acknowledgement. */
const QUIET_MS = 1
/** A broker that responds later than this is far away, or the link is metered. */
const NEAR_MS = 5
/** One late PINGRESP may be caused by a busy process. */
const MOST_LATE = 3
const FAR_PAUSE_MS = 10_000
const PINGRESP_BYTES = 2

/**
 * Decides when a PINGREQ is sent only to carry a TCP acknowledgement. With Nagle's algorithm on, a broker holds back a
 * small packet until the previous one is acknowledged: a response waits behind the PUBACK of its request for 40 ms. Any
 * data that this side writes carries the acknowledgement. Used only with a broker that responds within 5 ms, and only until
 * 40 ms after the last packet that was not a PINGRESP.
 */
export class AckPulse {
  private activeMs = 0
  private wroteMs = 0
  private activeBytes = 0
  private responses = 0
  /** Number of bytes received when this side last wrote. */
  private ackedBytes = 0
  private writtenBytes = 0
  private askedMs: number | undefined
  private late = 0
  private farUntilMs = Number.NEGATIVE_INFINITY

  /** A request or a response was written at QoS 1. @returns whether to call `beat` */
  begin(nowMs: number, receivedBytes: number, writtenBytes: number): boolean {
    this.activeMs = nowMs
    this.wroteMs = nowMs
    this.ackedBytes = receivedBytes
    this.writtenBytes = writtenBytes
    return nowMs >= this.farUntilMs
  }

  /** PINGRESP arrived, for any PINGREQ. */
  responded(): void {
    this.responses += 1
    if (this.askedMs !== undefined) this.late = 0
    this.askedMs = undefined
  }

  beat(nowMs: number, receivedBytes: number, writtenBytes: number): 'ping' | 'wait' | 'stop' {
    const activeBytes = receivedBytes - this.responses * PINGRESP_BYTES
    if (activeBytes !== this.activeBytes) this.activeMs = nowMs
    this.activeBytes = activeBytes
    if (writtenBytes !== this.writtenBytes) this.ackedBytes = receivedBytes
    this.writtenBytes = writtenBytes
    if (this.askedMs !== undefined && nowMs - this.askedMs > NEAR_MS) {
      this.askedMs = undefined
      this.late += 1
      if (this.late < MOST_LATE) return 'wait'
      this.late = 0
      this.farUntilMs = nowMs + FAR_PAUSE_MS
      return 'stop'
    }
    if (nowMs - this.activeMs > DELAYED_ACK_MS) return 'stop'
    // After a PINGREQ without a response this is data that arrived since. Its PINGRESP may be held back behind this data.
    if (receivedBytes === this.ackedBytes || nowMs - this.wroteMs < QUIET_MS) return 'wait'
    this.askedMs ??= nowMs
    this.ackedBytes = receivedBytes
    return 'ping'
  }
}

/** For so long at most the system of this side holds back the TCP acknowledgement of what it has received. */
const DELAYED_ACK_MS = 40
/** A broker that takes longer to respond is far away, or the link is metered. */
const NEAR_MS = 5
/** One late PINGRESP may be the fault of a busy process. */
const MOST_LATE = 3
const FAR_PAUSE_MS = 10_000
const PINGRESP_BYTES = 2

/**
 * Decides when a PINGREQ leaves only to carry a TCP acknowledgement. With Nagle's algorithm on, a broker holds a small packet
 * back until the one before it is acknowledged: a response waits behind the PUBACK of its request for 40 ms. Whatever this side
 * writes brings the acknowledgement along. Only with a broker that responds within 5 ms, and only until 40 ms after the last
 * packet that was not a PINGRESP.
 */
export class AckPulse {
  private activeMs = 0
  private activeBytes = 0
  private responses = 0
  /** What was received when this side wrote last. */
  private ackedBytes = 0
  private writtenBytes = 0
  private askedMs: number | undefined
  private late = 0
  private farUntilMs = Number.NEGATIVE_INFINITY

  /** A request or a response was written at QoS 1. @returns whether to call `beat` */
  begin(nowMs: number, receivedBytes: number, writtenBytes: number): boolean {
    this.activeMs = nowMs
    this.ackedBytes = receivedBytes
    this.writtenBytes = writtenBytes
    return nowMs >= this.farUntilMs
  }

  /** PINGRESP came, to whichever PINGREQ. */
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
    if (this.askedMs !== undefined || receivedBytes === this.ackedBytes) return 'wait'
    this.askedMs = nowMs
    this.ackedBytes = receivedBytes
    return 'ping'
  }
}

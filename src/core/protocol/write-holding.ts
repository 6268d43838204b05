/** Longest time that a packet is held, in milliseconds. Not 1, because a timer of 1 ms may fire at once. */
export const HOLD_MS = 2
/** Number of consecutive turns of the event loop with packets to send after which packets are held. */
const STREAM_TURNS = 16
/** Number of turns without a hold after one that ended by its timer. Doubles each time. */
const PENALTY_TURNS = 16
const LONGEST_PENALTY_TURNS = 4_096
const HOLD_PACKETS = 12
const HOLD_BYTES = 16_384
/** With this many times more unacknowledged publishes than held packets, an acknowledgement soon starts a new turn. */
const PUBACKS_FOR_PACKET = 4

/**
 * Decides whether the packets of this turn of the event loop wait for those of later turns. Under load, one system call per
 * turn costs more than everything else. A single packet, and the packet that follows its response, is never held.
 */
export class WriteHolding {
  /** Publishes of this connection that the broker has not acknowledged. */
  unacknowledged = 0
  /** So many turns in a row had something to send; 0 after a turn right behind a write that had nothing. */
  busyTurns = 0
  private penalty = 0
  private nextPenalty = PENALTY_TURNS

  /** Called at the end of a turn in which packets were sent. */
  mayHold(packets: number, bytes: number): boolean {
    this.busyTurns += 1
    if (this.penalty > 0) {
      this.penalty -= 1
      return false
    }
    if (packets >= HOLD_PACKETS || bytes >= HOLD_BYTES) {
      this.nextPenalty = PENALTY_TURNS
      return false
    }
    return this.busyTurns > STREAM_TURNS || this.unacknowledged >= PUBACKS_FOR_PACKET * (packets + 1)
  }

  /** Called when the hold ended by its timer. */
  wasInVain(): void {
    this.penalty = this.nextPenalty
    this.nextPenalty = Math.min(LONGEST_PENALTY_TURNS, this.nextPenalty * 2)
  }
}

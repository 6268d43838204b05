/** Longest time that a packet is held, in milliseconds; waited for at the end of a stream only. 1 may be no time at all. */
export const HOLD_MS = 2
/** So many turns of the event loop in a row with something to send make a stream. */
const STREAM_TURNS = 16
/** After a hold that the next packets did not end, so many turns go by before there is another one; twice as many each time. */
const PENALTY_TURNS = 16
const LONGEST_PENALTY_TURNS = 4_096
const HOLD_PACKETS = 12
const HOLD_BYTES = 16_384
/** With so many times as many publishes unanswered as packets are held, an answer comes soon, and makes a turn. */
const ANSWERS_FOR_PACKET = 4

/**
 * Whether the packets of this turn of the event loop wait for those of the next ones: in a stream, a call into the
 * kernel for each turn costs more than all the rest. A packet that stands alone, and the next one after its
 * answer, is never held.
 */
export class WriteHolding {
  private busyTurns = 0
  private penalty = 0
  private nextPenalty = PENALTY_TURNS
  private unanswered = 0

  /** A publish was sent that the broker answers. */
  asked(): void {
    this.unanswered += 1
  }

  answered(): void {
    this.unanswered = Math.max(0, this.unanswered - 1)
  }

  /** At the end of a turn in which something was sent. */
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
    return this.busyTurns > STREAM_TURNS || this.unanswered >= ANSWERS_FOR_PACKET * (packets + 1)
  }

  /** A turn right behind a write had nothing to send. */
  idle(): void {
    this.busyTurns = 0
  }

  /** The time was over before there was more. */
  wasInVain(): void {
    this.penalty = this.nextPenalty
    this.nextPenalty = Math.min(LONGEST_PENALTY_TURNS, this.nextPenalty * 2)
  }
}

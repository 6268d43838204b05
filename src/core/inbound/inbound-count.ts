import type { RunOutcome } from './run-outcome.js'

/** How many messages came in, and how they ended. */
export interface CountedInbound {
  readonly received: number
  /** Handlers of the message have ended, or there were none. */
  readonly handled: number
  /** Of the handled: at least one handler failed. */
  readonly failed: number
  /** Of the handled: no handler takes this topic. */
  readonly unmatched: number
  /** At least one handler failed, and the broker has the dead letter. */
  readonly deadLettered: number
  /**
   * QoS 0 messages that had to make room in front of a handler, and messages that no handler had finished at the end of
   * a shutdown and that the broker does not keep.
   */
  readonly dropped: number
  /** QoS 1 messages left to the broker, which delivers them again to the kept session. Handlers may have begun them. */
  readonly givenBack: number
  /** Delivered again while their handlers had them, or after these had ended; acknowledged without another run. */
  readonly repeated: number
}

/** What became of the messages that came in. */
export interface InboundCounters extends CountedInbound {
  /** Messages of which no handler has begun. */
  readonly waiting: number
  /** Messages with a handler that runs, or that waits for its next retry, its dead letter or its acknowledgement. */
  readonly running: number
  /** QoS 2 messages that the broker has not released yet (PUBREL). They count as received when it has. */
  readonly unreleased: number
  /** Bytes of all messages that are held: waiting, running, unreleased, and unread in `messages()`. */
  readonly queuedBytes: number
}

export class InboundCount {
  private readonly counts = {
    received: 0,
    handled: 0,
    failed: 0,
    unmatched: 0,
    deadLettered: 0,
    dropped: 0,
    givenBack: 0,
    repeated: 0,
  }

  get counted(): CountedInbound {
    return { ...this.counts }
  }

  received(): void {
    this.counts.received += 1
  }

  repeated(): void {
    this.counts.repeated += 1
  }

  /** @returns how many so far */
  unmatched(): number {
    this.counts.unmatched += 1
    return this.counts.unmatched
  }

  done(outcome: RunOutcome): void {
    if (outcome !== 'failed') this.counts[outcome] += 1
    else {
      this.counts.handled += 1
      this.counts.failed += 1
    }
  }
}

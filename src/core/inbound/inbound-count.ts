/** What happens to a message whose handler failed for the last time. */
export type FailurePolicy = 'ack' | 'disconnect' | { readonly deadLetter: string }

/** How one handler of a message ended. */
export type RunOutcome =
  | 'handled'
  /** It failed, and the message is acknowledged. */
  | 'failed'
  | 'deadLettered'
  /** It did not run, because it was dropped to make room for newer messages. */
  | 'dropped'
  /** The broker delivers the message again. */
  | 'givenBack'

/** Counters of incoming messages. */
export interface CountedInbound {
  readonly received: number
  /** Messages whose handlers have finished, or that have no handler. */
  readonly handled: number
  /** Part of `handled`: messages of which at least one handler failed. */
  readonly failed: number
  /** Part of `handled`: messages without a handler, not even one for unmatched messages. */
  readonly unmatched: number
  /** Messages of which at least one handler failed, and whose dead letter the broker has acknowledged. */
  readonly deadLettered: number
  /**
   * QoS 0 messages that `overflow` dropped, and messages that were not handled before the end of a shutdown and that the
   * broker does not store.
   */
  readonly dropped: number
  /** Unacknowledged QoS 1 messages, which the broker delivers again. Handlers may have started. */
  readonly givenBack: number
  /**
   * Redelivered messages (DUP) whose handlers are running or have finished, or that still wait for their PUBACK on the same
   * connection. Acknowledged without another run.
   */
  readonly repeated: number
}

/** Counters of incoming messages, with those that are not finished. */
export interface InboundCounters extends CountedInbound {
  /** Messages that wait for a handler. */
  readonly waiting: number
  /** Messages with a handler that runs, or that waits for a retry, a dead letter or an acknowledgement. */
  readonly running: number
  /** QoS 2 messages that the broker has not released with PUBREL. They count as received after that. */
  readonly unreleased: number
  /** Bytes of all messages that the client holds: waiting, running, unreleased, and unread in `messages()`. */
  readonly queuedBytes: number
  /**
   * How long the oldest unacknowledged QoS 1 message has been the oldest, in milliseconds, measured once per second; 0 if none
   * is that old. Acknowledgements leave in order of arrival, so it keeps those of all later messages back.
   */
  readonly oldestUnacknowledgedMs: number
}

export class InboundCount {
  readonly counts = {
    received: 0,
    handled: 0,
    failed: 0,
    unmatched: 0,
    deadLettered: 0,
    dropped: 0,
    givenBack: 0,
    repeated: 0,
  }

  /** Messages that a loop has dropped; several loops may drop one message. */
  private droppedByLoops: WeakSet<object> | undefined

  /** A loop has dropped a message that it had taken over from the dispatcher, where it counts as handled. */
  droppedByLoop(packet: object): void {
    this.droppedByLoops ??= new WeakSet()
    if (this.droppedByLoops.has(packet)) return
    this.droppedByLoops.add(packet)
    this.counts.handled -= 1
    this.counts.dropped += 1
  }

  done(outcome: RunOutcome): void {
    if (outcome !== 'failed') this.counts[outcome] += 1
    else {
      this.counts.handled += 1
      this.counts.failed += 1
    }
  }
}

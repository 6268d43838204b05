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
  /** It did not run, because its handler has handled a copy of the message (`dedupe`). */
  | 'duplicate'

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
   * QoS 0 messages that `overflow` dropped, and messages that the broker does not store and that were not handled before the
   * end of a shutdown, or for which there was no room.
   */
  readonly dropped: number
  /** Unacknowledged QoS 1 and 2 messages, which the broker delivers again. Handlers may have started. */
  readonly givenBack: number
  /**
   * Redelivered messages (DUP) whose handlers are running or have finished, or that still wait for their PUBACK on the same
   * connection. Acknowledged without another run.
   */
  readonly repeated: number
  /** Messages that every handler had handled before, according to `dedupe`. Acknowledged without another run. */
  readonly duplicates: number
  /** Runs of handlers with `dedupe` for a message without a key, so that a repeat would run again. */
  readonly withoutKey: number
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
  readonly scopes = new InboxScopes()
  readonly counts = {
    received: 0,
    handled: 0,
    failed: 0,
    unmatched: 0,
    deadLettered: 0,
    dropped: 0,
    givenBack: 0,
    repeated: 0,
    duplicates: 0,
    withoutKey: 0,
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

  /** A QoS 2 message was not stored. @param isOwed the broker delivers it again */
  leftUnreleased(isOwed: boolean): void {
    this.counts.received += 1
    this.done(isOwed ? 'givenBack' : 'dropped')
  }

  done(outcome: RunOutcome): void {
    if (outcome === 'duplicate') this.counts.duplicates += 1
    else if (outcome !== 'failed') this.counts[outcome] += 1
    else {
      this.counts.handled += 1
      this.counts.failed += 1
    }
  }
}

/** The messages that one handler remembers in an {@link InboxStore}. */
export interface InboxScope {
  readonly name: string
  readonly maxAgeMs: number
  readonly maxEntries: number
}

/**
 * Keeps the keys of handled messages for `dedupe`. If a call throws, rejects or takes longer than 30 s, the run has failed:
 * `retries` and `onFailure` apply.
 */
export interface InboxStore {
  /** Whether the message with this key was added, and is not older than `maxAgeMs`. */
  has(key: string, scope: InboxScope): boolean | Promise<boolean>
  /** Remembers a message that was handled, and removes the oldest of this scope beyond its limits. */
  add(key: string, scope: InboxScope): unknown
}

type InboxLimits = Pick<InboxScope, 'maxAgeMs' | 'maxEntries'>

/** The scopes in use, by store. Two handlers with one scope would take the messages of each other for repeats. */
class InboxScopes {
  private readonly used = new Map<InboxStore, Set<string>>()

  /** @returns false if a handler uses the scope already */
  take(store: InboxStore, name: string): boolean {
    const names = this.used.get(store) ?? new Set()
    if (names.has(name)) return false
    this.used.set(store, names.add(name))
    return true
  }

  release(store: InboxStore, name: string): void {
    const names = this.used.get(store)
    names?.delete(name)
    if (names?.size === 0) this.used.delete(store)
  }
}

/**
 * V8 links each table that a Set or Map outgrows to the next one. Once one of them has become old, all later ones survive
 * until the next full collection, with what they contained. So where entries come and go with every message, a copy
 * replaces the Set or Map after this many removals, and after at least as many as it has entries.
 */
export const RENEWED_AFTER = 64

/** Keys of messages that were handled, bounded by age and number. The oldest go first. */
export class HandledKeys implements InboxStore {
  private keys = new Map<string, number>()
  private removed = 0

  constructor(
    private readonly limits: InboxLimits,
    /** A clock that is never set back. */
    private readonly nowMs: () => number,
  ) {}

  get size(): number {
    return this.keys.size
  }

  has(key: string, { maxAgeMs }: InboxLimits = this.limits): boolean {
    const sinceMs = this.keys.get(key)
    return sinceMs !== undefined && this.nowMs() - sinceMs < maxAgeMs
  }

  add(key: string, { maxAgeMs, maxEntries }: InboxLimits = this.limits): void {
    const nowMs = this.nowMs()
    if (this.keys.delete(key)) this.removed += 1
    this.keys.set(key, nowMs)
    for (const [oldest, sinceMs] of this.keys) {
      if (this.keys.size <= maxEntries && nowMs - sinceMs < maxAgeMs) break
      this.keys.delete(oldest)
      this.removed += 1
    }
    if (this.removed < RENEWED_AFTER + this.keys.size) return
    this.keys = new Map(this.keys)
    this.removed = 0
  }
}

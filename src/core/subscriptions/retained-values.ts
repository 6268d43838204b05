/** Limits of a set of values. */
export interface RetainedLimits {
  readonly maxTopics: number
  readonly maxBytes: number
  /** What is dropped when a limit is reached: the topic that was updated longest ago, or the new topic. */
  readonly overflow: 'drop-oldest' | 'drop-newest'
}

/**
 * A change of a value. `removed` says why: `cleared` by an empty message, `gone` from the broker while this client was not
 * connected, `dropped` by the limits, or `invalid`: the new value cannot be decoded.
 */
export type RetainedChange<T> =
  | { readonly type: 'set'; readonly topic: string; readonly value: T }
  | {
      readonly type: 'removed'
      readonly topic: string
      readonly reason: 'cleared' | 'gone' | 'dropped' | 'invalid'
    }

/** The last values of the topics that match a filter, kept up to date. */
export interface Retained<T = unknown> extends AsyncDisposable {
  readonly filter: string
  /** Number of topics with a value. */
  readonly size: number
  /** Approximate memory use of the values, in bytes. */
  readonly bytes: number
  /** Values that `maxTopics` and `maxBytes` have dropped. */
  readonly dropped: number
  /**
   * Whether every retained message of the broker has arrived on this connection. False without a connection, where the values
   * of the last one stay readable.
   */
  readonly isComplete: boolean
  /** Returns the last value of a topic. */
  get(topic: string): T | undefined
  has(topic: string): boolean
  /** Iterates over the topics and their values, in order of their last update. */
  entries(): IterableIterator<[topic: string, value: T]>
  /**
   * Iterates over the changes from now on, until `close()` or the end of the client. A reader that is slow receives the last
   * change of each topic; at most `maxTopics` changes wait.
   */
  changes(): AsyncIterableIterator<RetainedChange<T>>
  /**
   * Resolves when `isComplete` is true.
   * @throws MqttError `SUBSCRIBE_REFUSED`, `CONNECTION_CLOSED`, `TIMEOUT` or `ABORTED`
   */
  whenComplete(wait?: { readonly signal?: AbortSignal; readonly timeoutMs?: number }): Promise<void>
  /** Unsubscribes, unless a handler has the same filter, and ends the iterators. The values stay readable. */
  close(): Promise<void>
}

interface Entry<T> {
  readonly value: T
  readonly bytes: number
  /** The synchronisation in which it was last seen. */
  readonly sync: number
  /** In this synchronisation, a message has arrived that may be the stored one. */
  hasCopy: boolean
}

/**
 * The last values of topics, within limits. While it is synchronised, it notes which topics have been seen, so that the end of
 * the synchronisation removes the values that the broker no longer has.
 */
export class RetainedValues<T> {
  /** In order of their last update. */
  private readonly entries = new Map<string, Entry<T>>()
  /** Number of the synchronisation. */
  sync = 0
  bytes = 0
  /** Values that the limits have dropped. */
  dropped = 0
  /** Topics whose stored message may have arrived in this synchronisation, and for which there was room. */
  found = 0

  constructor(private readonly limits: RetainedLimits) {}

  get size(): number {
    return this.entries.size
  }

  get(topic: string): T | undefined {
    return this.entries.get(topic)?.value
  }

  has(topic: string): boolean {
    return this.entries.has(topic)
  }

  *[Symbol.iterator](): IterableIterator<[topic: string, value: T]> {
    for (const [topic, { value }] of this.entries) yield [topic, value]
  }

  /** A synchronisation starts: the broker sends every retained message once, between live ones. */
  begin(): void {
    this.sync += 1
    this.found = 0
  }

  /** Every retained message has arrived. @returns the values that the broker no longer has, which are removed */
  end(): RetainedChange<T>[] {
    const gone = [...this.entries].filter(([, { sync }]) => sync !== this.sync).map(([topic]) => topic)
    return gone.flatMap(topic => this.remove(topic, 'gone'))
  }

  /**
   * The broker has sent the stored message of a topic, separately from live messages.
   * @returns whether it is of use: a message that arrived earlier in this synchronisation is as new, or newer
   */
  isNewCopy(topic: string): boolean {
    const entry = this.entries.get(topic)
    if (entry?.sync !== this.sync) return true
    if (!entry.hasCopy) this.found += 1
    entry.hasCopy = true
    return false
  }

  /**
   * @param mayBeCopy whether it may be the message that the broker has stored; false for a live one
   * @param sync the synchronisation in which the message arrived, because its validation may end in a later one
   */
  set(topic: string, value: T, bytes: number, mayBeCopy = true, sync = this.sync): RetainedChange<T>[] {
    const { maxTopics, maxBytes, overflow } = this.limits
    const known = this.entries.get(topic)
    const hadCopy = known?.sync === sync && known.hasCopy
    const hasCopy = mayBeCopy || hadCopy
    const isNew = sync === this.sync && hasCopy && !hadCopy
    // A value that is out of date is worse than none.
    const before = this.remove(topic, 'dropped')
    const isTooLarge = bytes > maxBytes
    const isFull = this.entries.size >= maxTopics || this.bytes + bytes > maxBytes
    if (isTooLarge || (isFull && overflow === 'drop-newest')) {
      this.dropped += 1
      return before
    }
    const changes: RetainedChange<T>[] = []
    while (this.entries.size >= maxTopics || this.bytes + bytes > maxBytes) {
      const [oldest] = this.entries.keys()
      if (oldest === undefined) break
      this.dropped += 1
      changes.push(...this.remove(oldest, 'dropped'))
    }
    // With a topic dropped for each one that arrives, there would be new topics for ever.
    if (isNew && changes.length === 0) this.found += 1
    this.entries.set(topic, { value, bytes, sync, hasCopy })
    this.bytes += bytes
    return [...changes, { type: 'set', topic, value }]
  }

  remove(
    topic: string,
    reason: Extract<RetainedChange<T>, { type: 'removed' }>['reason'],
  ): RetainedChange<T>[] {
    const entry = this.entries.get(topic)
    if (entry === undefined) return []
    this.entries.delete(topic)
    this.bytes -= entry.bytes
    return [{ type: 'removed', topic, reason }]
  }
}

interface Held {
  readonly size: number
  readonly bytes: number
  readonly dropped: number
}

/** Sums up what several caches hold. */
export function totalOf(caches: readonly Held[]) {
  const sum = (of: keyof Held): number => caches.reduce((all, cache) => all + cache[of], 0)
  return { caches: caches.length, topics: sum('size'), bytes: sum('bytes'), dropped: sum('dropped') }
}

/** Changes that wait for a reader: the last one of each topic, at most as many as allowed. */
export class PendingChanges<C extends { readonly topic: string }> {
  private readonly changes = new Map<string, C>()
  /** Changes that were dropped, because too many waited. A newer change of the same topic drops none. */
  dropped = 0

  constructor(private readonly limit: number) {}

  add(change: C): void {
    this.changes.delete(change.topic)
    this.changes.set(change.topic, change)
    if (this.changes.size <= this.limit) return
    const [oldest] = this.changes.keys()
    if (oldest !== undefined) this.changes.delete(oldest)
    this.dropped += 1
  }

  take(): C | undefined {
    const [first] = this.changes.values()
    if (first !== undefined) this.changes.delete(first.topic)
    return first
  }
}

/**
 * The retained messages of one filter, which the broker sends again for one receiver on MQTT 3.1.1. Every message with the
 * RETAIN flag is one of them.
 */
export class Refresh {
  /** @param upToId the handlers up to this id have received these messages before */
  constructor(
    private readonly matches: (topic: string) => boolean,
    private readonly upToId: number,
  ) {}

  isFor({ id }: { readonly id: number }, topic: string): boolean {
    return id > this.upToId || !this.matches(topic)
  }
}

/** Which handlers do not receive retained messages, because the broker sends them again for others. */
export class Refreshes<H extends { readonly id: number }> {
  private running: Set<Refresh> | undefined
  private receivers: WeakSet<H> | undefined

  /** Adds a handler for which messages are sent again. */
  addReceiver(handler: H): void {
    this.receivers ??= new WeakSet()
    this.receivers.add(handler)
  }

  add(refresh: Refresh): void {
    this.running ??= new Set()
    this.running.add(refresh)
  }

  delete(refresh: Refresh): void {
    this.running?.delete(refresh)
  }

  isReceiver(handler: H): boolean {
    return this.receivers?.has(handler) === true
  }

  /** Returns the handlers that receive a message with the RETAIN flag. */
  receiversOf(handlers: readonly H[], topic: string): readonly H[] {
    if (this.running === undefined) return handlers
    let left = handlers
    for (const refresh of this.running)
      left = left.filter(handler => this.isReceiver(handler) || refresh.isFor(handler, topic))
    return left
  }
}

import { closedError, describeCause, MqttError } from '../../core/errors.js'
import type {
  MessageStore,
  MessageToStore,
  StoredOutcome,
  StoredSettlement,
} from '../../core/outbound/message-store.js'
import {
  type Keeper,
  type OutboundMessage,
  Publication,
  type PublishTerms,
  weightOf,
} from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import { messageToSend } from '../../core/outbound/replay-rules.js'
import { type ResolvedStoring, type StorableMessage, storable } from '../../options/resolved-options.js'
import type { ClientEvents } from '../events.js'
import { type StoreStats, storeProblems } from '../report.js'
import { DeadlineTimer, IdleWaiters } from '../waits.js'
import { StoreCalls } from './store-calls.js'

interface StoringSession {
  readonly events: ClientEvents
  readonly stored: { publish(message: StorableMessage): Promise<PublishOutcome> } | undefined
  readonly options: { readonly storing: ResolvedStoring | undefined }
}

/** Publishes with `whenBlocked: 'store'`. @throws MqttError the same as `publish`, and `INVALID_OPTION` */
export function publishStored(
  { events, stored, options }: StoringSession,
  message: OutboundMessage,
  terms: PublishTerms = {},
): Promise<PublishOutcome> {
  const send = (observed: OutboundMessage): Promise<PublishOutcome> => {
    const checked = storable(observed, terms, options.storing)
    return stored === undefined ? Promise.reject(closedError()) : stored.publish(checked)
  }
  return events.publish.hasListeners ? events.publishing(message, 'message', send) : send(message)
}

/** Writes more messages with the capacity that publishes leave. */
export interface Filler {
  /** Whether a message waits for the link. */
  readonly isWaiting: boolean
  /** @param othersWait whether publishes wait for the link */
  fill(othersWait: boolean): void
}

/** Decides what follows from the outcome of a message. */
export interface KeptMessageOwner {
  ended(kept: KeptMessage, outcome: PublishOutcome): void
}

/** A message with `whenBlocked: 'store'` while it is in memory. */
export class KeptMessage implements Keeper {
  /** Receives the outcome of the call, until it has one. */
  caller: Publication | undefined
  /** Later messages of the same topic wait for it. */
  isBlocking = false
  /** It was sent and has no outcome yet. */
  isSent = false
  /** It was sent at least once. */
  wasSent = false
  /** Why it could not be stored. */
  failure: Error | undefined
  /** The broker responded before the message was in the store. */
  outcome: StoredOutcome | undefined
  /** Number of calls before it. */
  order = 0
  /** Time at which it was sent without being in the store. */
  sentMs = 0

  constructor(
    readonly stored: MessageToStore,
    private readonly owner: KeptMessageOwner,
    /** Set once it is in the store. */
    public position?: number,
  ) {}

  /** Size in memory. */
  get bytes(): number {
    return weightOf(this.stored)
  }

  /** Returns a publication that reports its outcome to the owner. */
  publication(nowMs: number): Publication {
    const publication = new Publication(messageToSend(this.stored, nowMs))
    publication.keeper = this
    return publication
  }

  ended(outcome: PublishOutcome): void {
    this.isSent = false
    this.owner.ended(this, outcome)
  }
}

/** Why a message that was sent is not in the store. */
export function fullError({ stored }: KeptMessage): Error {
  return new MqttError('NOT_SENT', `the message for "${stored.topic}" was sent, but the store is full`)
}

const UNSENT: ReadonlySet<StoredOutcome['status']> = new Set(['evicted', 'expired', 'set-aside'])
/** Failures of the store before this time do not affect the health. */
const RECENT_MS = 60_000

/** Counts and reports what happens to stored messages. */
export class StoreLedger {
  readonly calls = new StoreCalls()
  private readonly counts = { stored: 0, delivered: 0, evicted: 0, expired: 0, refused: 0, setAside: 0 }
  private failedWrites = 0
  private failedAtMs = Number.NEGATIVE_INFINITY

  constructor(
    private readonly store: MessageStore,
    private readonly events: ClientEvents,
    private readonly onSettled: ((settlement: StoredSettlement) => void) | undefined,
  ) {}

  get stats(): StoreStats {
    const { messages, bytes, oldestStoredAtMs, fullness } = this.store.contents
    const oldestMs = oldestStoredAtMs === undefined ? 0 : Math.max(0, Date.now() - oldestStoredAtMs)
    return { messages, bytes, fullness, oldestMs, ...this.counts, failedWrites: this.failedWrites }
  }

  /** The problems of the store, for `health`. */
  get problems(): string[] {
    return storeProblems(this.stats, performance.now() - this.failedAtMs < RECENT_MS)
  }

  /** Calls the store, and reports a failure. Never rejects. */
  async attempt(call: () => Promise<unknown>): Promise<void> {
    await this.calls.limited(call).catch((error: unknown) => this.failed(error))
  }

  /** Messages were in the store when it was opened. */
  found(messages: number): void {
    this.counts.stored += messages
  }

  added({ messageId, topic, payload }: MessageToStore): void {
    this.counts.stored += 1
    const { store, client } = this.events
    if (store.hasListeners) store.emit({ client, type: 'stored', messageId, topic, bytes: payload.length })
  }

  settled(settlement: StoredSettlement): void {
    const { outcome, topic } = settlement
    this.counts[outcome.status === 'set-aside' ? 'setAside' : outcome.status] += 1
    const { store, client, notice } = this.events
    if (UNSENT.has(outcome.status))
      notice.emit({ type: 'stored-message-ended', topic, status: outcome.status })
    if (store.hasListeners) store.emit({ client, type: 'settled', settlement })
    const { onListenerError } = this.events
    try {
      const result: unknown = this.onSettled?.(settlement)
      if (result instanceof Promise) result.catch(onListenerError)
    } catch (error) {
      onListenerError(error)
    }
  }

  repaired(text: string): void {
    this.events.notice.emit({ type: 'store-repaired', text })
  }

  failed(error: unknown): void {
    this.failedWrites += 1
    this.failedAtMs = performance.now()
    const { store, client, notice } = this.events
    notice.emit({ type: 'store-failed', why: describeCause(error) })
    if (store.hasListeners) store.emit({ client, type: 'failed', error })
  }
}

interface Commit {
  readonly position: number
  readonly stored: MessageToStore
  readonly outcome: StoredOutcome
}

/** Delay before a failed commit is repeated. */
const RETRY_MS = 1_000

/** Writes outcomes to the store, those of one turn of the event loop together. */
export class Commits {
  /** Resolves callers when all outcomes are in the store. */
  readonly idle = new IdleWaiters(() => this.open.size === 0)
  /** Not in the store yet, by position. */
  private readonly open = new Map<number, Commit>()
  private isCommitting = false
  private isScheduled = false
  private isStopped = false
  private readonly retry = new DeadlineTimer(() => this.commit())

  constructor(
    private readonly store: MessageStore,
    private readonly ledger: StoreLedger,
    private readonly onCommitted: () => void,
  ) {}

  get size(): number {
    return this.open.size
  }

  has(position: number): boolean {
    return this.open.has(position)
  }

  add(position: number, stored: MessageToStore, outcome: StoredOutcome): void {
    this.open.set(position, { position, stored, outcome })
    this.schedule()
  }

  /** The store has ended the message itself. */
  gone(position: number): void {
    this.open.delete(position)
    this.idle.check()
  }

  /** A failed commit is not repeated any more. */
  stop(): void {
    this.isStopped = true
    this.retry.stop()
  }

  private schedule(): void {
    if (this.isScheduled || this.isCommitting || this.retry.dueMs !== Number.POSITIVE_INFINITY) return
    this.isScheduled = true
    setImmediate(() => {
      this.isScheduled = false
      this.commit()
    })
  }

  private commit(): void {
    if (this.isCommitting || this.open.size === 0) return
    this.isCommitting = true
    const commits = [...this.open.values()]
    this.ledger.calls
      .limited(() => this.store.settle(commits.map(({ position, outcome }) => ({ position, outcome }))))
      .then(
        () => {
          this.isCommitting = false
          for (const commit of commits) this.committed(commit)
          if (this.open.size > 0) this.schedule()
          this.idle.check()
          this.onCommitted()
        },
        (error: unknown) => {
          this.isCommitting = false
          this.ledger.failed(error)
          if (!this.isStopped) this.retry.arm(performance.now() + RETRY_MS)
        },
      )
  }

  private committed(commit: Commit): void {
    const { position, stored, outcome } = commit
    // The store may have ended it in the meantime.
    if (this.open.get(position) !== commit) return
    this.open.delete(position)
    const { messageId, topic, storedAtMs } = stored
    this.ledger.settled({ messageId, topic, storedAtMs, settledAtMs: Date.now(), outcome })
  }
}

import { randomUUID } from 'node:crypto'
import { closedError, describeCause, isError } from '../../core/errors.js'
import type { StoreAddition, StoredSettlement } from '../../core/outbound/message-store.js'
import { Publication } from '../../core/outbound/outbound-message.js'
import type { DropReason, PublishOutcome } from '../../core/outbound/publish-outcome.js'
import {
  EarlyEnds,
  expiresAtMs,
  identified,
  isForNow,
  StoredTopics,
  storedOutcomeOf,
} from '../../core/outbound/replay-rules.js'
import type { ResolvedStoring, StorableMessage } from '../../options/resolved-options.js'
import type { ConnectionListener, MqttConnection } from '../connection/mqtt-connection.js'
import type { ClientEvents } from '../events.js'
import { DeadlineTimer, IdleWaiters, settlesWithin } from '../waits.js'
import type { Publisher } from './publisher.js'
import { Replay } from './replay.js'
import { StoreOpening } from './store-calls.js'
import { fullError, KeptMessage, StoreLedger } from './store-ledger.js'

/** Messages that wait to be written to the store. */
const MAX_ADDING = 20_000
const MAX_ADDING_BYTES = 67_108_864
/** How often messages that are too old are removed. */
const EXPIRE_MS = 60_000

/** The parts of a session that stored publishes work with. */
interface StoringSession {
  readonly connection: Pick<MqttConnection, 'attach'>
  readonly publisher: Publisher
  readonly events: ClientEvents
}

/** Publishes with `whenBlocked: 'store'`: sent at once if the link is free, and stored if they are not acknowledged soon. */
export class StoredPublishes implements ConnectionListener {
  readonly ledger: StoreLedger
  readonly replay: Replay
  private readonly publisher: Publisher
  private readonly topics = new StoredTopics()
  /** Sent, and not in the store, in the order of the calls. */
  private readonly direct = new Set<KeptMessage>()
  private readonly directTopics = new StoredTopics()
  private readonly lateTimer = new DeadlineTimer(() => this.storeLate())
  private readonly expireTimer = new DeadlineTimer(() => this.expire())
  private readonly adding = new Set<KeptMessage>()
  private addingBytes = 0
  private readonly idle = new IdleWaiters(() => this.adding.size === 0)
  private readonly early = new EarlyEnds(this.topics)
  private readonly opening: StoreOpening
  private start: Promise<void> | undefined
  private hasFailed = false
  private isClosed = false
  private calls = 0

  constructor(
    private readonly options: ResolvedStoring,
    session: StoringSession,
  ) {
    const { connection, publisher, events } = session
    const { store } = options
    this.ledger = new StoreLedger(store, events, options.onStoredSettled)
    this.replay = new Replay({ store, publisher, topics: this.topics, ledger: this.ledger }, this)
    this.opening = new StoreOpening(store, this.ledger, (...end) => this.gone(...end))
    this.publisher = publisher
    publisher.filler = this.replay
    // Attached before the publisher, which settles the publishes in flight when a connection ends.
    connection.attach(this)
  }

  /** Opens the store, if it is not open: after a failure too. @throws MqttError the same as `open` of the store */
  open(): Promise<void> {
    if (this.start === undefined || this.hasFailed) this.start = this.openStore()
    return this.start
  }

  private async openStore(): Promise<void> {
    this.hasFailed = false
    const messages = await this.opening.open().catch((error: unknown) => {
      this.hasFailed = true
      throw error
    })
    if (messages === undefined) return
    this.ledger.found(messages)
    this.topics.found(messages)
    if (messages > 0) this.replay.arrived()
    if (!this.isClosed) this.expireTimer.arm(performance.now() + EXPIRE_MS)
  }

  /** @throws MqttError if the message exceeds the limits that the broker sent in CONNACK */
  publish(message: StorableMessage): Promise<PublishOutcome> {
    const { outcomes } = this.publisher
    if (this.isClosed) return Promise.resolve(outcomes.dropAtOnce('closed'))
    const nowMs = Date.now()
    const kept = this.keptMessage(message, nowMs)
    kept.order = this.calls++
    const isSent = !this.topics.has(message.topic) && this.send(kept, nowMs)
    outcomes.begun += 1
    outcomes.pending += 1
    return new Promise(resolve => {
      kept.caller = new Publication(message, resolve)
      if (!isSent || this.options.storeAfterMs === 0) this.add(kept)
    })
  }

  /** The message was sent, and has an outcome. */
  ended(kept: KeptMessage, outcome: PublishOutcome): void {
    this.publisher.outcomes[kept.caller === undefined ? 'kept' : 'calling'] -= 1
    this.forgetDirect(kept)
    if (kept.position !== undefined) return this.replay.ended(kept, outcome)
    const end = isForNow(outcome) ? undefined : storedOutcomeOf(outcome)
    if (end !== undefined) {
      kept.outcome = end
      return this.settle(kept, outcome)
    }
    if (kept.failure !== undefined) return this.settle(kept, { status: 'lost', cause: kept.failure })
    if (!this.adding.has(kept)) this.add(kept)
    else this.block(kept)
  }

  connected(): void {
    this.replay.connected()
  }

  lost(): void {
    this.replay.lost()
  }

  /** Resolves when everything that is to be stored is stored. */
  async whenIdle(): Promise<void> {
    await this.idle.wait()
    await this.replay.commits.idle.wait()
  }

  /** Sends no more stored messages. Publishes are still sent or stored. */
  drain(): void {
    this.replay.stop()
  }

  /** Stores what is left, and closes the store. From now on publishes are `dropped: closed`. */
  async close(timeoutMs: number): Promise<void> {
    if (this.isClosed) return
    this.isClosed = true
    this.replay.stop()
    this.lateTimer.stop()
    this.expireTimer.stop()
    const startMs = performance.now()
    await settlesWithin(this.whenIdle(), timeoutMs)
    this.replay.commits.stop()
    const closed = this.ledger.attempt(() => this.opening.close())
    await settlesWithin(closed, Math.max(1, timeoutMs - (performance.now() - startMs)))
    for (const kept of this.adding) this.notStored(kept, 'closed', closedError())
    this.ledger.calls.stop()
  }

  private keptMessage(given: StorableMessage, nowMs: number): KeptMessage {
    const { message, messageId } = identified(given, randomUUID(), new Date(nowMs).toISOString())
    const expiryMs = expiresAtMs(message.properties, nowMs)
    // A copy, because the caller may use its buffer again as soon as the message is stored.
    const stored = { ...message, payload: Buffer.from(message.payload), messageId, storedAtMs: nowMs }
    return new KeptMessage(expiryMs === undefined ? stored : { ...stored, expiresAtMs: expiryMs }, this)
  }

  /** @returns whether the link can carry it now */
  private send(kept: KeptMessage, nowMs: number): boolean {
    if (!this.publisher.writeNow(kept.publication(nowMs), true)) return false
    kept.isSent = true
    kept.wasSent = true
    kept.sentMs = performance.now()
    this.publisher.outcomes.calling += 1
    this.direct.add(kept)
    this.directTopics.add(kept.stored.topic)
    this.lateTimer.arm(kept.sentMs + this.options.storeAfterMs)
    return true
  }

  private forgetDirect(kept: KeptMessage): void {
    if (this.direct.delete(kept)) this.directTopics.remove(kept.stored.topic)
  }

  private storeLate(): void {
    const { storeAfterMs } = this.options
    const nowMs = performance.now()
    for (const kept of this.direct) {
      if (kept.sentMs + storeAfterMs > nowMs) return this.lateTimer.arm(kept.sentMs + storeAfterMs)
      this.addNow(kept)
    }
  }

  /** Stores a message, after those of the same topic that were published before it. */
  private add(kept: KeptMessage): void {
    const { topic } = kept.stored
    if (this.directTopics.has(topic)) {
      for (const earlier of this.direct) {
        if (earlier.order >= kept.order) break
        if (earlier.stored.topic === topic) this.addNow(earlier)
      }
    }
    this.addNow(kept)
  }

  private addNow(kept: KeptMessage): void {
    this.forgetDirect(kept)
    const { adding } = this
    if (adding.size >= MAX_ADDING || this.addingBytes + kept.bytes > MAX_ADDING_BYTES)
      return this.notStored(kept, 'store-full', fullError(kept))
    adding.add(kept)
    this.addingBytes += kept.bytes
    if (!kept.isSent) this.block(kept)
    // Only a start tries again after a failure: otherwise each publish would.
    const call = (this.start ?? this.open()).then(() => this.options.store.add(kept.stored))
    this.ledger.calls
      .limited(() => call)
      .then(
        addition => {
          this.endAdding(kept)
          if ('position' in addition) this.added(kept, addition)
          else this.notStored(kept, 'store-full', fullError(kept))
        },
        (error: unknown) => {
          this.endAdding(kept)
          this.ledger.failed(error)
          this.notStored(kept, 'store-failed', isError(error) ? error : new Error(describeCause(error)))
          // After its time limit, the call may still succeed. Otherwise it has failed.
          call.then(
            addition => this.addedLate(kept, addition),
            () => {},
          )
        },
      )
  }

  private endAdding(kept: KeptMessage): void {
    if (this.adding.delete(kept)) this.addingBytes -= kept.bytes
    if (this.adding.size === 0) this.idle.check()
  }

  /** The message is in the store, although its caller was told that it is not. */
  private addedLate({ stored }: KeptMessage, addition: StoreAddition): void {
    if (!('position' in addition)) return
    this.ledger.added(stored)
    this.topics.add(stored.topic)
    this.replay.available({ ...stored, ...addition })
  }

  private added(kept: KeptMessage, addition: Extract<StoreAddition, { readonly position: number }>): void {
    const { stored, outcome, isSent } = kept
    const { position } = addition
    kept.position = position
    this.ledger.added(stored)
    const hasEnded = this.early.added(position, this.adding.size > 0)
    if (kept.caller !== undefined && isSent) this.publisher.outcomes.kept += 1
    this.settle(kept, { status: 'stored', messageId: stored.messageId })
    if (hasEnded) return this.unblock(kept)
    if (!isSent && outcome === undefined) return this.replay.available({ ...stored, ...addition })
    this.replay.claim(kept, position)
    if (outcome !== undefined) this.replay.end(kept, outcome)
  }

  /** The message could not be stored. If it was sent, the broker may still acknowledge it. */
  private notStored(kept: KeptMessage, reason: DropReason, cause: Error): void {
    kept.failure = cause
    this.unblock(kept)
    if (kept.isSent) return
    this.settle(kept, kept.wasSent ? { status: 'lost', cause } : { status: 'dropped', reason })
  }

  /** Later messages of the same topic must not overtake this one. */
  private block(kept: KeptMessage): void {
    kept.isBlocking = true
    this.topics.add(kept.stored.topic)
  }

  private unblock(kept: KeptMessage): void {
    if (kept.isBlocking) this.topics.remove(kept.stored.topic)
    kept.isBlocking = false
  }

  private settle(kept: KeptMessage, outcome: PublishOutcome): void {
    const { caller } = kept
    if (caller === undefined) return
    kept.caller = undefined
    const { outcomes } = this.publisher
    outcomes.pending -= 1
    if (kept.isSent) outcomes.calling -= 1
    outcomes.settle(caller, outcome)
  }

  /** The store has ended a message. */
  private gone(settlement: StoredSettlement, position: number): void {
    this.ledger.settled(settlement)
    if (this.replay.gone(position)) this.early.ended(position, settlement.topic, this.adding.size > 0)
  }

  private expire(): void {
    void this.ledger.attempt(() => this.options.store.expire(Date.now()))
    this.expireTimer.arm(performance.now() + EXPIRE_MS)
  }
}

import type { MessageStore, StoredMessage, StoredOutcome } from '../../core/outbound/message-store.js'
import { refusalOf } from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import {
  ENDS_CONNECTIONS,
  isForNow,
  Obstacles,
  ReplayShare,
  replayWindow,
  type StoredTopics,
  storedOutcomeOf,
} from '../../core/outbound/replay-rules.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { DeadlineTimer } from '../waits.js'
import type { Publisher } from './publisher.js'
import { Commits, KeptMessage, type KeptMessageOwner, type StoreLedger } from './store-ledger.js'

/** Messages that are read before the link can carry them. */
const READ_AHEAD = { messages: 256, bytes: 1_048_576 }
/** Largest payload of a message that is not read again after it was stored. */
const MAX_DIRECT_BYTES = 4_096
/** Bytes of stored messages that are sent and not acknowledged. */
const MAX_SENT_BYTES = 4_194_304
/** Outcomes that are not in the store yet. */
const MAX_UNCOMMITTED = 2_000
/** Delay before a failed read is repeated. */
const RETRY_MS = 1_000

/** The parts of stored publishes that a replay works with. */
export interface ReplayParts {
  readonly store: MessageStore
  readonly publisher: Publisher
  readonly topics: StoredTopics
  readonly ledger: StoreLedger
}

/** Sends the messages in the store, in order, with the capacity that other publishes leave. */
export class Replay implements ConnectionListener {
  private ahead: StoredMessage[] = []
  /** Index of the next message in `ahead`. */
  private next = 0
  /** Position of the last message that was read. */
  private cursor = 0
  private hasMore = false
  private isReading = false
  /** Counts the changes that make the result of a pending read out of date. */
  private rewinds = 0
  private arrivals = 0
  private readonly sent = new Map<number, KeptMessage>()
  private sentBytes = 0
  /** Positions in `ahead` that the store has ended. */
  private readonly overtaken = new Set<number>()
  readonly commits: Commits
  private share = new ReplayShare()
  private readonly obstacles = new Obstacles()
  private readonly pauseTimer: DeadlineTimer
  private pausedUntilMs = Number.NEGATIVE_INFINITY
  /** A stored message was acknowledged on this connection. */
  private hasProgress = false
  /** For sending one message alone: whether the connection has proved that it works. */
  private proof: 'missing' | 'awaited' | 'there' = 'missing'
  private isStopped = false

  constructor(
    private readonly parts: ReplayParts,
    private readonly owner: KeptMessageOwner,
  ) {
    this.commits = new Commits(parts.store, parts.ledger, () => this.wake())
    this.pauseTimer = new DeadlineTimer(() => this.wake())
  }

  /** Whether a message waits for the link. */
  get isWaiting(): boolean {
    return this.next < this.ahead.length || this.hasMore
  }

  /** A message that was not sent is in the store now. */
  available(message: StoredMessage): void {
    // A message that is sent soon need not be read from the store.
    const isSoon = this.parts.publisher.paced !== undefined && message.payload.length <= MAX_DIRECT_BYTES
    if (isSoon && this.hasReadAll && this.ahead.length - this.next < READ_AHEAD.messages) {
      this.ahead.push(message)
      this.cursor = message.position
    } else this.arrived()
    this.wake()
  }

  /** A message that was sent is in the store now. */
  claim(kept: KeptMessage, position: number): void {
    if (kept.isSent) this.track(kept, position)
    if (this.hasReadAll) this.cursor = position
    else this.arrived()
  }

  /** The store was opened with messages in it, or has a message that was not read. */
  arrived(): void {
    this.hasMore = true
    this.arrivals += 1
  }

  /** Writes messages. @param othersWait whether other publishes wait for the link */
  fill(othersWait: boolean): void {
    const { publisher } = this.parts
    this.share.offered(publisher.paced?.bytes ?? 0)
    while (this.maySend()) {
      const message = this.ahead[this.next]
      if (message === undefined) break
      if (!this.isDue(message)) {
        this.next += 1
        continue
      }
      if (!this.share.mayWrite(othersWait) || !this.write(message)) break
      this.next += 1
      this.share.wrote(othersWait, publisher.paced?.bytes ?? 0)
    }
    this.readAhead()
  }

  connected(): void {
    this.share = new ReplayShare()
    this.hasProgress = false
    this.proof = 'missing'
  }

  lost(): void {
    const { sent, obstacles, hasProgress, proof } = this
    const unsent = this.ahead[this.next]
    // A limit of the store may end the message before the next connection.
    if (unsent !== undefined) this.rewind(unsent.position)
    if (sent.size === 0 || hasProgress) return
    if (!obstacles.connectionEnded(proof === 'there' && sent.size === 1)) return
    const [first] = sent.values()
    if (first !== undefined) this.end(first, ENDS_CONNECTIONS)
  }

  /** A stored message that was sent has an outcome. */
  ended(kept: KeptMessage, outcome: PublishOutcome): void {
    const { position } = kept
    if (position === undefined || this.sent.get(position) !== kept) return
    if (outcome.status === 'acknowledged') {
      this.hasProgress = true
      this.obstacles.accepted(position)
    }
    const end = isForNow(outcome) && this.pause(position) ? undefined : storedOutcomeOf(outcome)
    if (end?.status === 'refused') this.parts.publisher.outcomes.noteRefusal(kept.stored.topic, end)
    if (end !== undefined) return this.end(kept, end)
    this.untrack(kept, position)
    this.parts.topics.add(kept.stored.topic)
    this.rewind(position)
  }

  /** A message has ended that is not sent any more. */
  end(kept: KeptMessage, outcome: StoredOutcome): void {
    if (kept.position === undefined) return
    this.untrack(kept, kept.position)
    this.overtake(kept.position)
    this.commits.add(kept.position, kept.stored, outcome)
  }

  /** The store has ended a message. @returns whether it was unsent until then */
  gone(position: number): boolean {
    const kept = this.sent.get(position)
    if (kept !== undefined) this.untrack(kept, position)
    const isOwn = kept !== undefined || this.commits.has(position)
    if (isOwn) this.commits.gone(position)
    else this.overtake(position)
    return !isOwn
  }

  /** It is not sent, although it was read, or a pending read may return it. */
  private overtake(position: number): void {
    const first = this.ahead[this.next]?.position ?? Number.POSITIVE_INFINITY
    if (position > this.cursor ? this.isReading : position >= first) this.overtaken.add(position)
  }

  /** Sends no more messages. Those that were sent may still be acknowledged. */
  stop(): void {
    this.isStopped = true
    this.pauseTimer.stop()
  }

  private get hasReadAll(): boolean {
    return !this.hasMore && !this.isReading
  }

  private wake(): void {
    if (!this.isStopped) this.parts.publisher.pump()
  }

  private maySend(): boolean {
    const { sent, obstacles, parts, commits } = this
    if (this.isStopped || performance.now() < this.pausedUntilMs) return false
    if (sent.size >= replayWindow(parts.publisher.inFlight.mostPending) || this.sentBytes >= MAX_SENT_BYTES)
      return false
    // Each uncommitted outcome is a repeat after a restart, so a failing disk must not let them accumulate.
    if (commits.size >= MAX_UNCOMMITTED) return false
    return !obstacles.sendsAlone || (sent.size === 0 && this.isProven())
  }

  /** A message that may cause connections to end is sent alone, on a connection that works. */
  private isProven(): boolean {
    if (this.proof === 'missing' && this.next < this.ahead.length) {
      this.proof = 'awaited'
      this.parts.publisher.roundTrip(isDone => {
        this.proof = isDone ? 'there' : 'missing'
        if (isDone) this.wake()
      })
    }
    return this.proof === 'there'
  }

  /** Whether a message that was read must be sent now. */
  private isDue(message: StoredMessage): boolean {
    const { position, expiresAtMs = Number.POSITIVE_INFINITY } = message
    if (this.overtaken.delete(position) || this.sent.has(position) || this.commits.has(position)) return false
    if (Date.now() < expiresAtMs) return true
    this.parts.topics.remove(message.topic)
    this.commits.add(position, message, { status: 'expired' })
    return false
  }

  /** @returns false if the link cannot carry it now */
  private write(message: StoredMessage): boolean {
    const { publisher, topics } = this.parts
    const kept = new KeptMessage(message, this.owner, message.position)
    try {
      if (!publisher.writeNow(kept.publication(Date.now()), false)) return false
      publisher.outcomes.kept += 1
      kept.isSent = true
      this.track(kept, message.position)
    } catch (error) {
      const outcome = refusalOf(error)
      publisher.outcomes.noteRefusal(message.topic, outcome)
      this.commits.add(message.position, message, outcome)
    }
    topics.remove(message.topic)
    return true
  }

  private track(kept: KeptMessage, position: number): void {
    this.sent.set(position, kept)
    this.sentBytes += kept.stored.payload.length
  }

  private untrack(kept: KeptMessage, position: number): void {
    if (this.sent.delete(position)) this.sentBytes -= kept.stored.payload.length
  }

  /** Reads again from this position. */
  private rewind(position: number): void {
    this.cursor = Math.min(this.cursor, position - 1)
    this.ahead = []
    this.next = 0
    this.hasMore = true
    this.rewinds += 1
    this.overtaken.clear()
  }

  /** @returns false if the message is given up */
  private pause(position: number): boolean {
    const after = this.obstacles.refused(position)
    if (after.isGivenUp) return false
    const untilMs = performance.now() + after.pauseMs
    this.pausedUntilMs = Math.max(this.pausedUntilMs, untilMs)
    this.pauseTimer.arm(untilMs)
    return true
  }

  private readAhead(): void {
    if (!this.hasMore || this.isReading || this.isStopped) return
    if (this.ahead.length - this.next > READ_AHEAD.messages / 2) return
    this.isReading = true
    const { rewinds, arrivals } = this
    this.parts.ledger.calls
      .limited(() => this.parts.store.read(this.cursor, READ_AHEAD))
      .then(
        messages => {
          this.isReading = false
          if (rewinds === this.rewinds) this.took(messages, arrivals)
          this.wake()
        },
        (error: unknown) => {
          this.isReading = false
          if (this.isStopped) return
          this.parts.ledger.failed(error)
          this.pausedUntilMs = performance.now() + RETRY_MS
          this.pauseTimer.arm(this.pausedUntilMs)
        },
      )
  }

  private took(messages: readonly StoredMessage[], arrivals: number): void {
    if (messages.length === 0 && arrivals === this.arrivals) this.hasMore = false
    this.ahead = [...this.ahead.slice(this.next), ...messages]
    this.next = 0
    this.cursor = messages.at(-1)?.position ?? this.cursor
    for (const position of this.overtaken) if (position > this.cursor) this.overtaken.delete(position)
  }
}

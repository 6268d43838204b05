import {
  exceeds,
  fullnessOf,
  isRejected,
  type MessageToStore,
  MOST_OUTCOMES_READ,
  type StoreAddition,
  type StoreContents,
  type StoredMessage,
  type StoredOutcome,
  type StoredOutcomeQuery,
  type StoredSettlement,
  type StoreLimits,
  type StoreReadLimit,
  storedBytes,
  storedExpiry,
} from '../core/outbound/message-store.js'
import type { StoreConnection } from './store-connection.js'
import { Contradiction, isDamage, isFull, storeError, type WriteResult } from './store-errors.js'
import { messageIn, numberIn, type Row, recordOf, settlementIn } from './store-records.js'
import type { RecordHead, StoreState, StoreTables } from './store-tables.js'

/** A call that changes the store. Calls that arrive together share one commit. */
export type StoreWrite =
  | { readonly kind: 'add'; readonly message: MessageToStore }
  | {
      readonly kind: 'settle'
      readonly settlements: readonly { readonly position: number; readonly outcome: StoredOutcome }[]
    }

/** What is reported to the listener. */
export interface ToldSettlement {
  readonly settlement: StoredSettlement
  readonly position: number
}

const MOST_SET_ASIDE = 1_000
const MOST_EXPIRED_AT_ONCE = 1_000
/** Records read at once, since their sizes are known only then. */
const ROWS_AT_ONCE = 100

/** A file of messages. Every call blocks until the disk has completed it, so the file is used in a separate thread. */
export class StoreFile {
  /** Messages that have ended since the last `takeTold`, except those that a call ended. */
  private told: ToldSettlement[] = []
  private oldest: RecordHead | undefined
  /** The current transaction removes messages, and not only adds some. */
  private hasRemoved = false
  private state: StoreState

  constructor(
    private readonly connection: StoreConnection<StoreTables, StoreState>,
    private readonly limits: StoreLimits,
    nowMs: number,
  ) {
    this.state = connection.open()
    this.settleRepair(nowMs)
    this.oldest = this.guarded(nowMs, tables => tables.firstHead())
  }

  get contents(): StoreContents {
    const { messages, bytes, setAside } = this.state
    const oldest = this.oldest === undefined ? {} : { oldestStoredAtMs: this.oldest.storedAtMs }
    return { messages, bytes, fullness: fullnessOf(this.state, this.limits), ...oldest, setAside }
  }

  takeTold(): ToldSettlement[] {
    const { told } = this
    this.told = []
    return told
  }

  takeRepairs(): string[] {
    return this.connection.takeRepairs()
  }

  /** Writes all of them in one commit. On a full disk, settled messages are still removed, because that frees space. */
  write(writes: readonly StoreWrite[], nowMs: number): WriteResult<StoreAddition | undefined>[] {
    try {
      return this.commit(nowMs, tables => writes.map(write => this.apply(tables, write, nowMs)))
    } catch (error) {
      const rejection = { error: storeError(this.connection.title, error) }
      if (!isFull(error) || writes.every(({ kind }) => kind === 'settle')) return writes.map(() => rejection)
      return writes.map(write =>
        write.kind === 'add' ? rejection : (this.write([write], nowMs)[0] ?? rejection),
      )
    }
  }

  read(after: number, limit: StoreReadLimit, nowMs: number): StoredMessage[] {
    const found: StoredMessage[] = []
    let bytes = 0
    let position = after
    for (;;) {
      const count = Math.min(ROWS_AT_ONCE, limit.messages - found.length)
      if (count <= 0) return found
      const rows = this.guarded(nowMs, tables => tables.rowsAfter(position, count))
      for (const row of rows) {
        position = Math.max(position + 1, numberIn(row, 'position'))
        const message = messageIn(row)
        if (message === undefined) {
          this.setAside(row, nowMs)
          continue
        }
        bytes += numberIn(row, 'bytes')
        if (found.length > 0 && bytes > limit.bytes) return found
        found.push(message)
      }
      if (rows.length === count) continue
      this.verifyCount(nowMs)
      return found
    }
  }

  /** A damaged page can hide records without an error of SQLite. */
  private verifyCount(nowMs: number): void {
    this.guarded(nowMs, tables => {
      if (tables.countedState().messages !== this.state.messages)
        throw new Contradiction('it has fewer or more records than were stored')
    })
  }

  /** Ends some of the messages that are due. Returns how many, and whether there may be more. */
  expireSome(untilMs: number, nowMs: number): { readonly count: number; readonly isMore: boolean } {
    const due = this.guarded(nowMs, tables => tables.headsDue(untilMs, MOST_EXPIRED_AT_ONCE))
    if (due.length > 0)
      this.commit(nowMs, tables => {
        for (const head of due) this.end(tables, head, { status: 'expired' }, nowMs)
      })
    return { count: due.length, isMore: due.length === MOST_EXPIRED_AT_ONCE }
  }

  outcomes({ messageId, limit = MOST_OUTCOMES_READ }: StoredOutcomeQuery, nowMs: number): StoredSettlement[] {
    return this.guarded(nowMs, tables => tables.outcomes(messageId, limit)).map(settlementIn)
  }

  close(): void {
    this.connection.close()
  }

  private apply(
    tables: StoreTables,
    write: StoreWrite,
    nowMs: number,
  ): WriteResult<StoreAddition | undefined> {
    if (write.kind === 'add') return { value: this.add(tables, write.message, nowMs) }
    for (const { position, outcome } of write.settlements) {
      const head = tables.head(position)
      if (head !== undefined) this.remove(tables, head, outcome, nowMs)
    }
    return { value: undefined }
  }

  private add(tables: StoreTables, message: MessageToStore, nowMs: number): StoreAddition {
    const bytes = storedBytes(message)
    if (isRejected(bytes, this.state, this.limits)) return { rejected: 'full' }
    while (exceeds(bytes, this.state, this.limits)) {
      const first = tables.firstHead()
      if (first === undefined) this.state = tables.countedState()
      else this.end(tables, first, { status: 'evicted' }, nowMs)
    }
    const position = this.state.nextPosition
    this.state = {
      ...this.state,
      nextPosition: position + 1,
      messages: this.state.messages + 1,
      bytes: this.state.bytes + bytes,
    }
    const expiresAtMs = storedExpiry(message, this.limits.maxAgeMs)
    tables.addMessage(recordOf(message, position, expiresAtMs))
    return expiresAtMs === undefined ? { position } : { position, expiresAtMs }
  }

  private end(tables: StoreTables, head: RecordHead, outcome: StoredOutcome, nowMs: number): void {
    this.told.push({ settlement: this.remove(tables, head, outcome, nowMs), position: head.position })
  }

  private remove(
    tables: StoreTables,
    head: RecordHead,
    outcome: StoredOutcome,
    nowMs: number,
  ): StoredSettlement {
    const { position, messageId, topic, storedAtMs, bytes } = head
    this.hasRemoved = true
    tables.deleteMessage(position)
    const messages = Math.max(0, this.state.messages - 1)
    this.state = {
      ...this.state,
      messages,
      bytes: messages === 0 ? 0 : Math.max(0, this.state.bytes - bytes),
    }
    const settlement = { messageId, topic, storedAtMs, settledAtMs: nowMs, outcome }
    tables.addOutcome(settlement)
    return settlement
  }

  /** If this fails, the next read tries again. */
  private setAside(row: Row, nowMs: number): void {
    const position = numberIn(row, 'position')
    let isRepeated = false
    try {
      this.commit(nowMs, tables => {
        const head = isDamagedAt(tables, position) ? tables.head(position) : undefined
        if (head === undefined) {
          // The repair has counted it.
          if (isRepeated) return
          isRepeated = true
          throw new Contradiction('a record is not where its position says')
        }
        tables.setAside(position, nowMs)
        tables.trimSetAside(MOST_SET_ASIDE)
        this.end(tables, head, { status: 'set-aside' }, nowMs)
        this.state = { ...this.state, setAside: this.state.setAside + 1 }
      })
    } catch (error) {
      if (!isFull(error)) throw error
    }
  }

  private commit<T>(nowMs: number, work: (tables: StoreTables) => T): T {
    return this.guarded(nowMs, tables => {
      try {
        return this.transaction(tables, work)
      } catch (error) {
        if (!isFull(error)) throw error
        tables.checkpoint()
        return this.transaction(tables, work)
      }
    })
  }

  /** A position is never used again, not even that of a message that was not stored. */
  private transaction<T>(tables: StoreTables, work: (tables: StoreTables) => T): T {
    const before = this.state
    const toldBefore = this.told.length
    this.hasRemoved = false
    try {
      tables.begin()
      const result = work(tables)
      if (this.hasRemoved) tables.trimOutcomes(this.limits.maxOutcomes)
      tables.saveState(this.state)
      const isOldestKnown = this.oldest !== undefined && !this.hasRemoved
      const oldest = isOldestKnown ? this.oldest : tables.firstHead()
      tables.commit()
      this.oldest = oldest
      return result
    } catch (error) {
      tables.rollback()
      this.state = { ...before, nextPosition: this.state.nextPosition }
      this.told.length = toldBefore
      throw error
    }
  }

  /** Runs `work`. If the file is damaged, it is repaired, and `work` runs again. */
  private guarded<T>(nowMs: number, work: (tables: StoreTables) => T): T {
    try {
      return this.connection.run(work)
    } catch (error) {
      if (!isDamage(error)) throw error
      this.state = this.connection.repair(this.state)
      this.settleRepair(nowMs)
      return this.connection.run(work)
    }
  }

  /** Records the messages that a repair could not read. */
  private settleRepair(nowMs: number): void {
    const lost = this.connection.takeLost()
    if (lost === 0) return
    const settlement = {
      messageId: '',
      topic: '',
      storedAtMs: 0,
      settledAtMs: nowMs,
      outcome: { status: 'set-aside' },
    } as const
    this.connection.run(tables =>
      this.transaction(tables, () => {
        this.hasRemoved = true
        for (let index = 0; index < lost; index += 1) {
          tables.addOutcome(settlement)
          this.told.push({ settlement, position: 0 })
        }
        this.state = { ...this.state, setAside: this.state.setAside + lost }
      }),
    )
  }
}

/** A damaged record may have the position of another one. */
function isDamagedAt(tables: StoreTables, position: number): boolean {
  const row = tables.row(position)
  return row !== undefined && messageIn(row) === undefined
}

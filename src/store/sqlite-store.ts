import {
  type MessageStore,
  type MessageToStore,
  NOTHING_STORED,
  type StoreAddition,
  type StoreContents,
  type StoredMessage,
  type StoredOutcome,
  type StoredOutcomeQuery,
  type StoredSettlement,
  type StoreListener,
  type StoreReadLimit,
  storeClosed,
  storedBytes,
  storeOpen,
} from '../core/outbound/message-store.js'
import { type ResolvedSqlite, resolveSqlite, type SqliteStoreOptions } from '../options/client-options.js'
import { ThreadCalls } from './thread-calls.js'
import type { StoreCalls, StoreReport } from './worker-protocol.js'

/**
 * Returns a store in an SQLite file, for the option `store` of a connection. A separate thread reads and writes the file.
 * @param file path of the file, which is created if it does not exist; its folder must exist
 * @throws MqttError `INVALID_OPTION`
 */
export function sqliteStore(file: string, options: SqliteStoreOptions = {}): MessageStore {
  return new SqliteStore(resolveSqlite(file, options))
}

/** Limits of the messages that wait for the disk, so that a slow disk does not fill the memory. */
const MOST_WAITING = 100_000
const MOST_WAITING_BYTES = 134_217_728

class SqliteStore implements MessageStore {
  contents: StoreContents = NOTHING_STORED
  private calls: ThreadCalls<StoreCalls, StoreReport> | undefined
  private isOpen = false
  private waiting = 0
  private waitingBytes = 0

  constructor(private readonly options: ResolvedSqlite) {}

  async open(listener: StoreListener): Promise<StoreContents> {
    if (this.calls !== undefined) throw storeOpen(this.name)
    const { timeoutMs, ...settings } = this.options
    const calls = new ThreadCalls<StoreCalls, StoreReport>('store-worker.js', this.name, timeoutMs, report =>
      this.take(report, listener),
    )
    this.calls = calls
    try {
      await calls.call('open', { settings }, Date.now())
      this.isOpen = true
      return this.contents
    } catch (error) {
      this.calls = undefined
      await calls.end()
      throw error
    }
  }

  async add(message: MessageToStore): Promise<StoreAddition> {
    const bytes = storedBytes(message)
    if (
      this.waiting >= MOST_WAITING ||
      this.waitingBytes + bytes > MOST_WAITING_BYTES + this.firstBytes(bytes)
    )
      return { rejected: 'full' }
    this.waiting += 1
    this.waitingBytes += bytes
    try {
      // A copy: the caller may change its buffer, and a small Buffer is part of a larger one that would be sent with it.
      return await this.call('add', { message: { ...message, payload: new Uint8Array(message.payload) } })
    } finally {
      this.waiting -= 1
      this.waitingBytes -= bytes
    }
  }

  async read(after: number, limit: StoreReadLimit): Promise<readonly StoredMessage[]> {
    const messages = await this.call('read', { after, limit })
    return Array.from(messages, withBuffers)
  }

  async settle(
    settlements: readonly { readonly position: number; readonly outcome: StoredOutcome }[],
  ): Promise<void> {
    if (this.isOpen && settlements.length === 0) return
    await this.call('settle', { settlements })
  }

  expire(nowMs: number): Promise<number> {
    return this.call('expire', { untilMs: nowMs, ended: 0 })
  }

  async outcomes(query: StoredOutcomeQuery = {}): Promise<readonly StoredSettlement[]> {
    return Array.from(await this.call('outcomes', { query }))
  }

  async close(): Promise<void> {
    const { calls } = this
    if (calls === undefined) return
    this.isOpen = false
    try {
      await calls.call('close', {}, Date.now())
    } finally {
      await calls.end()
      this.calls = undefined
    }
  }

  private get name(): string {
    return `the store ${this.options.file}`
  }

  /** A single message may be larger than the limit. */
  private firstBytes(bytes: number): number {
    return this.waiting === 0 ? bytes : 0
  }

  private async call<K extends keyof StoreCalls>(
    kind: K,
    given: StoreCalls[K]['given'],
  ): Promise<StoreCalls[K]['result']> {
    if (this.calls === undefined || !this.isOpen) throw storeClosed(this.name)
    return this.calls.call(kind, given, Date.now())
  }

  private take({ contents, told, repairs }: StoreReport, listener: StoreListener): void {
    this.contents = contents
    for (const { settlement, position } of told) listener.settled(settlement, position)
    for (const repair of repairs) listener.repaired?.(repair)
  }
}

/** The thread returns bytes as a Uint8Array, even if they were sent as a Buffer. */
function withBuffers({ properties, ...message }: StoredMessage): StoredMessage {
  const correlationData = properties?.correlationData
  if (properties === undefined) return message
  if (correlationData === undefined) return { ...message, properties }
  return { ...message, properties: { ...properties, correlationData: Buffer.from(correlationData) } }
}

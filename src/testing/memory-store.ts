import { MqttError } from '../core/errors.js'
import { HandledKeys, type InboxScope, type InboxStore } from '../core/inbound/inbound-count.js'
import {
  exceeds,
  fullnessOf,
  isRejected,
  type MessageStore,
  type MessageToStore,
  MOST_OUTCOMES_READ,
  type StoreAddition,
  type StoreContents,
  type StoredMessage,
  type StoredOutcome,
  type StoredOutcomeQuery,
  type StoredSettlement,
  type StoreLimits,
  type StoreListener,
  type StoreReadLimit,
  storeClosed,
  storedBytes,
  storedExpiry,
  storeOpen,
} from '../core/outbound/message-store.js'
import { resolveStoreOptions, type StoreOptions } from '../options/client-options.js'

/** A store in memory. */
export interface MemoryStore extends MessageStore {
  /** Every call that reads or writes rejects with `STORE_FAILED` and this cause, until it is called with `undefined`. */
  failWith(cause: Error | undefined): void
}

/**
 * Returns a store in memory, for tests. Its messages and its journal stay after `close`, so that a test can restart a client
 * on the same store. They end with the process.
 * @throws MqttError `INVALID_OPTION`
 */
export function memoryStore(options: StoreOptions = {}): MemoryStore {
  return new MessagesInMemory(resolveStoreOptions('memoryStore options', options))
}

const NAME = 'the store in memory'

class MessagesInMemory implements MemoryStore {
  private readonly messages = new Map<number, StoredMessage>()
  private readonly journal: StoredSettlement[] = []
  private bytes = 0
  private last = 0
  private listener: StoreListener | undefined
  private failure: Error | undefined

  constructor(private readonly limits: StoreLimits) {}

  get contents(): StoreContents {
    const [first] = this.messages.values()
    const oldest = first === undefined ? {} : { oldestStoredAtMs: first.storedAtMs }
    const held = { messages: this.messages.size, bytes: this.bytes }
    return { ...held, fullness: fullnessOf(held, this.limits), ...oldest, setAside: 0 }
  }

  failWith(cause: Error | undefined): void {
    this.failure = cause
  }

  async open(listener: StoreListener): Promise<StoreContents> {
    if (this.listener !== undefined) throw storeOpen(NAME)
    this.throwFailure()
    this.listener = listener
    return this.contents
  }

  async add(message: MessageToStore): Promise<StoreAddition> {
    this.assertUsable()
    const bytes = storedBytes(message)
    if (isRejected(bytes, this.contents, this.limits)) return { rejected: 'full' }
    while (exceeds(bytes, this.contents, this.limits)) this.endFirst({ status: 'evicted' })
    this.last += 1
    const expiresAtMs = storedExpiry(message, this.limits.maxAgeMs)
    this.messages.set(this.last, {
      ...message,
      payload: Uint8Array.from(message.payload),
      ...(message.properties === undefined ? {} : { properties: copyOf(message.properties) }),
      ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
      position: this.last,
    })
    this.bytes += bytes
    return { position: this.last, ...(expiresAtMs === undefined ? {} : { expiresAtMs }) }
  }

  async read(after: number, limit: StoreReadLimit): Promise<readonly StoredMessage[]> {
    this.assertUsable()
    const found: StoredMessage[] = []
    let bytes = 0
    for (const message of this.messages.values()) {
      if (message.position <= after) continue
      bytes += storedBytes(message)
      if (found.length >= limit.messages || (found.length > 0 && bytes > limit.bytes)) break
      found.push({ ...message, payload: Uint8Array.from(message.payload) })
    }
    return found
  }

  async settle(
    settlements: readonly { readonly position: number; readonly outcome: StoredOutcome }[],
  ): Promise<void> {
    this.assertUsable()
    for (const { position, outcome } of settlements) this.end(position, outcome)
  }

  async expire(nowMs: number): Promise<number> {
    this.assertUsable()
    const due = [...this.messages.values()].filter(
      ({ expiresAtMs }) => expiresAtMs !== undefined && expiresAtMs <= nowMs,
    )
    for (const { position } of due) this.tell(position, this.end(position, { status: 'expired' }))
    return due.length
  }

  async outcomes({
    messageId,
    limit = MOST_OUTCOMES_READ,
  }: StoredOutcomeQuery = {}): Promise<readonly StoredSettlement[]> {
    this.assertUsable()
    return this.journal
      .filter(line => messageId === undefined || line.messageId === messageId)
      .slice(0, limit)
  }

  async close(): Promise<void> {
    this.listener = undefined
  }

  private endFirst(outcome: StoredOutcome): void {
    const [position = 0] = this.messages.keys()
    this.tell(position, this.end(position, outcome))
  }

  private end(position: number, outcome: StoredOutcome): StoredSettlement | undefined {
    const message = this.messages.get(position)
    if (message === undefined) return undefined
    this.messages.delete(position)
    this.bytes -= storedBytes(message)
    const { messageId, topic, storedAtMs } = message
    const settlement = { messageId, topic, storedAtMs, settledAtMs: Date.now(), outcome }
    this.journal.unshift(settlement)
    this.journal.length = Math.min(this.journal.length, this.limits.maxOutcomes)
    return settlement
  }

  private tell(position: number, settlement: StoredSettlement | undefined): void {
    if (settlement !== undefined) this.listener?.settled(settlement, position)
  }

  private assertUsable(): void {
    if (this.listener === undefined) throw storeClosed(NAME)
    this.throwFailure()
  }

  private throwFailure(): void {
    const cause = this.failure
    if (cause !== undefined) throw new MqttError('STORE_FAILED', `${NAME}: ${cause.message}`, { cause })
  }
}

/** `structuredClone` turns a Buffer into a Uint8Array. */
function copyOf(
  properties: NonNullable<MessageToStore['properties']>,
): NonNullable<MessageToStore['properties']> {
  const { correlationData, ...others } = properties
  const copied = structuredClone(others)
  return correlationData === undefined ? copied : { ...copied, correlationData: Buffer.from(correlationData) }
}

/** An inbox in memory. */
export interface MemoryInbox extends InboxStore {
  /** Every call throws `STORE_FAILED` with this cause, until it is called with `undefined`. */
  failWith(cause: Error | undefined): void
}

/**
 * Returns an inbox in memory for `dedupe.store`, for tests. Its keys stay until it is no longer used, so that a test can restart
 * a client on the same inbox.
 */
export function memoryInbox(): MemoryInbox {
  return new KeysInMemory()
}

class KeysInMemory implements MemoryInbox {
  private readonly scopes = new Map<string, HandledKeys>()
  private failure: Error | undefined

  failWith(cause: Error | undefined): void {
    this.failure = cause
  }

  has(key: string, scope: InboxScope): boolean {
    return this.keysOf(scope).has(key, scope)
  }

  add(key: string, scope: InboxScope): void {
    this.keysOf(scope).add(key, scope)
  }

  private keysOf(scope: InboxScope): HandledKeys {
    const { failure: cause } = this
    if (cause !== undefined)
      throw new MqttError('STORE_FAILED', `the inbox in memory: ${cause.message}`, { cause })
    const keys = this.scopes.get(scope.name) ?? new HandledKeys(scope, () => performance.now())
    this.scopes.set(scope.name, keys)
    return keys
  }
}

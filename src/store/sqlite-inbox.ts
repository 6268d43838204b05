import { MqttError } from '../core/errors.js'
import type { InboxScope, InboxStore } from '../core/inbound/inbound-count.js'
import { type ResolvedInbox, resolveInbox, type SqliteInboxOptions } from '../options/client-options.js'
import { ThreadCalls } from './thread-calls.js'
import type { InboxCalls, InboxReport } from './worker-protocol.js'

/** An {@link InboxStore} in an SQLite file. */
export interface SqliteInbox extends InboxStore {
  /** @throws MqttError as `open`, and `STORE_FAILED` */
  has(key: string, scope: InboxScope): Promise<boolean>
  /** Resolves when the key is durable. @throws MqttError as `open`, and `STORE_FAILED`: the key was not added */
  add(key: string, scope: InboxScope): Promise<void>
  /**
   * Opens the file. The first `has` or `add` does it as well; call this method to find out at the start of the process.
   * @throws MqttError `STORE_LOCKED`, `STORE_VERSION`, `STORE_CORRUPT` or `STORE_FAILED`
   */
  open(): Promise<void>
  /**
   * Completes the pending calls and closes the file. Optional: the file is complete after every call, and an inbox without
   * pending calls does not keep the process alive. The next call opens it again.
   */
  close(): Promise<void>
}

/**
 * Returns a store for `dedupe` in an SQLite file, so that handlers recognise repeats after a restart. Several handlers can
 * share it. A separate thread reads and writes the file. What it repairs is reported with `process.emitWarning`.
 * @param file path of the file, which is created if it does not exist; its folder must exist
 * @throws MqttError `INVALID_OPTION`
 */
export function sqliteInbox(file: string, options: SqliteInboxOptions = {}): SqliteInbox {
  return new InboxInFile(resolveInbox(file, options))
}

/** Calls that wait for the disk. */
const MOST_WAITING = 100_000
/** Delay after which a file that could not be opened is opened again. */
const REOPEN_MS = 1_000

type Calls = ThreadCalls<InboxCalls, InboxReport>

class InboxInFile implements SqliteInbox {
  private opening: Promise<Calls> | undefined
  /** When the last attempt to open the file failed. */
  private failedAtMs = Number.POSITIVE_INFINITY
  private closing: Promise<void> | undefined
  private waiting = 0

  constructor(private readonly options: ResolvedInbox) {}

  has(key: string, scope: InboxScope): Promise<boolean> {
    return this.call('has', key, scope)
  }

  add(key: string, scope: InboxScope): Promise<void> {
    return this.call('add', key, scope)
  }

  async open(): Promise<void> {
    if (this.failedAtMs !== Number.POSITIVE_INFINITY) this.forget()
    await this.opened()
  }

  async close(): Promise<void> {
    const { opening } = this
    if (opening === undefined) return this.closing
    this.forget()
    this.closing = this.end(opening)
    return this.closing
  }

  private async call<K extends 'has' | 'add'>(
    kind: K,
    key: string,
    { name, maxAgeMs, maxEntries }: InboxScope,
  ): Promise<InboxCalls[K]['result']> {
    if (this.waiting >= MOST_WAITING)
      throw new MqttError('STORE_FAILED', `${this.title}: ${MOST_WAITING} calls wait for the disk`)
    this.waiting += 1
    try {
      const calls = await this.opened()
      return await calls.call(kind, { scope: name, key, maxAgeMs, maxEntries }, Date.now())
    } finally {
      this.waiting -= 1
    }
  }

  /** After a failure, all calls receive the same error for a while, so that each does not start a thread. */
  private opened(): Promise<Calls> {
    if (performance.now() - this.failedAtMs >= REOPEN_MS) this.forget()
    this.opening ??= this.start()
    return this.opening
  }

  private forget(): void {
    this.opening = undefined
    this.failedAtMs = Number.POSITIVE_INFINITY
  }

  private async start(): Promise<Calls> {
    await this.closing?.catch(() => {})
    const { timeoutMs, ...settings } = this.options
    const calls: Calls = new ThreadCalls('inbox-worker.js', this.title, timeoutMs, ({ repairs }) => {
      for (const repair of repairs) process.emitWarning(repair, { code: 'NESTJS_MQTT_INBOX' })
    })
    try {
      await calls.call('open', { settings }, Date.now())
      return calls
    } catch (error) {
      this.failedAtMs = performance.now()
      await calls.end()
      throw error
    }
  }

  private async end(opening: Promise<Calls>): Promise<void> {
    const calls = await opening.catch(() => undefined)
    try {
      await calls?.call('close', {}, Date.now())
    } finally {
      await calls?.end()
    }
  }

  private get title(): string {
    return `the inbox ${this.options.file}`
  }
}

import { MqttError } from '../../core/errors.js'
import type { MessageStore, StoreListener } from '../../core/outbound/message-store.js'

/** Time limit for a call of a store. The limit of `sqliteStore` is shorter. */
export const STORE_CALL_MS = 300_000

/** Limits the calls of a store, so that one that hangs ends. */
export class StoreCalls {
  private readonly timers = new Set<NodeJS.Timeout>()

  /** Settles like the call, which may throw. Rejects with `STORE_FAILED` after five minutes. */
  limited<T>(call: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const running = call()
      const timer = setTimeout(() => {
        this.timers.delete(timer)
        const text = `the store did not complete a call within ${STORE_CALL_MS} ms; it may still complete it later`
        reject(new MqttError('STORE_FAILED', text))
      }, STORE_CALL_MS)
      this.timers.add(timer)
      const end = (): void => {
        this.timers.delete(timer)
        clearTimeout(timer)
      }
      running.then(resolve, reject).finally(end)
    })
  }

  /** A call that hangs does not keep the process alive any more. */
  stop(): void {
    for (const timer of this.timers) clearTimeout(timer)
    this.timers.clear()
  }
}

/** Opens a store. An opening that completes when nobody waits for it is closed again, so that the next one succeeds. */
export class StoreOpening {
  /** The call that has not ended. */
  private pending: Promise<number | undefined> | undefined
  private isAwaited = false
  private closing: Promise<void> | undefined

  constructor(
    private readonly store: MessageStore,
    private readonly ledger: {
      readonly calls: StoreCalls
      failed(error: unknown): void
      repaired(text: string): void
    },
    private readonly settled: StoreListener['settled'],
  ) {}

  /**
   * Opens the store, or joins an opening that has not ended.
   * @returns the number of messages in the store, or undefined if it was closed in the meantime
   * @throws MqttError the same as `open` of the store; `STORE_FAILED` after the time limit
   */
  async open(): Promise<number | undefined> {
    this.isAwaited = true
    try {
      let messages: number | undefined
      // It may join a late opening that is closed again.
      while (messages === undefined && this.closing === undefined) {
        const pending = this.pending ?? this.openUnlessLate()
        messages = await this.ledger.calls.limited(() => pending)
      }
      return messages
    } finally {
      this.isAwaited = false
    }
  }

  /** Closes the store for good. */
  close(): Promise<void> {
    this.closing ??= this.store.close()
    return this.closing
  }

  private openUnlessLate(): Promise<number | undefined> {
    const opening = this.openNow().finally(() => {
      this.pending = undefined
    })
    this.pending = opening
    return opening
  }

  private async openNow(): Promise<number | undefined> {
    const { ledger, settled } = this
    const { messages } = await this.store.open({ settled, repaired: text => ledger.repaired(text) })
    if (this.isAwaited && this.closing === undefined) return messages
    try {
      // That call may have come too early for the store to know that it would be open.
      await this.closing
      await this.store.close()
    } catch (error) {
      ledger.failed(error)
    }
    return undefined
  }
}

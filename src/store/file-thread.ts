import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { describeCause } from '../core/errors.js'
import { storeError, type WriteResult } from './store-errors.js'
import type { SentError, StoreResult } from './worker-protocol.js'

interface AnyCall {
  readonly kind: string
  readonly id: number
}

/** A call that responds later. */
export const LATER = Symbol('later')

/** The thread of a file. It combines all calls that have arrived into one commit. */
export abstract class FileThread<C extends AnyCall> {
  private results: StoreResult[] = []

  constructor(private readonly port: MessagePort) {
    port.on('message', (calls: readonly C[]) => void this.handle(calls))
  }

  /** What the file is, for errors. */
  protected abstract readonly title: string
  protected abstract open(call: Extract<C, { readonly kind: 'open' }>): Promise<void>
  protected abstract isWrite(call: C): boolean
  /** Writes all of them in one commit. Returns their results in the order of the calls. */
  protected abstract write(calls: readonly C[]): readonly WriteResult[]
  /** Runs a call that does not write. Returns its result, or `LATER`. */
  protected abstract run(call: C): unknown
  /** What the main thread receives with the results. */
  protected abstract news(): object

  /** Also handles what arrived during the last commit. */
  protected async handle(given: readonly C[]): Promise<void> {
    const calls = [...given, ...this.arrived()]
    const writes: C[] = []
    const others: C[] = []
    for (const call of calls) {
      if (isOpen(call)) await this.settle(call.id, () => this.open(call))
      else if (this.isWrite(call)) writes.push(call)
      else others.push(call)
    }
    this.writeAll(writes)
    // Reads run after the commit, so that they return only durable data.
    for (const call of others) {
      try {
        const value = this.run(call)
        if (value !== LATER) this.results.push({ id: call.id, value })
      } catch (error) {
        this.fail(call.id, error)
      }
    }
    const { results } = this
    this.results = []
    this.port.postMessage({ results, ...this.news() })
  }

  private writeAll(writes: readonly C[]): void {
    if (writes.length === 0) return
    let written: readonly WriteResult[] = []
    let failure: unknown
    try {
      written = this.write(writes)
    } catch (error) {
      failure = error
    }
    for (const [index, { id }] of writes.entries()) {
      const result = written[index]
      if (result === undefined) this.fail(id, failure)
      else if ('error' in result) this.fail(id, result.error)
      else this.results.push({ id, value: result.value })
    }
  }

  private async settle(id: number, work: () => Promise<void>): Promise<void> {
    try {
      await work()
      this.results.push({ id, value: undefined })
    } catch (error) {
      this.fail(id, error)
    }
  }

  private fail(id: number, error: unknown): void {
    const { code, message, cause } = storeError(this.title, error)
    const sent: SentError = { code, message, ...(cause === undefined ? {} : { cause: describeCause(cause) }) }
    this.results.push({ id, error: sent })
  }

  private arrived(): C[] {
    const calls: C[] = []
    for (;;) {
      const received: { message: readonly C[] } | undefined = receiveMessageOnPort(this.port)
      if (received === undefined) return calls
      calls.push(...received.message)
    }
  }
}

function isOpen<C extends AnyCall>(call: C): call is Extract<C, { readonly kind: 'open' }> {
  return call.kind === 'open'
}

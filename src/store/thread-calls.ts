import timers from 'node:timers'
import type { Worker } from 'node:worker_threads'
import { MqttError } from '../core/errors.js'
import type { SentError, StoreCall, StoreCalls, StoreReport, StoreResult } from './worker-protocol.js'

// Stored when this module is loaded, because fake timers of a test do not control the disk.
const { setTimeout, clearTimeout } = timers

interface Pending {
  readonly resolve: (value: never) => void
  readonly reject: (error: Error) => void
  /** The period in which the call began. */
  readonly period: number
}

/** The calls to the thread of a store. The process stays alive only while a call is pending. */
export class ThreadCalls {
  private readonly pending = new Map<number, Pending>()
  private batch: StoreCall[] = []
  private lastId = 0
  private period = 0
  private timer: NodeJS.Timeout | undefined
  private failure: MqttError | undefined

  constructor(
    private readonly worker: Worker,
    private readonly name: string,
    private readonly timeoutMs: number,
    private readonly onReport: (report: StoreReport) => void,
  ) {
    worker.on('message', (report: StoreReport) => this.settle(report))
    worker.on('error', cause =>
      this.fail(new MqttError('STORE_FAILED', `${name}: its thread failed`, { cause })),
    )
    worker.on('exit', () => this.fail(new MqttError('STORE_FAILED', `${name}: its thread has ended`)))
    worker.unref()
  }

  call<K extends StoreCall['kind']>(
    kind: K,
    given: StoreCalls[K]['given'],
    nowMs: number,
  ): Promise<StoreCalls[K]['result']> {
    return new Promise((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure)
      this.lastId += 1
      if (this.pending.size === 0) this.worker.ref()
      this.pending.set(this.lastId, { resolve, reject, period: this.period })
      this.timer ??= setTimeout(() => this.endPeriod(), this.timeoutMs)
      if (this.batch.length === 0) Promise.resolve().then(() => this.send())
      const call: unknown = { kind, id: this.lastId, nowMs, ...given }
      // Seam: TypeScript does not relate `kind` and `given` once they are in one object.
      this.batch.push(call as StoreCall)
    })
  }

  /** Ends the thread. Pending calls reject. The wait for the thread has a limit, because a disk may hang. */
  async end(): Promise<void> {
    this.fail(new MqttError('STORE_FAILED', `${this.name} was closed`))
    // The process stays alive until the thread has ended, so that the caller gets its result.
    this.worker.ref()
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<void>(resolve => {
      timer = setTimeout(resolve, this.timeoutMs)
    })
    await Promise.race([this.worker.terminate(), limit])
    this.worker.unref()
    clearTimeout(timer)
  }

  private send(): void {
    const { batch } = this
    this.batch = []
    if (this.failure === undefined) this.worker.postMessage(batch)
  }

  private settle(report: StoreReport): void {
    this.onReport(report)
    for (const result of report.results) this.settleOne(result)
    if (this.pending.size === 0) this.rest()
  }

  private settleOne(result: StoreResult): void {
    const call = this.pending.get(result.id)
    if (call === undefined) return
    this.pending.delete(result.id)
    if ('error' in result) call.reject(errorOf(result.error))
    // Seam: the thread responds to each call with the result of its kind.
    else call.resolve(result.value as never)
  }

  /** Rejects the calls that have been pending since the last period. */
  private endPeriod(): void {
    const late = [...this.pending].filter(([, { period }]) => period < this.period)
    for (const [id, { reject }] of late) {
      this.pending.delete(id)
      reject(
        new MqttError(
          'STORE_FAILED',
          `${this.name}: the disk did not complete a call within ${this.timeoutMs} ms; it may still complete it later`,
        ),
      )
    }
    this.period += 1
    if (this.pending.size === 0) this.rest()
    else this.timer = setTimeout(() => this.endPeriod(), this.timeoutMs)
  }

  private rest(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.worker.unref()
  }

  private fail(error: MqttError): void {
    if (this.failure !== undefined) return
    this.failure = error
    for (const { reject } of this.pending.values()) reject(error)
    this.pending.clear()
    this.rest()
  }
}

function errorOf({ code, message, cause }: SentError): MqttError {
  return new MqttError(code, message, cause === undefined ? {} : { cause })
}

import { join } from 'node:path'
import timers from 'node:timers'
import { Worker } from 'node:worker_threads'
import { MqttError } from '../core/errors.js'
import type { CallMap, SentError, StoreResult, ThreadReport } from './worker-protocol.js'

// Stored when this module is loaded, because fake timers of a test do not control the disk.
const { setTimeout, clearTimeout } = timers

interface Pending {
  readonly resolve: (value: never) => void
  readonly reject: (error: Error) => void
  /** The period in which the call began. */
  readonly period: number
}

/** The calls to the thread of a file. The process stays alive only while a call is pending. */
export class ThreadCalls<M extends CallMap<M>, R extends ThreadReport> {
  private readonly worker: Worker
  private readonly pending = new Map<number, Pending>()
  private batch: object[] = []
  private lastId = 0
  private period = 0
  private timer: NodeJS.Timeout | undefined
  private failure: MqttError | undefined

  constructor(
    script: string,
    private readonly name: string,
    private readonly timeoutMs: number,
    private readonly onReport: (report: R) => void,
  ) {
    const worker = startThread(script)
    this.worker = worker
    worker.on('message', (report: R) => this.settle(report))
    worker.on('error', cause =>
      this.fail(new MqttError('STORE_FAILED', `${name}: its thread failed`, { cause })),
    )
    worker.on('exit', () => this.fail(new MqttError('STORE_FAILED', `${name}: its thread has ended`)))
    worker.unref()
  }

  call<K extends keyof M>(kind: K, given: M[K]['given'], nowMs: number): Promise<M[K]['result']> {
    return new Promise((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure)
      this.lastId += 1
      if (this.pending.size === 0) this.worker.ref()
      this.pending.set(this.lastId, { resolve, reject, period: this.period })
      this.timer ??= setTimeout(() => this.endPeriod(), this.timeoutMs)
      if (this.batch.length === 0) Promise.resolve().then(() => this.send())
      this.batch.push({ kind, id: this.lastId, nowMs, ...given })
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

  private settle(report: R): void {
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

function startThread(script: string): Worker {
  // Without the flags of this process, such as loaders. The disabled warning says that node:sqlite is experimental.
  return new Worker(join(__dirname, script), { execArgv: ['--disable-warning=ExperimentalWarning'] })
}

function errorOf({ code, message, cause }: SentError): MqttError {
  return new MqttError(code, message, cause === undefined ? {} : { cause })
}

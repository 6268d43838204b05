import { isMainThread, type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { describeCause, MqttError } from '../core/errors.js'
import { NOTHING_STORED } from '../core/outbound/message-store.js'
import { loadEngine } from './sqlite-engine.js'
import { StoreConnection } from './store-connection.js'
import { storeError } from './store-errors.js'
import { StoreFile } from './store-file.js'
import type {
  CallKind,
  SentError,
  StoreCall,
  StoreReport,
  StoreResult,
  StoreSettings,
} from './worker-protocol.js'

type WriteCall = CallKind<'add'> | CallKind<'settle'>

/** The thread of a store. It combines all calls that have arrived into one commit. */
class StoreThread {
  private file: StoreFile | undefined
  private path = ''
  private results: StoreResult[] = []

  constructor(private readonly port: MessagePort) {
    port.on('message', (calls: readonly StoreCall[]) => void this.handle([...calls, ...this.arrived()]))
  }

  /** What arrived during the last commit. */
  private arrived(): StoreCall[] {
    const calls: StoreCall[] = []
    for (;;) {
      const received: { message: readonly StoreCall[] } | undefined = receiveMessageOnPort(this.port)
      if (received === undefined) return calls
      calls.push(...received.message)
    }
  }

  private async handle(calls: readonly StoreCall[]): Promise<void> {
    const first = calls[0]
    if (first?.kind === 'open') await this.open(first)
    const writes = calls.filter(call => call.kind === 'add' || call.kind === 'settle')
    this.write(writes)
    // Reads run after the commit, so that they return only durable data.
    for (const call of calls) this.readOrEnd(call)
    this.report()
  }

  private async open({ id, settings, nowMs }: CallKind<'open'>): Promise<void> {
    try {
      this.path = settings.file
      this.file = await openFile(settings, nowMs)
      this.results.push({ id, value: undefined })
    } catch (error) {
      this.fail(id, error)
    }
  }

  private write(calls: readonly WriteCall[]): void {
    const last = calls.at(-1)
    if (last === undefined) return
    const results = this.file?.write(calls, last.nowMs)
    for (const [index, { id }] of calls.entries()) {
      const result = results?.[index]
      if (result === undefined) this.fail(id, notOpen(this.path))
      else if ('error' in result) this.fail(id, result.error)
      else this.results.push({ id, value: result.value })
    }
  }

  private readOrEnd(call: StoreCall): void {
    if (call.kind === 'add' || call.kind === 'settle' || call.kind === 'open') return
    const { id } = call
    try {
      if (call.kind === 'close') {
        this.file?.close()
        this.file = undefined
        this.results.push({ id, value: undefined })
        return
      }
      if (this.file === undefined) throw notOpen(this.path)
      if (call.kind === 'expire') this.expire(call, this.file)
      else this.results.push({ id, value: resultOf(call, this.file) })
    } catch (error) {
      this.fail(id, error)
    }
  }

  /** Runs in steps, so that other calls do not wait until all messages have ended. */
  private expire(call: CallKind<'expire'>, file: StoreFile): void {
    const { count, isMore } = file.expireSome(call.untilMs, call.nowMs)
    const ended = call.ended + count
    if (isMore) setImmediate(() => void this.handle([...this.arrived(), { ...call, ended }]))
    else this.results.push({ id: call.id, value: ended })
  }

  private fail(id: number, error: unknown): void {
    const { code, message, cause } = storeError(this.path, error)
    const sent: SentError = { code, message, ...(cause === undefined ? {} : { cause: describeCause(cause) }) }
    this.results.push({ id, error: sent })
  }

  private report(): void {
    const { results, file } = this
    this.results = []
    const report: StoreReport = {
      results,
      told: file?.takeTold() ?? [],
      repairs: file?.takeRepairs() ?? [],
      contents: file?.contents ?? NOTHING_STORED,
    }
    this.port.postMessage(report)
  }
}

async function openFile({ engine, limits, ...place }: StoreSettings, nowMs: number): Promise<StoreFile> {
  const connection = new StoreConnection(await loadEngine(engine), place)
  try {
    return new StoreFile(connection, limits, nowMs)
  } catch (error) {
    connection.close()
    throw error
  }
}

function resultOf(call: CallKind<'read'> | CallKind<'outcomes'>, file: StoreFile): unknown {
  if (call.kind === 'outcomes') return file.outcomes(call.query, call.nowMs)
  return file.read(call.after, call.limit, call.nowMs)
}

function notOpen(path: string): MqttError {
  return new MqttError('STORE_FAILED', `the store ${path} is not open`)
}

if (!isMainThread && parentPort !== null) new StoreThread(parentPort)

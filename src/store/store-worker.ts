import { isMainThread, parentPort } from 'node:worker_threads'
import { MqttError } from '../core/errors.js'
import { NOTHING_STORED } from '../core/outbound/message-store.js'
import { FileThread, LATER } from './file-thread.js'
import { loadEngine } from './sqlite-engine.js'
import { StoreConnection } from './store-connection.js'
import type { WriteResult } from './store-errors.js'
import { StoreFile } from './store-file.js'
import { MESSAGES } from './store-rescue.js'
import type { CallKind, StoreCall, StoreReport, StoreSettings } from './worker-protocol.js'

/** The thread of a store. */
class StoreThread extends FileThread<StoreCall> {
  protected title = 'the store'
  private file: StoreFile | undefined
  private isClosed = false

  protected override async open({ settings, nowMs }: CallKind<'open'>): Promise<void> {
    this.title = `the store ${settings.file}`
    this.file = await openFile(settings, nowMs)
  }

  protected override isWrite({ kind }: StoreCall): boolean {
    return kind === 'add' || kind === 'settle'
  }

  protected override write(calls: readonly StoreCall[]): readonly WriteResult[] {
    const writes = calls.filter(call => call.kind === 'add' || call.kind === 'settle')
    return this.openedFile.write(writes, writes.at(-1)?.nowMs ?? 0)
  }

  protected override run(call: StoreCall): unknown {
    switch (call.kind) {
      case 'read':
        return this.openedFile.read(call.after, call.limit, call.nowMs)
      case 'outcomes':
        return this.openedFile.outcomes(call.query, call.nowMs)
      case 'expire':
        return this.expire(call)
      case 'close':
        if (!this.isClosed) this.file?.close()
        // The file is kept for its contents, which are reported after the close too.
        this.isClosed = true
        return undefined
      default:
        return undefined
    }
  }

  protected override news(): Omit<StoreReport, 'results'> {
    const { file } = this
    return {
      told: file?.takeTold() ?? [],
      repairs: file?.takeRepairs() ?? [],
      contents: file?.contents ?? NOTHING_STORED,
    }
  }

  /** Runs in steps, so that other calls do not wait until all messages have ended. */
  private expire(call: CallKind<'expire'>): unknown {
    const { count, isMore } = this.openedFile.expireSome(call.untilMs, call.nowMs)
    const ended = call.ended + count
    if (!isMore) return ended
    setImmediate(() => void this.handle([{ ...call, ended }]))
    return LATER
  }

  private get openedFile(): StoreFile {
    if (this.file === undefined || this.isClosed)
      throw new MqttError('STORE_FAILED', `${this.title} is not open`)
    return this.file
  }
}

async function openFile({ engine, limits, ...place }: StoreSettings, nowMs: number): Promise<StoreFile> {
  const connection = new StoreConnection(await loadEngine(engine), place, MESSAGES)
  try {
    return new StoreFile(connection, limits, nowMs)
  } catch (error) {
    connection.close()
    throw error
  }
}

if (!isMainThread && parentPort !== null) new StoreThread(parentPort)

import { isMainThread, parentPort } from 'node:worker_threads'
import { MqttError } from '../core/errors.js'
import { FileThread } from './file-thread.js'
import { InboxFile } from './inbox-file.js'
import { KEYS } from './inbox-tables.js'
import { loadEngine } from './sqlite-engine.js'
import { StoreConnection } from './store-connection.js'
import type { WriteResult } from './store-errors.js'
import type { InboxCall, InboxReport } from './worker-protocol.js'

/** The thread of an inbox. */
export class InboxThread extends FileThread<InboxCall> {
  protected title = 'the inbox'
  private file: InboxFile | undefined

  protected override async open({
    settings,
    nowMs,
  }: Extract<InboxCall, { readonly kind: 'open' }>): Promise<void> {
    const { engine, ...place } = settings
    this.title = `the inbox ${place.file}`
    const connection = new StoreConnection(await loadEngine(engine), place, KEYS)
    try {
      this.file = new InboxFile(connection)
    } catch (error) {
      connection.close()
      throw error
    }
    this.trim(nowMs)
  }

  protected override isWrite({ kind }: InboxCall): boolean {
    return kind === 'add'
  }

  protected override write(calls: readonly InboxCall[]): readonly WriteResult[] {
    const additions = calls.filter(call => call.kind === 'add')
    return this.openedFile.add(additions, additions.at(-1)?.nowMs ?? 0)
  }

  protected override run(call: InboxCall): unknown {
    if (call.kind === 'has') return this.openedFile.has(call, call.nowMs)
    if (call.kind !== 'close') return undefined
    this.file?.close()
    this.file = undefined
    return undefined
  }

  protected override news(): Omit<InboxReport, 'results'> {
    return { repairs: this.file?.takeRepairs() ?? [] }
  }

  /** Runs in steps, so that calls do not wait until all old keys are removed. */
  private trim(nowMs: number): void {
    if (this.file?.trimSome(nowMs) === true) setImmediate(() => this.trimMore(nowMs))
  }

  private trimMore(nowMs: number): void {
    try {
      this.trim(nowMs)
    } catch {
      // Each addition removes old keys too, and reports an error that lasts.
    }
  }

  private get openedFile(): InboxFile {
    if (this.file === undefined) throw new MqttError('STORE_FAILED', `${this.title} is not open`)
    return this.file
  }
}

if (!isMainThread && parentPort !== null) new InboxThread(parentPort)

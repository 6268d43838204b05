import type { PublishPacket } from '../../core/protocol/packets.js'
import type { BatchOptions } from '../../options/handler-options.js'
import {
  BatchFailed,
  Delivery,
  type HandlerAttempt,
  HandlerRun,
  type InboundHandler,
  newHandler,
} from './delivery.js'
import type { HandlerPool } from './handler-pool.js'
import type { HandlerRules } from './handler-rules.js'

/** A message that waits for the end of its batch. */
interface Member<T> {
  readonly message: T
  readonly packet: PublishPacket
  readonly attempt: HandlerAttempt
  readonly arrivedMs: number
  readonly done: () => void
  readonly fail: (error: unknown) => void
}

/** A handler that waits for several messages. */
export interface Collecting {
  /** Starts the next batch with the messages received so far, as soon as the current one has ended. */
  flush(): void
  /** No further messages are accepted, so every batch starts at once. */
  drain(): void
}

/** The handlers with batches, so that their batches can be started early. */
export interface BatchHost {
  readonly pool: HandlerPool
  /** @returns a function that removes the handler */
  collects(batches: Collecting): () => void
}

/** Runs the handler for one batch. Rejects if it failed. @param signal aborted when the client no longer waits */
export type BatchRun<T> = (messages: readonly T[], attempt: HandlerAttempt, signal: AbortSignal) => unknown

/**
 * The batches of one handler. Every message is a run of its own, which ends with its batch and then has its own outcome. The
 * batch is one more run, which holds a slot while it works. Messages beyond the next batch wait like those of any other handler.
 */
export class Batches<T> implements Collecting {
  private readonly waiting: Member<T>[] = []
  private readonly running = new Map<PublishPacket, readonly Member<T>[]>()
  private readonly batchHandler: InboundHandler
  private readonly most: number
  private readonly leave: () => void
  private timer: NodeJS.Timeout | undefined
  private isDue = false
  private isEager = false

  constructor(
    private readonly host: BatchHost,
    rules: HandlerRules,
    private readonly limits: Required<BatchOptions>,
    private readonly handle: BatchRun<T>,
  ) {
    const { orderKey, concurrency, name, timeoutMs, retries } = rules.runRules
    // The messages of a topic stay in order only if their batches run one after the other.
    this.most = orderKey === 'none' ? concurrency : 1
    this.batchHandler = newHandler({
      name,
      concurrency: this.most,
      timeoutMs,
      retries,
      kind: 'batch',
      batchOf: packet => (this.running.get(packet) ?? []).map(member => member.packet),
      run: (packet, attempt) => this.run(packet, attempt),
      onFailed: (packet, error) => this.failed(packet, error, 1 + (retries?.attempts ?? 0)),
    })
    this.leave = host.collects(this)
  }

  /** The rules of the runs of the messages. They hold no slot, because they only wait. */
  get memberRules(): Partial<InboundHandler> {
    const concurrency = this.limits.maxMessages * (this.most + 1)
    return { kind: 'in-batch', isPassive: true, concurrency, orderKey: 'none', timeoutMs: undefined }
  }

  /** Resolves when the batch of the message has been handled, and rejects if it failed. */
  push(message: T, packet: PublishPacket, attempt: HandlerAttempt): Promise<void> {
    return new Promise((done, fail) => {
      this.waiting.push({ message, packet, attempt, arrivedMs: performance.now(), done, fail })
      if (this.isEager) queueMicrotask(() => this.flush())
      else this.startDue()
    })
  }

  flush(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.isDue = this.waiting.length > 0
    this.startDue()
  }

  drain(): void {
    this.isEager = true
    this.flush()
  }

  /** The handler is removed. */
  end(): void {
    this.drain()
    this.leave()
  }

  private startDue(): void {
    const { waiting, running, most, limits } = this
    while (running.size < most && (waiting.length >= limits.maxMessages || this.isDue))
      this.start(waiting.splice(0, limits.maxMessages))
    const [oldest] = waiting
    if (oldest === undefined || this.isDue || this.timer !== undefined) return
    const leftMs = oldest.arrivedMs + limits.maxWaitMs - performance.now()
    this.timer = setTimeout(() => this.flush(), Math.max(0, leftMs))
  }

  private start(members: readonly Member<T>[]): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.isDue = this.isEager && this.waiting.length > 0
    const [first] = members
    if (first === undefined) return
    this.running.set(first.packet, members)
    const delivery = new Delivery(first.packet)
    const run = new HandlerRun(delivery, this.batchHandler, undefined)
    delivery.runs = [run]
    if (this.host.pool.begin(run)) return
    this.host.pool.add(run)
    this.host.pool.pump(false)
  }

  private async run(packet: PublishPacket, attempt: HandlerAttempt): Promise<void> {
    const members = this.running.get(packet) ?? []
    const messages = members.map(({ message }) => message)
    const signals = [attempt.signal, ...members.slice(0, 1).map(member => member.attempt.signal)]
    await this.handle(messages, attempt, AbortSignal.any(signals))
    // After its time limit, the batch has failed.
    if (attempt.isAborted) return
    for (const { done } of members) done()
    this.ended(packet)
  }

  private failed(packet: PublishPacket, error: unknown, attempts: number): void {
    const failure = new BatchFailed(error, attempts)
    for (const { fail } of this.running.get(packet) ?? []) fail(failure)
    this.ended(packet)
  }

  private ended(packet: PublishPacket): void {
    if (this.running.delete(packet)) queueMicrotask(() => this.startDue())
  }
}

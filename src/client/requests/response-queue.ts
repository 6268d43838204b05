import { setImmediate as turnOfTheEventLoop } from 'node:timers/promises'
import { MqttError } from '../../core/errors.js'
import type { HandlerAttempt } from '../inbound/delivery.js'

/** How a queue ended: with a response that is marked as the last one, still open, or cancelled. */
export type QueueEnd = 'ended' | 'open' | 'cancelled'

/** Maximum number of responses of one stream that wait for the link. */
const MAX_WAITING = 1_000
const MAX_PENDING = 32
/** Many streams share what may wait for the link. */
const MAX_PENDING_BYTES = 65_536

/** A response that was published and is not delivered yet. */
export interface PendingResponse {
  readonly bytes: number
  /** Rejects if the response does not reach the broker. */
  readonly sent: Promise<void>
}

/** Turns the values of a source into messages. */
export interface Sink {
  send(value: unknown, isLast: boolean): PendingResponse
  finish(end: QueueEnd): void
}

/** A source that emits values by itself, such as an Observable. */
export interface ValueSource {
  subscribe(observer: {
    /** @returns whether the source is to continue */
    next(value: unknown): boolean
    error(error: unknown): void
    complete(): void
  }): ValueSubscription
}

interface ValueSubscription {
  /** Never throws. */
  unsubscribe(): void
}

/** Sends the values of a source one after the other, each behind the one before it. */
export class ResponseQueue {
  private readonly waiting: unknown[] = []
  private readonly pending: PendingResponse[] = []
  private pendingBytes = 0
  private subscription: ValueSubscription | undefined
  private isComplete = false
  private isCancelled = false
  private failure: { readonly error: unknown } | undefined
  private wake: () => void = () => {}

  constructor(
    private readonly limit: number,
    private readonly send: (value: unknown, isLast: boolean) => PendingResponse,
  ) {}

  /** Sends the values of a source. Rejects with its error after the values before it are sent. */
  async take(source: ValueSource, signal?: AbortSignal): Promise<QueueEnd> {
    const abort = (): void => (this.isComplete ? undefined : this.fail(signal?.reason))
    signal?.addEventListener('abort', abort)
    this.subscription = source.subscribe({
      next: value => {
        if (!this.isOver) this.add(value)
        return !this.isOver
      },
      error: (error: unknown) => this.fail(error),
      complete: () => {
        this.isComplete = !this.isOver
        this.wake()
      },
    })
    // A source may emit everything, or abort its run, while it is subscribed.
    if (signal?.aborted) abort()
    if (this.isOver) this.subscription.unsubscribe()
    try {
      return await this.sendAll()
    } finally {
      signal?.removeEventListener('abort', abort)
      this.stop()
    }
  }

  /** Like `take`, for a source that produces each value on demand. */
  async takeEach(source: AsyncIterable<unknown>, signal: AbortSignal): Promise<QueueEnd> {
    const iterator = source[Symbol.asyncIterator]()
    const abort = (): void => this.fail(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      return await this.sendEach(iterator)
    } finally {
      signal.removeEventListener('abort', abort)
      void close(iterator)
    }
  }

  private async sendEach(iterator: AsyncIterator<unknown>): Promise<QueueEnd> {
    for (let values = 1; ; values += 1) {
      // A source that waits for nothing, read for its last value only, would keep the event loop from turning.
      if (values % MAX_PENDING === 0) await turnOfTheEventLoop()
      // It may have been cancelled, or may have failed, while earlier responses waited for the link.
      const next = this.isOver ? undefined : await Promise.race([nextOf(iterator), this.somethingNew()])
      if (this.isCancelled) return 'cancelled'
      if (this.failure !== undefined) throw this.failure.error
      if (next === undefined) continue
      if (next.done === true) return this.allSent('open')
      await this.sendOne(next.value, false)
    }
  }

  private async sendAll(): Promise<QueueEnd> {
    for (;;) {
      if (this.isCancelled) return 'cancelled'
      if (this.waiting.length > 0) {
        const isLast = this.isComplete && this.waiting.length === 1
        await this.sendOne(this.waiting.shift(), isLast)
        if (isLast) return this.allSent('ended')
      } else if (this.failure !== undefined) throw this.failure.error
      else if (this.isComplete) return this.allSent('open')
      else await this.somethingNew()
    }
  }

  /** Discards the remaining responses. */
  cancel(): void {
    this.isCancelled = true
    this.stop()
  }

  /** Waits while more responses are pending than a link with long round trips needs. */
  private async sendOne(value: unknown, isLast: boolean): Promise<void> {
    const response = this.send(value, isLast)
    // The error is reported when this response is next in order.
    response.sent.catch(() => {})
    this.pending.push(response)
    this.pendingBytes += response.bytes
    while (this.pending.length > MAX_PENDING || this.pendingBytes > MAX_PENDING_BYTES) await this.oldestSent()
  }

  private async oldestSent(): Promise<void> {
    const oldest = this.pending.shift()
    this.pendingBytes -= oldest?.bytes ?? 0
    await oldest?.sent
  }

  /** Ends the stream only after all earlier responses have been sent. */
  private async allSent(end: QueueEnd): Promise<QueueEnd> {
    while (this.pending.length > 0) await this.oldestSent()
    return end
  }

  private get isOver(): boolean {
    return this.isCancelled || this.failure !== undefined
  }

  private add(value: unknown): void {
    if (this.waiting.length >= this.limit) {
      const text = `${this.limit} responses wait for the connection; the stream produces values faster than the link carries them`
      return this.fail(new MqttError('NOT_SENT', text))
    }
    this.waiting.push(value)
    this.wake()
  }

  private fail(error: unknown): void {
    this.failure ??= { error }
    this.stop()
  }

  private stop(): void {
    this.subscription?.unsubscribe()
    this.wake()
  }

  private somethingNew(): Promise<void> {
    return new Promise(resolve => {
      this.wake = resolve
    })
  }
}

/** The values that a handler returned, and the run that produces them. */
export class ResponseSource {
  private queue: ResponseQueue | undefined

  constructor(
    private readonly values: ValueSource | AsyncIterable<unknown>,
    private readonly attempt: HandlerAttempt,
  ) {}

  /** Whether the source emits values by itself. */
  get isPushed(): boolean {
    return !isAsyncIterable(this.values)
  }

  /** Whether the run has been aborted. */
  get isUnwanted(): boolean {
    return this.attempt.isAborted
  }

  sendTo(send: (value: unknown, isLast: boolean) => PendingResponse): Promise<QueueEnd> {
    const { values, attempt } = this
    this.queue = new ResponseQueue(MAX_WAITING, send)
    return isAsyncIterable(values)
      ? this.queue.takeEach(values, attempt.signal)
      : this.queue.take(values, attempt.signal)
  }

  /** Discards the remaining values and aborts the `signal` of the handler. */
  cancel(reason: MqttError): void {
    this.queue?.cancel()
    this.attempt.abort(reason)
  }

  outOfTime(timeoutMs: number | undefined): void {
    this.attempt.abort(new MqttError('TIMEOUT', `the response stream did not finish within ${timeoutMs} ms`))
  }
}

/** @throws TypeError for a result that `for await` does not accept either */
async function nextOf(iterator: AsyncIterator<unknown>): Promise<IteratorResult<unknown>> {
  const result = await iterator.next()
  if (typeof result === 'object' && result !== null) return result
  throw new TypeError(
    `the async iterable that the handler returned is not valid: its next() resolved with a value of type ${typeof result}`,
  )
}

/** A generator that waits for something ends when that has arrived. The `return()` of other iterators may return anything. */
async function close(iterator: AsyncIterator<unknown>): Promise<void> {
  try {
    await iterator.return?.()
  } catch {
    // All values were read, or nobody wants them.
  }
}

export function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

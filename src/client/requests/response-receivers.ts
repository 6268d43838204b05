import { MqttError } from '../../core/errors.js'
import type { RequestProtocol } from '../../core/requests/request-rules.js'
import type { ClientEvents, RequestEvent } from '../events.js'
import type { ResponseReceiver } from './open-requests.js'

type Reader<T> = {
  readonly resolve: (result: IteratorResult<T, undefined>) => void
  readonly reject: (error: unknown) => void
}

/** The responses of one request, for a `for await` loop. */
export class ResponseStream<T> implements AsyncIterableIterator<T> {
  private readonly waiting: { readonly value: T }[] = []
  private readonly readers: Reader<T>[] = []
  private outcome: { readonly error: MqttError | undefined } | undefined
  private cancel: (() => void) | undefined

  constructor(
    private readonly limit: number,
    private readonly topic: string,
  ) {}

  /** Sets the function that ends the request. The request may have ended before. */
  started(cancel: () => void): void {
    if (this.outcome === undefined) this.cancel = cancel
    else cancel()
  }

  /** Receives the responses. */
  readonly receiver: ResponseReceiver = {
    // Seam: the caller names the type of what comes from outside, as with JSON.parse.
    next: value => this.add({ value: value as T }),
    end: () => this.finish(undefined),
    fail: error => this.finish(error),
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const next = this.waiting.shift()
    if (next !== undefined) return Promise.resolve({ done: false, value: next.value })
    const { outcome } = this
    if (outcome === undefined) return new Promise((resolve, reject) => this.readers.push({ resolve, reject }))
    // The loop receives the error once; then the stream has ended.
    this.outcome = { error: undefined }
    return outcome.error === undefined
      ? Promise.resolve({ done: true, value: undefined })
      : Promise.reject(outcome.error)
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.waiting.length = 0
    this.finish(undefined)
    this.cancel?.()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  private add(response: { readonly value: T }): void {
    const reader = this.readers.shift()
    if (reader !== undefined) return reader.resolve({ done: false, value: response.value })
    if (this.waiting.length < this.limit) {
      this.waiting.push(response)
      return
    }
    const text = `${this.limit} responses to the request on "${this.topic}" wait for the loop, which is slower than the responder`
    this.finish(new MqttError('REQUEST_FAILED', text))
    this.cancel?.()
  }

  private finish(error: MqttError | undefined): void {
    if (this.outcome !== undefined) return
    this.outcome = { error }
    for (const { resolve, reject } of this.readers.splice(0)) {
      if (error === undefined) resolve({ done: true, value: undefined })
      else reject(error)
    }
  }
}

/** Reports the start and the end of a request to the listeners of the client. */
export class ObservedReceiver implements ResponseReceiver {
  private isOver = false

  constructor(
    private readonly receiver: ResponseReceiver,
    private readonly events: ClientEvents,
    private readonly topic: string,
    private readonly protocol: RequestProtocol,
  ) {
    events.request.tell(this.eventOf('start'))
  }

  next(value: unknown): void {
    this.receiver.next(value)
  }

  end(): void {
    this.reportEnd()
    this.receiver.end()
  }

  fail(error: MqttError): void {
    this.reportEnd(error)
    this.receiver.fail(error)
  }

  /** The caller wants no more responses. */
  cancelled(): void {
    this.reportEnd()
  }

  private reportEnd(error?: MqttError): void {
    if (this.isOver) return
    this.isOver = true
    this.events.request.tell({ ...this.eventOf('end'), ...(error === undefined ? {} : { error }) })
  }

  private eventOf(type: RequestEvent['type']): RequestEvent {
    return { clientId: this.events.clientId, type, key: this, topic: this.topic, protocol: this.protocol }
  }
}

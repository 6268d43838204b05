import { MqttError } from '../../core/errors.js'
import type { ResponseReceiver } from './open-requests.js'

type Reader<T> = {
  readonly resolve: (result: IteratorResult<T, undefined>) => void
  readonly reject: (error: unknown) => void
}

/** Answers of one request for a `for await` loop. */
export class ResponseStream<T> implements AsyncIterableIterator<T> {
  private readonly waiting: { readonly value: T }[] = []
  private readonly readers: Reader<T>[] = []
  private outcome: { readonly error: MqttError | undefined } | undefined
  private cancel: (() => void) | undefined

  constructor(
    private readonly limit: number,
    private readonly topic: string,
  ) {}

  /** Told what ends the request, which may have ended by now. */
  started(cancel: () => void): void {
    if (this.outcome === undefined) this.cancel = cancel
    else cancel()
  }

  /** Where the answers come in. */
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
    // An error is told once; after it the stream has ended.
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

  private add(answer: { readonly value: T }): void {
    const reader = this.readers.shift()
    if (reader !== undefined) return reader.resolve({ done: false, value: answer.value })
    if (this.waiting.length < this.limit) {
      this.waiting.push(answer)
      return
    }
    const text = `${this.limit} answers to the request on "${this.topic}" wait for their loop, which is slower than they come`
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

import { setMaxListeners } from 'node:events'
import { MqttError } from '../../errors.js'

/** Requests that were given up without the responder knowing, as many as are remembered. */
const MAX_UNTOLD = 1_000

/** Who gets the answers. */
export interface ResponseReceiver {
  next(value: unknown): void
  /** No more answers come. */
  end(): void
  fail(error: MqttError): void
}

export interface RequestTerms {
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
}

interface OpenRequest<T> {
  readonly topic: string
  readonly receiver: ResponseReceiver
  readonly terms: T
  timer: NodeJS.Timeout | undefined
  readonly abort: () => void
  /** Tells the responder to stop. */
  cancel: (() => void) | undefined
  /** Nobody waits for it any more. */
  readonly onEnded: () => void
}

/** Requests that wait for answers. Each ends once: with its end, an error, its time, its signal or the connection. */
export class OpenRequests<T extends RequestTerms = RequestTerms> {
  private readonly open = new Map<string, OpenRequest<T>>()
  /** How many are open on each topic. */
  private readonly topics = new Map<string, number>()
  private readonly untold = new Set<string>()
  private unexpected = 0

  constructor(
    private readonly maxOpen: number,
    /** @returns what is called when the request has ended */
    private readonly onOpened: () => () => void = () => () => {},
  ) {}

  get size(): number {
    return this.open.size
  }

  /** Answers that nobody waits for: late ones, and second ones. */
  get unexpectedResponses(): number {
    return this.unexpected
  }

  /** @returns false when it has failed at once */
  add(key: string, topic: string, receiver: ResponseReceiver, terms: T): boolean {
    const { signal } = terms
    if (signal?.aborted) {
      receiver.fail(abortedError(topic, signal))
      return false
    }
    if (this.open.size >= this.maxOpen) {
      receiver.fail(
        new MqttError('TOO_MANY_REQUESTS', `${this.maxOpen} requests are open, which is requests.maxOpen`),
      )
      return false
    }
    const abort = (): void => this.giveUp(key, abortedError(topic, signal))
    if (signal !== undefined) {
      // Many requests may share one signal, which is no leak.
      setMaxListeners(0, signal)
      signal.addEventListener('abort', abort)
    }
    const onEnded = this.onOpened()
    const request: OpenRequest<T> = {
      topic,
      receiver,
      terms,
      timer: undefined,
      abort,
      cancel: undefined,
      onEnded,
    }
    this.open.set(key, request)
    this.topics.set(topic, (this.topics.get(topic) ?? 0) + 1)
    this.startTimer(key, request)
    return true
  }

  /** With what a request was made that is open still. */
  termsOf(key: string): T | undefined {
    return this.open.get(key)?.terms
  }

  /** Whether a request on this topic is open. */
  isAsked(topic: string): boolean {
    return this.topics.has(topic)
  }

  has(key: string): boolean {
    return this.open.has(key)
  }

  /** An answer came. @returns false when nobody waits for it */
  next(key: string, value: unknown): boolean {
    const request = this.open.get(key)
    if (request === undefined) {
      this.unexpected += 1
      return false
    }
    this.startTimer(key, request)
    request.receiver.next(value)
    return true
  }

  end(key: string): void {
    this.take(key)?.receiver.end()
  }

  fail(key: string, error: MqttError): void {
    this.take(key)?.receiver.fail(error)
  }

  /** The responder said how it can be told to stop. */
  setCancel(key: string, cancel: () => void): void {
    const request = this.open.get(key)
    if (request !== undefined) request.cancel ??= cancel
  }

  /** The requester wants no more answers. */
  cancel(key: string): void {
    const request = this.take(key)
    if (request !== undefined) this.tellResponder(key, request)
  }

  /** Once for each request that was given up before it was known where to tell it. */
  wasCancelled(key: string): boolean {
    return this.untold.delete(key)
  }

  failAll(cause: MqttError): void {
    for (const key of [...this.open.keys()]) this.fail(key, cause)
  }

  private giveUp(key: string, error: MqttError): void {
    const request = this.take(key)
    if (request === undefined) return
    this.tellResponder(key, request)
    request.receiver.fail(error)
  }

  /** The time for the first answer, and then for the next one. */
  private startTimer(key: string, request: OpenRequest<T>): void {
    clearTimeout(request.timer)
    const { topic } = request
    const { timeoutMs } = request.terms
    request.timer = setTimeout(() => {
      this.giveUp(
        key,
        new MqttError('TIMEOUT', `no answer to the request on "${topic}" within ${timeoutMs} ms`),
      )
    }, timeoutMs)
  }

  private tellResponder(key: string, request: OpenRequest<T>): void {
    if (request.cancel !== undefined) return request.cancel()
    this.untold.add(key)
    if (this.untold.size <= MAX_UNTOLD) return
    const [oldest = ''] = this.untold
    this.untold.delete(oldest)
  }

  private take(key: string): OpenRequest<T> | undefined {
    const request = this.open.get(key)
    if (request === undefined) return undefined
    this.open.delete(key)
    const left = (this.topics.get(request.topic) ?? 1) - 1
    if (left > 0) this.topics.set(request.topic, left)
    else this.topics.delete(request.topic)
    clearTimeout(request.timer)
    request.onEnded()
    request.terms.signal?.removeEventListener('abort', request.abort)
    return request
  }
}

function abortedError(topic: string, signal: AbortSignal | undefined): MqttError {
  return new MqttError('ABORTED', `the request on "${topic}" was aborted`, { cause: signal?.reason })
}

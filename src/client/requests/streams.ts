import { MqttError } from '../../core/errors.js'
import { withUserProperties } from '../../core/outbound/outbound-message.js'
import type { Lease } from '../../core/requests/request-rules.js'
import type { ClientEvents, RequestFacts, StreamEndReason, StreamFacts } from '../events.js'
import { IdleWaiters } from '../waits.js'
import type { ResponseReceiver } from './open-requests.js'
import type { OutgoingRequest, RequestPlan } from './request-messages.js'

/** Why a stream of responses ended before its source did. */
export type StreamEnd = Exclude<StreamEndReason, 'finished'>

export interface StreamTerms extends Lease {
  /** Key with which the requester cancels and renews the stream; undefined if it cannot. */
  readonly key: string | undefined
  /** The pattern of the handler. */
  readonly pattern: string
  /** The topic of the request. */
  readonly topic: string
  /** Ends the source. */
  readonly end: (reason: StreamEnd, error: MqttError) => void
}

/** Responses that this connection sends after their handler has returned. */
export class OpenStream {
  isOver = false
  /** Set if the start was reported. */
  facts: StreamFacts | undefined
  /** Number of values sent. */
  values = 0
  /** The error of the source. */
  error: unknown
  /** Called when the stream is over. */
  onOver: () => void = () => {}
  private timer: NodeJS.Timeout | undefined
  private leaseMs: number | undefined

  constructor(
    readonly terms: StreamTerms,
    private readonly onLeaseEnded: (stream: OpenStream) => void,
  ) {
    this.leaseMs = terms.leaseMs
    this.start(terms.firstLeaseMs)
  }

  get isLeased(): boolean {
    return this.timer !== undefined
  }

  /** The requester has renewed the stream. */
  renew(): void {
    if (!this.isOver && this.leaseMs !== undefined) this.start(this.leaseMs)
  }

  /** The requester cannot renew, because the topic for renewals is refused. */
  dropLease(): void {
    this.leaseMs = undefined
    clearTimeout(this.timer)
    this.timer = undefined
  }

  /** @returns whether it was open */
  close(): boolean {
    if (this.isOver) return false
    this.isOver = true
    clearTimeout(this.timer)
    this.onOver()
    return true
  }

  private start(timeMs: number | undefined): void {
    clearTimeout(this.timer)
    this.timer = timeMs === undefined ? undefined : setTimeout(() => this.onLeaseEnded(this), timeMs)
  }
}

/** Two requesters may choose the same Correlation Data, but their response topics differ. */
export function streamKey(responseTopic: string, correlationData: Buffer): string {
  return `${correlationData.toString('hex')} ${responseTopic}`
}

/** Open streams of a responder. Their number is limited, and each ends when its requester is gone. */
export class OpenStreams {
  /** In the order in which they began. */
  private readonly open = new Set<OpenStream>()
  private readonly byKey = new Map<string, Set<OpenStream>>()
  private abandoned = 0
  private evicted = 0
  private readonly idle = new IdleWaiters(() => this.open.size === 0)

  constructor(
    private readonly maxOpen: number,
    private readonly events: ClientEvents,
  ) {}

  get counters() {
    return { openStreams: this.open.size, abandonedStreams: this.abandoned, evictedStreams: this.evicted }
  }

  /** @throws MqttError `TOO_MANY_REQUESTS` if there is no room, and every open stream is renewed */
  begin(terms: StreamTerms): OpenStream {
    if (this.open.size >= this.maxOpen) this.makeRoom()
    const stream = new OpenStream(terms, ended => this.abandon(ended))
    this.open.add(stream)
    if (this.events.stream.hasListeners) this.observe(stream)
    const { key } = terms
    if (key === undefined) return stream
    const namesakes = this.byKey.get(key) ?? new Set()
    this.byKey.set(key, namesakes.add(stream))
    return stream
  }

  /** The source of a stream has ended or failed. */
  finish(stream: OpenStream, reason: StreamEndReason = 'finished'): void {
    if (!stream.close()) return
    this.open.delete(stream)
    const { facts, values, error } = stream
    const failure = error === undefined ? {} : { error }
    if (facts !== undefined) this.events.stream.emit({ ...facts, type: 'end', reason, values, ...failure })
    const { key } = stream.terms
    const namesakes = key === undefined ? undefined : this.byKey.get(key)
    namesakes?.delete(stream)
    if (key !== undefined && namesakes?.size === 0) this.byKey.delete(key)
    this.idle.check()
  }

  /** The requester has cancelled. Every handler that responds to it stops. */
  cancel(key: string): void {
    for (const stream of [...(this.byKey.get(key) ?? [])])
      this.end(stream, 'cancelled', new MqttError('ABORTED', 'the requester cancelled the stream'))
  }

  renew(key: string): void {
    for (const stream of this.byKey.get(key) ?? []) stream.renew()
  }

  /** The requester is gone. */
  abandon(stream: OpenStream): void {
    if (stream.isOver) return
    this.abandoned += 1
    this.end(stream, 'abandoned', new MqttError('ABORTED', 'the requester of the stream is gone'))
  }

  /** Waits until all streams have ended. @returns the number of those that did not end in time and were ended */
  async drain(isInTime: (idle: Promise<void>) => Promise<boolean>): Promise<number> {
    if (await isInTime(this.idle.wait())) return 0
    const left = [...this.open]
    for (const stream of left)
      this.end(stream, 'closing', new MqttError('CONNECTION_CLOSED', 'the responder is closing'))
    return left.length
  }

  private end(stream: OpenStream, reason: StreamEnd, error: MqttError): void {
    this.finish(stream, reason)
    stream.terms.end(reason, error)
  }

  private observe(stream: OpenStream): void {
    const { pattern, topic } = stream.terms
    stream.facts = { client: this.events.client, key: stream, pattern, topic }
    this.events.stream.emit({ ...stream.facts, type: 'start' })
  }

  /** Ends the oldest stream that is not renewed. */
  private makeRoom(): void {
    const text = `there is no room for another response stream: requests.maxStreams is ${this.maxOpen}`
    for (const stream of this.open) {
      if (stream.isLeased) continue
      this.evicted += 1
      return this.end(stream, 'evicted', new MqttError('TOO_MANY_REQUESTS', text))
    }
    throw new MqttError('TOO_MANY_REQUESTS', text)
  }
}

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
  /** The request, with what a listener has added. */
  request: OutgoingRequest
  private readonly facts: RequestFacts
  private isOver = false
  private responses = 0

  constructor(
    private readonly receiver: ResponseReceiver,
    private readonly events: ClientEvents,
    request: OutgoingRequest,
    { protocol, isStream }: RequestPlan,
  ) {
    this.request = request
    const addUserProperties = (added: Readonly<Record<string, string>>): void => {
      this.request = withUserProperties(this.request, added)
    }
    this.facts = { client: events.client, key: this, topic: request.topic, protocol, isStream }
    events.request.emit({ ...this.facts, type: 'start', addUserProperties })
  }

  next(value: unknown): void {
    this.responses += 1
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

  /** The caller wants no more responses, or the request has ended. */
  reportEnd(error?: MqttError): void {
    if (this.isOver) return
    this.isOver = true
    const { facts, responses } = this
    this.events.request.emit({ ...facts, type: 'end', responses, ...(error === undefined ? {} : { error }) })
  }
}

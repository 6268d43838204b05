import { describeCause, MqttError } from '../../core/errors.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import { type Codec, decodePacket } from '../../options/codec.js'
import type { PublishPacket } from '../connection/link.js'
import type { ResponseReceiver } from './open-requests.js'

/** User Property with the kind of a response. Without it, the response is the only one. */
export const STATUS = 'status'

export type Response =
  | { readonly kind: 'value'; readonly value: unknown; readonly isOnly: boolean }
  | { readonly kind: 'end' }
  | { readonly kind: 'cancel' }
  | { readonly kind: 'renew' }
  | { readonly kind: 'error'; readonly error: MqttError }

/** How a topic of responses is subscribed: a response that is retained was for somebody else. */
export function responseSubscription(qos: 0 | 1): SubscriptionOptions {
  return { qos, noLocal: false, retainHandling: 2 }
}

/** What a message on the private response topic says (MQTT 5, 4.10). */
export function readResponse(packet: PublishPacket, codec: Codec): Response {
  const status = packet.properties?.userProperties?.[STATUS]
  if (status === 'end' || status === 'cancel' || status === 'renew') return { kind: status }
  try {
    const value = decodePacket(codec, packet)
    if (status === 'error') return { kind: 'error', error: responderError(value) }
    return { kind: 'value', value, isOnly: status !== 'next' }
  } catch (error) {
    const failure =
      error instanceof MqttError ? error : new MqttError('PAYLOAD_NOT_DECODABLE', describeCause(error))
    return { kind: 'error', error: failure }
  }
}

/** An error that a responder sent: its text, and the whole of it as `response`. */
export function responderError(value: unknown): MqttError {
  return new MqttError('REQUEST_FAILED', textOf(value), { response: value })
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'object' && value !== null && 'message' in value) return String(value.message)
  return 'the responder failed'
}

type Reader<T> = {
  readonly resolve: (result: IteratorResult<T, undefined>) => void
  readonly reject: (error: unknown) => void
}

/** Responses of one request, for a `for await` loop. */
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

  private add(answer: { readonly value: T }): void {
    const reader = this.readers.shift()
    if (reader !== undefined) return reader.resolve({ done: false, value: answer.value })
    if (this.waiting.length < this.limit) {
      this.waiting.push(answer)
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

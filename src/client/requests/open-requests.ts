import { setMaxListeners } from 'node:events'
import type { ConnectionState, ProtocolVersion } from '../../core/connection/connection-state.js'
import { MqttError } from '../../core/errors.js'
import type { BlockableRequest } from '../../core/inbound/blocked-requests.js'
import type { OutboundMessage, PublishTerms } from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import {
  abortedError,
  blockedError,
  incompleteError,
  type ResponseTopics,
  tooManyError,
} from '../../core/requests/request-rules.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import type { ClientEvents, PublishPurpose } from '../events.js'
import type { InboundHandler } from '../inbound/delivery.js'
import type { WaitOptions } from '../waits.js'
import type { RequestTerms } from './request-messages.js'

/** The part of a session that requests use. */
export interface RequestSession {
  readonly connection: {
    readonly state: ConnectionState
    readonly protocolVersion: ProtocolVersion
  }
  addRoute(filter: TopicFilter, options: SubscriptionOptions, handler: InboundHandler): () => void
  readonly subscriptions: {
    flush(): void
    isGranted(subscription: string): boolean
    whenGranted(subscription: string, wait?: WaitOptions): Promise<void>
  }
  readonly dispatcher: {
    readonly pool: {
      /** A request waits for its response: the handler that made it lends its slot. @returns a function that ends this */
      requestOpened(request?: BlockableRequest): () => void
      /** Handlers that start from now on know their requests. */
      trackRequests(): void
    }
  }
  readonly responseTopics: ResponseTopics
  readonly events: ClientEvents
  readonly publisher: {
    /** `exchanging`: a request was published at QoS 1. */
    readonly paced: { exchanging(): void } | undefined
    /** Set while a connection is replaced by the next one, for which publishes wait. */
    readonly replaced: unknown
  }
  publish(message: OutboundMessage, terms?: PublishTerms, purpose?: PublishPurpose): Promise<PublishOutcome>
}

/** Number of ended streams that are remembered, for responders that respond later. */
const MAX_ENDED_STREAMS = 1_000
/** Number of responders of one stream that receive renewals and cancels. */
const MAX_RESPONDERS = 32

/** Receives the responses of a request. */
export interface ResponseReceiver {
  next(value: unknown): void
  /** The request has ended. */
  end(): void
  fail(error: MqttError): void
}

interface OpenRequest<T> {
  readonly topic: string
  readonly receiver: ResponseReceiver
  readonly terms: T
  timer?: NodeJS.Timeout
  /** Number of responses before the last one. */
  received: number
  /** Set if the request has a signal. */
  readonly abort: (() => void) | undefined
  /** Called when the request has ended. */
  readonly onEnded: () => void
  /** Stops waiting for the grant of the response topic. */
  leave?: () => void
  /** Topics on which the responders of the stream receive renewals and cancels. */
  responders?: Set<string>
  renewal?: NodeJS.Timeout
}

/** What a requester sends to a responder of its stream. */
export type StreamSignal = 'cancel' | 'renew'

/** Open requests. Each ends exactly once: with its last response, an error, its timeout, its signal or the connection. */
export class OpenRequests<T extends RequestTerms = RequestTerms> {
  private readonly open = new Map<string, OpenRequest<T>>()
  /** Number of open requests on each topic. */
  private readonly topics = new Map<string, number>()
  /** Ended streams, with the responders that have received a cancel. */
  private readonly endedStreams = new Map<string, Set<string>>()
  private unexpected = 0

  /**
   * @param onOpened called for each request, with its details if it may be blocked. Returns what is called when it has ended
   * @param signal sends a signal to a responder
   * @param renewMs interval of renewals
   */
  constructor(
    private readonly maxOpen: number,
    private readonly onOpened: (request: BlockableRequest | undefined) => () => void,
    private readonly signal: (topic: string, key: string, signal: StreamSignal) => void,
    private readonly renewMs: number,
  ) {}

  get size(): number {
    return this.open.size
  }

  /** Number of responses without an open request, such as late or repeated ones. */
  get unexpectedResponses(): number {
    return this.unexpected
  }

  /**
   * Adds a request.
   * @param delivery which of its messages are delivered to this connection at QoS 1
   * @returns false if it has failed at once
   */
  add(
    key: string,
    topic: string,
    receiver: ResponseReceiver,
    terms: T,
    delivery?: BlockableRequest['delivery'],
  ): boolean {
    const { signal } = terms
    if (signal?.aborted) {
      receiver.fail(abortedError(topic, signal))
      return false
    }
    if (this.open.size >= this.maxOpen) {
      receiver.fail(tooManyError(this.maxOpen))
      return false
    }
    const abort = signal && ((): void => this.giveUp(key, abortedError(topic, signal)))
    if (signal !== undefined && abort !== undefined) {
      // Many requests may share one signal, so many listeners are not a leak.
      setMaxListeners(0, signal)
      signal.addEventListener('abort', abort)
    }
    const onEnded = this.onOpened(
      delivery && { delivery, block: () => this.giveUp(key, blockedError(topic)) },
    )
    const request: OpenRequest<T> = { topic, receiver, terms, received: 0, abort, onEnded }
    this.open.set(key, request)
    this.topics.set(topic, (this.topics.get(topic) ?? 0) + 1)
    this.startTimer(key, request)
    return true
  }

  /** Returns the terms of an open request. */
  termsOf(key: string): T | undefined {
    return this.open.get(key)?.terms
  }

  /** Whether a request on this topic is open. */
  hasTopic(topic: string): boolean {
    return this.topics.has(topic)
  }

  has(key: string): boolean {
    return this.open.has(key)
  }

  /** Handles a response. @returns false if no request waits for it */
  next(key: string, value: unknown): boolean {
    const request = this.open.get(key)
    if (request === undefined) {
      this.unexpected += 1
      return false
    }
    request.received += 1
    request.timer?.refresh()
    request.receiver.next(value)
    return true
  }

  /** Handles the only or the last response. */
  last(key: string, value: unknown): void {
    const request = this.over(key)
    if (request === undefined) {
      this.unexpected += 1
      return
    }
    request.receiver.next(value)
    request.receiver.end()
  }

  /** @param sent number of responses that the responder has sent, or NaN */
  end(key: string, sent = Number.NaN): void {
    const request = this.over(key)
    if (request === undefined) return
    const { topic, receiver, received } = request
    if (received < sent) receiver.fail(incompleteError(topic, sent - received, sent))
    else receiver.end()
  }

  fail(key: string, error: MqttError): void {
    this.over(key)?.receiver.fail(error)
  }

  /** Sets a function that is called when the request ends. */
  setLeave(key: string, leave: () => void): void {
    const request = this.open.get(key)
    if (request !== undefined) request.leave = leave
  }

  /** Adds the topic on which a responder of a stream receives renewals and cancels. */
  addResponder(key: string, topic: string): void {
    const request = this.open.get(key)
    if (request === undefined) return this.cancelLate(key, topic)
    if (!request.terms.isStream) return
    request.responders ??= new Set()
    const { responders } = request
    if (responders.has(topic) || responders.size >= MAX_RESPONDERS) return
    responders.add(topic)
    request.renewal ??= setInterval(() => {
      for (const responder of responders) this.signal(responder, key, 'renew')
    }, this.renewMs)
  }

  /** The requester wants no more responses. */
  cancel(key: string): void {
    const request = this.take(key)
    if (request !== undefined) this.cancelAll(key, request)
  }

  failAll(cause: MqttError): void {
    for (const key of [...this.open.keys()]) {
      const request = this.take(key)
      // No responder has received a cancel, so each one gets it when it responds after the outage.
      if (this.endedStreams.has(key)) this.endedStreams.set(key, new Set())
      request?.receiver.fail(cause)
    }
  }

  private giveUp(key: string, error: MqttError): void {
    const request = this.take(key)
    if (request === undefined) return
    this.cancelAll(key, request)
    request.receiver.fail(error)
  }

  /** Starts the time limit for the next response. Each response restarts it. */
  private startTimer(key: string, request: OpenRequest<T>): void {
    const { topic } = request
    const { timeoutMs } = request.terms
    request.timer = setTimeout(() => {
      this.giveUp(
        key,
        new MqttError('TIMEOUT', `no response to the request on "${topic}" within ${timeoutMs} ms`),
      )
    }, timeoutMs)
  }

  /** A responder has ended the request. Other responders of the stream are cancelled. */
  private over(key: string): OpenRequest<T> | undefined {
    const request = this.take(key)
    if (request !== undefined && (request.responders?.size ?? 0) > 1) this.cancelAll(key, request)
    return request
  }

  private cancelAll(key: string, { responders }: OpenRequest<T>): void {
    for (const topic of responders ?? []) this.signal(topic, key, 'cancel')
  }

  private cancelLate(key: string, topic: string): void {
    const cancelled = this.endedStreams.get(key)
    if (cancelled === undefined || cancelled.has(topic) || cancelled.size >= MAX_RESPONDERS) return
    cancelled.add(topic)
    this.signal(topic, key, 'cancel')
  }

  private remember(key: string, { terms, responders }: OpenRequest<T>): void {
    if (!terms.isStream) return
    this.endedStreams.set(key, responders ?? new Set())
    if (this.endedStreams.size <= MAX_ENDED_STREAMS) return
    const [oldest = ''] = this.endedStreams.keys()
    this.endedStreams.delete(oldest)
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
    clearInterval(request.renewal)
    if (request.abort !== undefined) request.terms.signal?.removeEventListener('abort', request.abort)
    request.leave?.()
    this.remember(key, request)
    return request
  }
}

import { createHash, randomUUID } from 'node:crypto'
import { closedError, MqttError } from '../../core/errors.js'
import type { BlockableRequest } from '../../core/inbound/blocked-requests.js'
import { type PublishOutcome, SENT } from '../../core/outbound/publish-outcome.js'
import { isSafe, type RequestProtocol, requestFailure } from '../../core/requests/request-rules.js'
import { parseTopicFilter, type TopicFilter } from '../../core/topic/topic-filter.js'
import { Routes } from '../../core/topic/topic-trie.js'
import type { RequestOptions } from '../../options/client-options.js'
import { resolveCodec } from '../../options/codec.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import type { PublishPacket } from '../connection/link.js'
import { newHandler } from '../inbound/delivery.js'
import { inEnvelope, ReplyTopics, SharedGrant } from './nest-envelope.js'
import {
  OpenRequests,
  type RequestSession,
  type ResponseReceiver,
  type StreamSignal,
} from './open-requests.js'
import {
  Correlation,
  mqtt5Request,
  type OutgoingRequest,
  type RequestPlan,
  readResponse,
  responseSubscription,
  STATUS,
} from './request-messages.js'
import { ObservedReceiver, OpenStreams, streamKey } from './streams.js'

/** One or two lost renewals must not end a stream. */
const RENEWALS_PER_LEASE = 3

/** Sends requests and matches their responses, which arrive on one private topic per connection. */
export class Requester {
  private readonly open: OpenRequests<RequestPlan>
  private readonly replyTopics: ReplyTopics
  private readonly correlation = new Correlation()
  /** Open streams of this connection as the responder. */
  readonly streams: OpenStreams
  private readonly renewMs: number
  private readonly responses: TopicFilter
  private readonly grant: SharedGrant
  /** Topics on which this connection receives requests at QoS 1. */
  private takenAtQos1: Routes<true> | undefined
  private isListening = false
  private refusedTopics = 0

  constructor(
    private readonly session: RequestSession,
    private readonly options: ResolvedOptions,
  ) {
    const { responseTopicPrefix, maxOpen, maxStreams, streamLeaseMs, responseQos } = options.requests
    this.renewMs = Math.floor(streamLeaseMs / RENEWALS_PER_LEASE)
    this.open = new OpenRequests(
      maxOpen,
      request => session.dispatcher.pool.requestOpened(request),
      (topic, key, signal) => this.signal(topic, key, signal),
      this.renewMs,
    )
    this.streams = new OpenStreams(maxStreams, session.events)
    this.responses = parseTopicFilter(`${responseTopicPrefix}/${privateLevel(options)}`)
    this.grant = new SharedGrant(session.subscriptions, this.responses.subscription)
    this.replyTopics = new ReplyTopics(session, this.open, responseQos)
  }

  /** The connection has ended: no response will arrive. */
  lost(cause: MqttError): void {
    this.open.failAll(cause)
  }

  get counters() {
    const { size, unexpectedResponses } = this.open
    return {
      open: size,
      unexpectedResponses,
      refusedResponseTopics: this.refusedTopics,
      ...this.streams.counters,
    }
  }

  /** Counts a request whose Response Topic is not allowed. */
  refusedTopic(): void {
    this.refusedTopics += 1
  }

  /** The protocol of requests on this connection: Nest's envelope on MQTT 3.1.1, which has no Response Topic. */
  get defaultProtocol(): RequestProtocol {
    return this.session.connection.protocolVersion === 5 ? 'mqtt5' : 'nest'
  }

  /** The private topic of this connection. */
  get responseTopic(): string {
    return this.responses.subscription
  }

  /** This connection receives requests of a filter at QoS 1. @returns a function that ends this */
  takesAtQos1(filter: TopicFilter): () => void {
    this.takenAtQos1 ??= new Routes()
    this.takenAtQos1.add(filter, true)
    this.session.dispatcher.pool.trackRequests()
    return () => this.takenAtQos1?.remove(filter, true)
  }

  /** Returns the grant of the private topic, which is subscribed with its first use. */
  listen(): SharedGrant {
    if (this.isListening) return this.grant
    this.isListening = true
    const take = newHandler({
      name: 'responses',
      isPassive: true,
      isInternal: true,
      orderKey: 'none',
      run: async packet => this.take(packet),
    })
    this.session.addRoute(this.responses, responseSubscription(this.options.requests.responseQos), take)
    this.session.subscriptions.flush()
    return this.grant
  }

  /** Sends a request with the defaults of this connection. @returns a function that cancels it */
  request(
    request: OutgoingRequest,
    options: Pick<RequestOptions, 'codec' | 'protocol' | 'timeoutMs' | 'signal'>,
    isStream: boolean,
    receiver: ResponseReceiver,
  ): () => void {
    const { codec, requests } = this.options
    const plan = {
      protocol: options.protocol ?? this.defaultProtocol,
      isStream,
      codec: resolveCodec(options.codec ?? codec),
      timeoutMs: options.timeoutMs ?? requests.timeoutMs,
      signal: options.signal,
    }
    return this.start(request, plan, receiver)
  }

  private start(request: OutgoingRequest, plan: RequestPlan, receiver: ResponseReceiver): () => void {
    if (!this.session.events.request.hasListeners) return this.begin(request, plan, receiver)
    const observed = new ObservedReceiver(receiver, this.session.events, request, plan)
    const cancel = this.begin(observed.request, plan, observed)
    return () => {
      observed.reportEnd()
      cancel()
    }
  }

  private begin(request: OutgoingRequest, plan: RequestPlan, receiver: ResponseReceiver): () => void {
    const { status } = this.session.connection.state
    // Requests wait for the connection that replaces this one, on which SUBSCRIBE is sent first.
    const isReplaced = this.session.publisher.replaced !== undefined
    if (status !== 'connected' && !isReplaced) {
      receiver.fail(
        status === 'closed' || status === 'closing'
          ? closedError()
          : new MqttError('CONNECTION_LOST', `there is no connection for the request on "${request.topic}"`),
      )
      return () => {}
    }
    if (plan.protocol === 'mqtt5' && this.defaultProtocol !== 'mqtt5') {
      const text = `the request on "${request.topic}" needs MQTT 5 (protocol: "mqtt5"), but this connection uses MQTT 3.1.1`
      receiver.fail(new MqttError('INVALID_OPTION', text))
      return () => {}
    }
    const correlationData = this.correlation.next()
    const key = correlationData.toString('hex')
    if (!this.open.add(key, request.topic, receiver, plan, this.deliveryOf(request))) return () => {}
    // A request that still waits to be written when its loop is left is not written.
    const withdrawal = plan.isStream ? new AbortController() : undefined
    const terms = withdrawal === undefined ? plan : { ...plan, signal: anyOf(plan.signal, withdrawal.signal) }
    const grant = plan.protocol === 'mqtt5' ? this.listen() : this.replyTopics.listen(request.topic)
    if (grant.isGranted || isReplaced) this.send(key, request, terms, correlationData)
    else {
      const leave = grant.wait(refused => {
        if (refused !== undefined) return this.open.fail(key, asMqttError(refused))
        if (this.open.has(key)) this.send(key, request, terms, correlationData)
      })
      this.open.setLeave(key, leave)
    }
    return () => {
      this.open.cancel(key)
      withdrawal?.abort()
    }
  }

  /** Returns which messages of a request are delivered to this connection at QoS 1. */
  private deliveryOf({ topic, qos }: OutgoingRequest): BlockableRequest['delivery'] | undefined {
    const isTakenHere = qos > 0 && (this.takenAtQos1?.select(topic, undefined).length ?? 0) > 0
    if (this.options.requests.responseQos === 0) return isTakenHere ? 'request' : undefined
    return isTakenHere ? 'both' : 'response'
  }

  private send(key: string, request: OutgoingRequest, plan: RequestPlan, correlationData: Buffer): void {
    let sending: Promise<PublishOutcome>
    try {
      sending = this.publish(key, request, plan, correlationData)
    } catch (error) {
      return this.open.fail(key, asMqttError(error))
    }
    if (sending === SENT) return
    sending.then(
      outcome => {
        const failure = requestFailure(request.topic, outcome)
        if (failure !== undefined) this.open.fail(key, failure)
      },
      (error: unknown) => this.open.fail(key, asMqttError(error)),
    )
  }

  private publish(
    key: string,
    request: OutgoingRequest,
    plan: RequestPlan,
    correlationData: Buffer,
  ): Promise<PublishOutcome> {
    const { signal, timeoutMs } = plan
    const message =
      plan.protocol === 'mqtt5'
        ? mqtt5Request(
            request,
            plan,
            { responseTopic: this.responseTopic, correlationData },
            this.options.requests.streamLeaseMs,
          )
        : inEnvelope(key, request)
    const terms = { whenBlocked: 'wait', timeoutMs, ...(signal === undefined ? {} : { signal }) } as const
    const sending = this.session.publish(message, terms, 'request')
    if (message.qos > 0 && this.options.requests.ackPings) this.session.publisher.paced?.exchanging()
    return sending
  }

  private take(packet: PublishPacket): void {
    const { correlationData, responseTopic } = packet.properties ?? {}
    if (correlationData === undefined) return
    const key = correlationData.toString('hex')
    const response = readResponse(packet, this.open.termsOf(key)?.codec ?? resolveCodec(this.options.codec))
    switch (response.kind) {
      case 'cancel':
        return this.streams.cancel(streamKey(responseTopic ?? '', correlationData))
      case 'renew':
        return this.streams.renew(streamKey(responseTopic ?? '', correlationData))
      case 'error':
        return this.open.fail(key, response.error)
      case 'end':
        return this.open.end(key, response.sent)
      case 'value':
        if (responseTopic !== undefined && isSafe(responseTopic)) this.open.addResponder(key, responseTopic)
        if (response.isOnly) this.open.last(key, response.value)
        else this.open.next(key, response.value)
    }
  }

  /** A cancel is sent at QoS 1. A lost renewal does no harm, because the next one follows. */
  private signal(topic: string, key: string, signal: StreamSignal): void {
    const properties = {
      correlationData: Buffer.from(key, 'hex'),
      responseTopic: this.responseTopic,
      userProperties: { [STATUS]: signal },
    }
    const message = { topic, payload: Buffer.alloc(0), retain: false, properties }
    const waiting = { whenBlocked: 'wait', timeoutMs: this.renewMs } as const
    const sent =
      signal === 'cancel'
        ? this.session.publish({ ...message, qos: 1 }, undefined, 'signal')
        : this.session.publish({ ...message, qos: 0 }, waiting, 'signal')
    Promise.resolve(sent).catch(() => {})
  }
}

function anyOf(own: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return own === undefined ? other : AbortSignal.any([own, other])
}

/** The same after a restart for a persistent session, so that its subscription is found again. The Correlation Data is secret. */
function privateLevel({ clean, clientId }: ResolvedOptions): string {
  return clean ? randomUUID() : createHash('sha256').update(clientId).digest('hex').slice(0, 32)
}

function asMqttError(error: unknown): MqttError {
  return error instanceof MqttError
    ? error
    : new MqttError('NOT_SENT', 'the request could not be sent', { cause: error })
}

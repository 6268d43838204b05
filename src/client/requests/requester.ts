import { createHash, randomUUID } from 'node:crypto'
import { NO_MATCHING_SUBSCRIBERS } from '../../core/connection/reconnect-rules.js'
import { closedError, MqttError } from '../../core/errors.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import { isSafe, LEASE, OwnReplies, STREAM } from '../../core/requests/reply-target.js'
import { parseTopicFilter, type TopicFilter } from '../../core/topic/topic-filter.js'
import { Routes } from '../../core/topic/topic-trie.js'
import { resolveCodec } from '../../options/codec.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import type { PublishPacket } from '../connection/link.js'
import { newHandler } from '../inbound/new-handler.js'
import type { BlockableRequest } from '../inbound/run-context.js'
import { inEnvelope, NestReplies } from './nest-envelope.js'
import {
  Correlation,
  OpenRequests,
  type OutgoingRequest,
  type RequestPlan,
  type RequestProtocol,
  type ResponseReceiver,
  type Word,
} from './open-requests.js'
import { OpenStreams, streamKey } from './open-streams.js'
import type { RequestSession } from './request-session.js'
import { readResponse, responseSubscription, STATUS } from './responses.js'
import { SharedGrant } from './shared-grant.js'
import { ToldReceiver } from './told-receiver.js'

const MS = 1_000
/** A lost renewal or two must not end a stream. */
const RENEWALS_PER_LEASE = 3

/** Sends requests and matches their responses, which arrive on one private topic per connection. */
export class Requester {
  private readonly open: OpenRequests<RequestPlan>
  private readonly replies: NestReplies
  /** Topics of responses, which wildcard handlers must not receive as events. */
  readonly ownReplies: OwnReplies
  private readonly correlation = new Correlation()
  /** What this connection goes on to give as the responder. */
  readonly streams: OpenStreams
  private readonly renewMs: number
  private readonly responses: TopicFilter
  private readonly grant: SharedGrant
  /** Topics on which this connection takes requests at QoS 1. */
  private readonly takenAtQos1 = new Routes<true>()
  private isListening = false
  private refusedTopics = 0

  constructor(
    private readonly session: RequestSession,
    private readonly options: ResolvedOptions,
  ) {
    const { responseTopicPrefix, maxOpen, maxStreams, streamLeaseMs, responseQos } = options.requests
    if (responseQos > 0) session.dispatcher.pool.trackRequests()
    this.renewMs = Math.floor(streamLeaseMs / RENEWALS_PER_LEASE)
    this.open = new OpenRequests(
      maxOpen,
      request => session.dispatcher.pool.requestOpened(request),
      (topic, key, word) => this.tell(topic, key, word),
      this.renewMs,
    )
    this.streams = new OpenStreams(maxStreams)
    this.ownReplies = new OwnReplies(responseTopicPrefix)
    this.responses = parseTopicFilter(`${responseTopicPrefix}/${privateLevel(options)}`)
    this.grant = new SharedGrant(() => session.whenGranted(this.responses))
    this.replies = new NestReplies(session, this.open, this.ownReplies, options.requests.responseQos)
    session.connection.attach({
      lost: cause => this.open.failAll(cause),
      stateChanged: ({ status }) => {
        if (status === 'closed') this.open.failAll(closedError())
      },
    })
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

  /** What is asked on this connection by default: the envelope where there is no Response Topic. */
  get defaultProtocol(): RequestProtocol {
    return this.session.connection.protocolVersion === 5 ? 'mqtt5' : 'nest'
  }

  /** The private topic of this connection. */
  get responseTopic(): string {
    return this.responses.subscription
  }

  /** This connection takes requests at QoS 1. */
  takesAtQos1(filter: TopicFilter): void {
    this.takenAtQos1.add(filter, true)
    this.session.dispatcher.pool.trackRequests()
  }

  /** The grant of the private topic, which is subscribed with its first use. */
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
    this.session.flushSubscriptions()
    return this.grant
  }

  /** Sends a request. @returns what ends it from this side, and tells the responder to stop */
  start(request: OutgoingRequest, plan: RequestPlan, receiver: ResponseReceiver): () => void {
    if (!this.session.events.request.isHeard) return this.begin(request, plan, receiver)
    const told = new ToldReceiver(receiver, this.session.events, request.topic, plan.protocol)
    const cancel = this.begin(request, plan, told)
    return () => {
      told.cancelled()
      cancel()
    }
  }

  private begin(request: OutgoingRequest, plan: RequestPlan, receiver: ResponseReceiver): () => void {
    const { status } = this.session.connection.state
    if (status !== 'connected') {
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
    // One that waits to be written when its loop is left is not written any more.
    const left = plan.isStream ? new AbortController() : undefined
    const withdrawn = left === undefined ? plan : { ...plan, signal: anyOf(plan.signal, left.signal) }
    const grant = plan.protocol === 'mqtt5' ? this.listen() : this.replies.listen(request.topic)
    const leave = grant.wait(refused => {
      if (refused !== undefined) return this.open.fail(key, asMqttError(refused))
      if (this.open.has(key)) this.send(key, request, withdrawn, correlationData)
    })
    this.open.setLeave(key, leave)
    return () => {
      this.open.cancel(key)
      left?.abort()
    }
  }

  /** What of a request is delivered to this connection at QoS 1. */
  private deliveryOf({ topic, qos }: OutgoingRequest): BlockableRequest['delivery'] | undefined {
    const isTakenHere = qos > 0 && this.takenAtQos1.select(topic, undefined).length > 0
    if (this.options.requests.responseQos === 0) return isTakenHere ? 'request' : undefined
    return isTakenHere ? 'both' : 'response'
  }

  private send(key: string, request: OutgoingRequest, plan: RequestPlan, correlationData: Buffer): void {
    this.publish(key, request, plan, correlationData).then(
      outcome => this.takeOutcome(key, request.topic, outcome),
      (error: unknown) => this.open.fail(key, asMqttError(error)),
    )
  }

  private async publish(
    key: string,
    request: OutgoingRequest,
    plan: RequestPlan,
    correlationData: Buffer,
  ): Promise<PublishOutcome> {
    const { signal, timeoutMs } = plan
    const message =
      plan.protocol === 'mqtt5'
        ? this.withProperties(request, plan, correlationData)
        : inEnvelope(key, request)
    return this.session.publish(message, {
      whenBlocked: 'wait',
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
    })
  }

  private withProperties(
    request: OutgoingRequest,
    { timeoutMs, isStream }: RequestPlan,
    correlationData: Buffer,
  ): OutboundMessage {
    const { data: _data, pattern: _pattern, metadata: _metadata, ...message } = request
    const userProperties = {
      ...message.properties?.userProperties,
      ...(isStream
        ? { [STREAM]: 'true', [LEASE]: String(Math.ceil(this.options.requests.streamLeaseMs / MS)) }
        : {}),
    }
    const properties = {
      // A responder that comes to it later does work that nobody waits for.
      messageExpiryInterval: Math.ceil(timeoutMs / MS),
      ...message.properties,
      ...(Object.keys(userProperties).length === 0 ? {} : { userProperties }),
      responseTopic: this.responseTopic,
      correlationData,
    }
    return { ...message, properties }
  }

  private takeOutcome(key: string, topic: string, outcome: PublishOutcome): void {
    const failure = failureOf(topic, outcome)
    if (failure !== undefined) this.open.fail(key, failure)
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
        return this.open.end(key)
      case 'value':
        if (responseTopic !== undefined && isSafe(responseTopic)) this.open.addResponder(key, responseTopic)
        if (this.open.next(key, response.value) && response.isOnly) this.open.end(key)
    }
  }

  /** A cancel is worth an acknowledgement; a renewal that is lost is followed by the next one. */
  private tell(topic: string, key: string, word: Word): void {
    const properties = {
      correlationData: Buffer.from(key, 'hex'),
      responseTopic: this.responseTopic,
      userProperties: { [STATUS]: word },
    }
    const message = { topic, payload: Buffer.alloc(0), retain: false, properties }
    const sent =
      word === 'cancel'
        ? this.session.publish({ ...message, qos: 1 })
        : this.session.publish({ ...message, qos: 0 }, { whenBlocked: 'wait', timeoutMs: this.renewMs })
    Promise.resolve(sent).catch(() => {})
  }
}

function anyOf(own: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return own === undefined ? other : AbortSignal.any([own, other])
}

/** A kept session must find its subscription again after a restart; it is the Correlation Data that nobody can guess. */
function privateLevel({ clean, clientId }: ResolvedOptions): string {
  return clean ? randomUUID() : createHash('sha256').update(clientId).digest('hex').slice(0, 32)
}

/** Returns the error of a request whose publish failed, or undefined. */
function failureOf(topic: string, outcome: PublishOutcome): MqttError | undefined {
  switch (outcome.status) {
    case 'sent':
      return undefined
    case 'acknowledged':
      return outcome.reasonCode === NO_MATCHING_SUBSCRIBERS
        ? new MqttError('NO_RESPONDER', `nobody subscribes to "${topic}"`, { reasonCode: outcome.reasonCode })
        : undefined
    case 'refused':
      return new MqttError(
        'NOT_SENT',
        `the broker refused the request on "${topic}"${outcome.reasonString === undefined ? '' : `: ${outcome.reasonString}`}`,
        { reasonCode: outcome.reasonCode },
      )
    case 'dropped':
      return new MqttError('NOT_SENT', `the request on "${topic}" was dropped: ${outcome.reason}`)
    case 'lost':
      return new MqttError('CONNECTION_LOST', `the request on "${topic}" was lost`, { cause: outcome.cause })
  }
}

function asMqttError(error: unknown): MqttError {
  return error instanceof MqttError
    ? error
    : new MqttError('NOT_SENT', 'the request could not be sent', { cause: error })
}

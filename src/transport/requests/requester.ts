import { createHash, randomUUID } from 'node:crypto'
import { resolveCodec } from '../../codec.js'
import { MqttError } from '../../errors.js'
import type { PublishOutcome } from '../../publish-outcome.js'
import type { ResolvedOptions } from '../../resolved-options.js'
import { parseTopicFilter, type TopicFilter } from '../../topic/topic-filter.js'
import type { PublishPacket } from '../connection/link.js'
import { NO_MATCHING_SUBSCRIBERS } from '../connection/reason-code-rules.js'
import { newHandler } from '../inbound/new-handler.js'
import { isSafe, STREAM } from '../inbound/reply-target.js'
import type { PublishTerms } from '../outbound/outbound-message.js'
import { Correlation } from './correlation.js'
import { NestReplies } from './nest-replies.js'
import { OpenRequests, type ResponseReceiver } from './open-requests.js'
import { OwnReplies } from './own-replies.js'
import type { OutgoingRequest, RequestPlan, RequestProtocol } from './request-plan.js'
import type { RequestSession } from './request-session.js'
import { readResponse, responseSubscription, STATUS } from './response.js'

const MS = 1_000

/** Asks, and finds the request of each answer. One private topic for each connection takes all of them. */
export class Requester {
  private readonly open: OpenRequests<RequestPlan>
  private readonly replies: NestReplies
  /** Topics of answers, which no wildcard handler takes for events. */
  readonly ownReplies: OwnReplies
  private readonly correlation = new Correlation()
  private readonly cancels = new Map<string, Set<() => void>>()
  private readonly responses: TopicFilter
  private isListening = false
  private refusedTopics = 0

  constructor(
    private readonly session: RequestSession,
    private readonly options: ResolvedOptions,
  ) {
    this.open = new OpenRequests(options.requests.maxOpen, () => session.dispatcher.pool.requestOpened())
    const { responseTopicPrefix } = options.requests
    this.ownReplies = new OwnReplies(responseTopicPrefix)
    this.responses = parseTopicFilter(`${responseTopicPrefix}/${privateLevel(options)}`)
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
    return { open: size, unexpectedResponses, refusedResponseTopics: this.refusedTopics }
  }

  /** An answer was to go where none may go. */
  refusedTopic(): void {
    this.refusedTopics += 1
  }

  /** What is asked on this connection by default: the envelope where there is no Response Topic. */
  get defaultProtocol(): RequestProtocol {
    return this.session.connection.protocolVersion === 5 ? 'mqtt5' : 'nest'
  }

  /** The private topic of this connection, subscribed with its first use. */
  async responseTopic(): Promise<string> {
    if (!this.isListening) {
      this.isListening = true
      const take = newHandler({
        name: 'responses',
        isPassive: true,
        isInternal: true,
        orderKey: () => undefined,
        run: async packet => this.take(packet),
      })
      this.session.addRoute(this.responses, responseSubscription(this.options.requests.responseQos), take)
      this.session.flushSubscriptions()
    }
    await this.session.whenGranted(this.responses)
    return this.responses.subscription
  }

  /** Sends a request. @returns what ends it from this side, and tells the responder to stop */
  start(request: OutgoingRequest, plan: RequestPlan, receiver: ResponseReceiver): () => void {
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
      const text = `protocol "mqtt5" for the request on "${request.topic}": this connection is MQTT 3.1.1`
      receiver.fail(new MqttError('INVALID_OPTION', text))
      return () => {}
    }
    const correlationData = this.correlation.next()
    const key = correlationData.toString('hex')
    if (!this.open.add(key, request.topic, receiver, plan)) return () => {}
    // One that waits to be written when its loop is left is not written any more.
    const left = plan.isStream ? new AbortController() : undefined
    const withdrawn = left === undefined ? plan : { ...plan, signal: anyOf(plan.signal, left.signal) }
    const sent =
      plan.protocol === 'mqtt5'
        ? this.sendWithProperties(key, request, withdrawn, correlationData)
        : this.replies.send(key, request, withdrawn)
    sent.then(
      outcome => this.takeOutcome(key, request.topic, outcome),
      (error: unknown) => this.open.fail(key, asMqttError(error)),
    )
    return () => {
      this.open.cancel(key)
      left?.abort()
    }
  }

  /** A stream of answers runs here; `stop` is called when its requester wants no more. @returns what ends this */
  onCancel(correlationData: Buffer, stop: () => void): () => void {
    const key = correlationData.toString('hex')
    const stops = this.cancels.get(key) ?? new Set()
    this.cancels.set(key, stops.add(stop))
    return () => {
      stops.delete(stop)
      if (stops.size === 0) this.cancels.delete(key)
    }
  }

  private async sendWithProperties(
    key: string,
    request: OutgoingRequest,
    { timeoutMs, signal, isStream }: RequestPlan,
    correlationData: Buffer,
  ): Promise<PublishOutcome> {
    const { data: _data, pattern: _pattern, metadata: _metadata, ...message } = request
    const responseTopic = await this.responseTopic()
    if (!this.open.has(key)) return { status: 'dropped', reason: 'aborted' }
    const userProperties = {
      ...message.properties?.userProperties,
      ...(isStream ? { [STREAM]: 'true' } : {}),
    }
    const properties = {
      // A responder that comes to it later does work that nobody waits for.
      messageExpiryInterval: Math.ceil(timeoutMs / MS),
      ...message.properties,
      ...(Object.keys(userProperties).length === 0 ? {} : { userProperties }),
      responseTopic,
      correlationData,
    }
    return this.session.publish({ ...message, properties }, { ...waiting(signal), timeoutMs })
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
    if (response.kind === 'cancel') return this.cancel(key)
    if (response.kind === 'error') return this.open.fail(key, response.error)
    if (response.kind === 'end') return this.open.end(key)
    const cancel = (): void => this.sendCancel(responseTopic, correlationData)
    this.open.setCancel(key, cancel)
    // Cancelled before it was known where to.
    if (!this.open.next(key, response.value)) return this.open.wasCancelled(key) ? cancel() : undefined
    if (response.isOnly) this.open.end(key)
  }

  /** Correlation Data is the requester's own: where two chose the same, nobody knows whose stream is meant. */
  private cancel(key: string): void {
    const stops = this.cancels.get(key)
    if (stops?.size === 1) for (const stop of stops) stop()
  }

  private sendCancel(topic: string | undefined, correlationData: Buffer): void {
    if (topic === undefined || !isSafe(topic)) return
    const properties = { correlationData, userProperties: { [STATUS]: 'cancel' } }
    const message = { topic, payload: Buffer.alloc(0), qos: 1, retain: false, properties } as const
    Promise.resolve(this.session.publish(message)).catch(() => {})
  }
}

function anyOf(own: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return own === undefined ? other : AbortSignal.any([own, other])
}

/** A kept session must find its subscription again after a restart; it is the Correlation Data that nobody can guess. */
function privateLevel({ clean, clientId }: ResolvedOptions): string {
  return clean ? randomUUID() : createHash('sha256').update(clientId).digest('hex').slice(0, 32)
}

function waiting(signal: AbortSignal | undefined): PublishTerms {
  return { whenBlocked: 'wait', ...(signal === undefined ? {} : { signal }) }
}

/** Why no answer will come, where the outcome of the publish says so. */
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

function closedError(): MqttError {
  return new MqttError('CONNECTION_CLOSED', 'the connection was closed by this application')
}

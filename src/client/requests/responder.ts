import { NO_MATCHING_SUBSCRIBERS } from '../../core/connection/reconnect-rules.js'
import { MqttError } from '../../core/errors.js'
import type { OutboundMessage, PublishTerms } from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import {
  isAllowedBy,
  leaseOf,
  type ResponseTarget,
  responseTarget,
} from '../../core/requests/request-rules.js'
import { decodePacket } from '../../options/codec.js'
import type { PublishPacket } from '../connection/link.js'
import type { HandlerAttempt } from '../inbound/delivery.js'
import type { HandlerRules } from '../inbound/handler-rules.js'
import type { MqttSession } from '../mqtt-session.js'
import { decodeEnvelopeData, readEnvelope } from './nest-envelope.js'
import {
  type Exchange,
  endMessage,
  errorMessage,
  mqtt5Message,
  nestMessage,
  onlyMessage,
  PLAIN_RESULTS,
  type ResultReader,
} from './request-messages.js'
import { isAsyncIterable, type PendingResponse, ResponseSource, type Sink } from './response-queue.js'
import { type OpenStream, type StreamEnd, streamKey } from './streams.js'

/** A response waits for the link, and for its acknowledgement, for up to 30 s. */
const TERMS: PublishTerms = { whenBlocked: 'wait', timeoutMs: 30_000 }
/** Time without a value, in milliseconds, after which a source no longer holds a concurrency slot. */
const SILENCE_MS = 1_000
const SENT = Promise.resolve()

/** A request on its way through its handler. */
export interface ReceivedRequest {
  readonly packet: PublishPacket
  readonly rules: HandlerRules
  readonly attempt: HandlerAttempt
  readonly data: unknown
  /** Metadata of Nest's envelope. */
  readonly metadata: unknown
  /** Undefined for a message that expects no response, or that may have none. */
  readonly target: ResponseTarget | undefined
}

/** Reads requests and sends the results of their handlers to the requesters. */
export class Responder {
  constructor(
    private readonly session: MqttSession,
    private readonly results: ResultReader = PLAIN_RESULTS,
  ) {}

  /**
   * Reads a request. If it fails from here on, its requester receives the error.
   * @throws MqttError `PAYLOAD_NOT_DECODABLE`
   */
  receive(rules: HandlerRules, packet: PublishPacket, attempt: HandlerAttempt): ReceivedRequest {
    const { codec } = rules
    if (packet.properties?.responseTopic !== undefined) {
      const target = this.allowed(responseTarget(packet))
      this.reportFailures({ packet, rules, attempt }, target)
      return { packet, rules, attempt, data: decodePacket(codec, packet), metadata: undefined, target }
    }
    const { data, target, metadata, isRaw } = readEnvelope(codec, packet)
    if (target !== undefined) this.reportFailures({ packet, rules, attempt }, target)
    const decoded = isRaw ? decodeEnvelopeData(codec, packet.topic, data) : data
    return { packet, rules, attempt, data: decoded, metadata, target }
  }

  /**
   * Sends the result of a handler: a value, or the values of an async iterable or an Observable. Resolves when the run is
   * over, while a source that has emitted a value, or nothing for a second, continues. Rejects with the error of the
   * handler and does not send it; see `receive`.
   */
  async respond(request: ReceivedRequest, result: unknown): Promise<void> {
    const { packet, target, rules, attempt } = request
    // After the time limit of the run, the requester has received the error.
    if (target === undefined || attempt.isAborted) return
    const exchange = { request: packet, target, codec: rules.codec, check: rules.response }
    const { requester } = this.session
    if (target.kind === 'nest') this.session.responseTopics.add(target.topic)
    const values = this.results.sourceOf(result) ?? (isAsyncIterable(result) ? result : undefined)
    if (values === undefined) return this.hand(exchange, onlyMessage(exchange, this.results.valueOf(result)))
    const source = new ResponseSource(values, attempt)
    // Behind an interceptor of Nest every result is an Observable, and the handler only runs on subscription.
    if (!source.isPushed) attempt.returned()
    const stream = requester.streams.begin({
      key: keyOf(target),
      ...leaseOf(packet, target),
      pattern: rules.runRules.name,
      topic: packet.topic,
      end: (reason, error) => this.cutShort(exchange, source, reason, error),
    })
    return this.untilBegun(request, exchange, source, stream)
  }

  private reportFailures(
    { packet, rules, attempt }: Pick<ReceivedRequest, 'packet' | 'rules' | 'attempt'>,
    target: ResponseTarget | undefined,
  ): void {
    if (target === undefined) return
    attempt.reportFailure = error => this.sendError({ request: packet, target, codec: rules.codec }, error)
  }

  private sendError(exchange: Exchange, error: unknown): void {
    const { target } = exchange
    if (target.kind === 'nest') this.session.responseTopics.add(target.topic)
    void this.publish(exchange, errorMessage(exchange, this.results.errorOf(error))).catch(() => {})
  }

  private untilBegun(
    { packet, rules }: ReceivedRequest,
    exchange: Exchange,
    source: ResponseSource,
    stream: OpenStream,
  ): Promise<void> {
    const { timeoutMs, name } = rules.runRules
    return new Promise((resolve, reject) => {
      let hasBegun = false
      let limit: NodeJS.Timeout | undefined
      const begin = (): void => {
        if (hasBegun) return
        hasBegun = true
        clearTimeout(silence)
        // Until here the time limit of the run applied.
        if (timeoutMs !== undefined) limit = setTimeout(() => source.outOfTime(timeoutMs), timeoutMs)
        resolve()
      }
      // A handler with its own `order` or `concurrency` keeps its place until the first value.
      const silence = rules.hasOwnLimits && source.isPushed ? undefined : setTimeout(begin, SILENCE_MS)
      const fail = (error: unknown): void => {
        stream.error = error
        if (!hasBegun) return reject(error)
        this.sendError(exchange, error)
        const { topic } = packet
        this.session.events.notice.emit({ type: 'handler-failed', pattern: name, topic, error })
      }
      this.sendAll(exchange, source, stream, begin)
        .catch(fail)
        .finally(() => {
          begin()
          clearTimeout(limit)
          this.session.requester.streams.finish(stream)
        })
    })
  }

  private async sendAll(
    exchange: Exchange,
    source: ResponseSource,
    stream: OpenStream,
    begin: () => void,
  ): Promise<void> {
    const cancelTopic = await this.cancelTopic(exchange.target, stream)
    if (stream.isOver || source.isUnwanted) return
    const sink = this.sinkOf(exchange, stream, cancelTopic)
    const end = await source.sendTo((value, isLast) => {
      const sending = sink.send(value, isLast)
      stream.values += 1
      begin()
      return sending
    })
    if (end !== 'cancelled') sink.finish(end)
  }

  /** Topic on which the requester can renew and cancel. Undefined if the broker refuses the subscription. */
  private cancelTopic(target: ResponseTarget, stream: OpenStream): Promise<string | undefined> | undefined {
    if (keyOf(target) === undefined) return undefined
    const { requester } = this.session
    return new Promise(resolve => {
      const leave = requester.listen().wait(refused => {
        if (refused !== undefined) stream.dropLease()
        resolve(refused === undefined ? requester.responseTopic : undefined)
      })
      stream.onOver = () => {
        leave()
        resolve(undefined)
      }
    })
  }

  private sinkOf(exchange: Exchange, stream: OpenStream, cancelTopic: string | undefined): Sink {
    const { target } = exchange
    if (target.kind === 'nest') return this.nestSink(exchange, stream, target.id)
    if (keyOf(target) === undefined) return this.lastValueSink(exchange)
    const extra = { status: 'next', ...(cancelTopic === undefined ? {} : { cancelTopic }) }
    let hasSent = false
    return {
      send: value => {
        // The first response carries the topic on which the requester renews.
        if (!hasSent) stream.renew()
        hasSent = true
        const message = mqtt5Message(exchange, target, this.results.valueOf(value), extra)
        return this.sendPart(exchange, stream, message)
      },
      finish: () => this.hand(exchange, endMessage(exchange, target, stream.values)),
    }
  }

  private nestSink(exchange: Exchange, stream: OpenStream, id: string): Sink {
    return {
      send: (response, isLast) => {
        const value = this.results.valueOf(response)
        if (!isLast) return this.sendPart(exchange, stream, nestMessage(exchange, { id }, value))
        this.hand(exchange, nestMessage(exchange, { isDisposed: true, id }, value))
        return { bytes: 0, sent: SENT }
      },
      finish: end => {
        if (end === 'open') this.hand(exchange, nestMessage(exchange, { isDisposed: true, id }))
      },
    }
  }

  /** Sends only the last value, to a requester that accepts one response. */
  private lastValueSink(exchange: Exchange): Sink {
    const { target } = exchange
    let last: { readonly value: unknown } | undefined
    return {
      send: value => {
        last = { value }
        return { bytes: 0, sent: SENT }
      },
      finish: () => {
        if (last !== undefined) this.hand(exchange, onlyMessage(exchange, this.results.valueOf(last.value)))
        else if (target.kind === 'mqtt5') this.hand(exchange, endMessage(exchange, target, 0))
      },
    }
  }

  /** Ends a stream before its source has ended. */
  private cutShort(exchange: Exchange, source: ResponseSource, reason: StreamEnd, error: MqttError): void {
    source.cancel(error)
    const { target } = exchange
    if (reason === 'evicted') this.session.events.notice.emit({ type: 'stream-evicted', topic: target.topic })
    // The request has already timed out if the requester waits for a single response.
    const mayListen = target.kind === 'nest' || target.isStream === true || reason !== 'abandoned'
    if (reason !== 'cancelled' && mayListen) this.sendError(exchange, error)
  }

  /**
   * Publishes the only or last response. Neither the handler's place in the order nor the acknowledgement of the request waits
   * for the broker to acknowledge the response.
   */
  private hand(exchange: Exchange, message: OutboundMessage): void {
    try {
      this.send(message).then(
        outcome => this.note(exchange, outcome),
        (error: unknown) => this.sendError(exchange, error),
      )
    } catch (error) {
      // The response may exceed the broker's Maximum Packet Size. The error message is smaller.
      this.sendError(exchange, error)
    }
  }

  /** If it is not delivered (at QoS 0: not written), the stream fails, because later responses would be misleading. */
  private sendPart(exchange: Exchange, stream: OpenStream, message: OutboundMessage): PendingResponse {
    const sent = this.publish(exchange, message).then(outcome => {
      if (outcome.status === 'acknowledged') {
        if (outcome.reasonCode === NO_MATCHING_SUBSCRIBERS) this.session.requester.streams.abandon(stream)
      } else if (outcome.status !== 'sent')
        throw new MqttError('NOT_SENT', `an earlier response was not delivered: ${outcome.status}`)
    })
    return { bytes: message.payload.length, sent }
  }

  private async publish(exchange: Exchange, message: OutboundMessage): Promise<PublishOutcome> {
    const outcome = await this.send(message)
    this.note(exchange, outcome)
    return outcome
  }

  private send(message: OutboundMessage): Promise<PublishOutcome> {
    const sending = this.session.publish(message, TERMS, 'response')
    if (message.qos > 0 && this.session.options.requests.ackPings) this.session.publisher.paced?.exchanging()
    return sending
  }

  private note({ target: { topic } }: Exchange, { status: why }: PublishOutcome): void {
    if (why !== 'sent' && why !== 'acknowledged')
      this.session.events.notice.emit({ type: 'response-not-delivered', topic, why })
  }

  /** @returns undefined if no response may be sent to the target */
  private allowed(target: ResponseTarget | undefined): ResponseTarget | undefined {
    if (target !== undefined && isAllowedBy(this.session.options.allowResponseTopic, target.topic))
      return target
    this.session.requester.refusedTopic()
    return undefined
  }
}

/** Returns the key with which a requester cancels and renews its stream. */
function keyOf(target: ResponseTarget): string | undefined {
  if (target.kind === 'nest' || target.isStream !== true || target.correlationData === undefined)
    return undefined
  return streamKey(target.topic, target.correlationData)
}

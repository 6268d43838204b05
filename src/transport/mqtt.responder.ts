import { isObservable } from 'rxjs'
import type { PublishPacket } from '../client/connection/link.js'
import type { HandlerAttempt } from '../client/inbound/handler-attempt.js'
import type { MqttSession } from '../client/mqtt-session.js'
import { leaseOf, type OpenStream, type StreamEnd, streamKey } from '../client/requests/open-streams.js'
import type { Requester } from '../client/requests/requester.js'
import type { AnswerOnItsWay, AnswersEnd } from '../client/requests/response-queue.js'
import { NO_MATCHING_SUBSCRIBERS } from '../core/connection/reconnect-rules.js'
import { MqttError } from '../core/errors.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../core/outbound/publish-outcome.js'
import type { ReplyTarget } from '../core/requests/reply-target.js'
import type { Codec } from '../options/codec.js'
import {
  type Exchange,
  endMessage,
  errorMessage,
  mqtt5Message,
  nestMessage,
  onlyMessage,
} from './mqtt.response-messages.js'
import { isAsyncIterable, SourcedAnswers } from './mqtt.response-source.js'

/** Time limit for the acknowledgement of a response, in milliseconds. */
const REPLY_TIMEOUT_MS = 30_000
/** Time without a value, in milliseconds, after which a source no longer holds a concurrency slot. */
const SILENCE_MS = 1_000
const SENT = Promise.resolve()

/** The handler run that produces the response. */
export interface RespondingRun {
  readonly attempt: HandlerAttempt
  readonly timeoutMs: number | undefined
  /** Whether the handler has its own `order` or `concurrency`, and keeps its place until the first value. */
  readonly keepsPlace: boolean
  /** Called if the source fails after the run has ended. */
  readonly onFailed: (error: unknown) => void
}

/** Turns the values of a source into messages. */
interface Sink {
  send(value: unknown, isLast: boolean): AnswerOnItsWay
  finish(end: AnswersEnd): void
}

/** Sends the results of handlers to their requesters. */
export class Responder {
  constructor(
    private readonly session: MqttSession,
    private readonly requester: Requester,
    private readonly allow: ((responseTopic: string) => boolean) | undefined,
  ) {}

  /** @returns the target, or undefined if no response may be sent there */
  checked(target: ReplyTarget | undefined): ReplyTarget | undefined {
    if (target === undefined) return undefined
    if (this.isAllowed(target)) return target
    this.requester.refusedTopic()
    return undefined
  }

  /**
   * Sends the result of a handler: a value, or the values of an Observable or an async iterable. Resolves when the run is
   * over, while a source that has emitted a value, or nothing for a second, continues. Rejects with the error of the
   * handler and does not send it; see `respondError`.
   */
  async respond(
    request: PublishPacket,
    target: ReplyTarget,
    codec: Codec,
    result: unknown,
    run: RespondingRun,
  ): Promise<void> {
    const exchange = { request, target, codec }
    if (target.kind === 'nest') this.requester.ownReplies.add(target.topic)
    if (!isObservable(result) && !isAsyncIterable(result))
      return this.hand(exchange, onlyMessage(exchange, result))
    const answers = new SourcedAnswers(result, run.attempt)
    // Behind an interceptor every result is an Observable, and the handler only runs on subscription.
    if (!answers.isObservable) run.attempt.returned()
    const stream = this.requester.streams.begin({
      key: keyOf(target),
      ...leaseOf(request, target),
      end: (reason, error) => this.cutShort(exchange, answers, reason, error),
    })
    return this.untilBegun(exchange, answers, stream, run)
  }

  /** Sends the error of a handler to its requester. */
  respondError(request: PublishPacket, target: ReplyTarget, codec: Codec, error: unknown): void {
    const exchange = { request, target, codec }
    if (target.kind === 'nest') this.requester.ownReplies.add(target.topic)
    void this.publish(exchange, errorMessage(exchange, error)).catch(() => {})
  }

  private untilBegun(
    exchange: Exchange,
    answers: SourcedAnswers,
    stream: OpenStream,
    run: RespondingRun,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let hasBegun = false
      let limit: NodeJS.Timeout | undefined
      const begin = (): void => {
        if (hasBegun) return
        hasBegun = true
        clearTimeout(silence)
        // Until here the time limit of the run applied.
        if (run.timeoutMs !== undefined)
          limit = setTimeout(() => answers.outOfTime(run.timeoutMs), run.timeoutMs)
        resolve()
      }
      const silence = run.keepsPlace && answers.isObservable ? undefined : setTimeout(begin, SILENCE_MS)
      const fail = (error: unknown): void => {
        if (!hasBegun) return reject(error)
        this.respondError(exchange.request, exchange.target, exchange.codec, error)
        run.onFailed(error)
      }
      this.sendAll(exchange, answers, stream, begin)
        .catch(fail)
        .finally(() => {
          begin()
          clearTimeout(limit)
          this.requester.streams.finish(stream)
        })
    })
  }

  private async sendAll(
    exchange: Exchange,
    answers: SourcedAnswers,
    stream: OpenStream,
    begin: () => void,
  ): Promise<void> {
    const cancelTopic = await this.cancelTopic(exchange.target, stream)
    if (stream.isOver || answers.isUnwanted) return
    const sink = this.sinkOf(exchange, stream, cancelTopic)
    const end = await answers.sendTo((value, isLast) => {
      const sending = sink.send(value, isLast)
      begin()
      return sending
    })
    if (end !== 'cancelled') sink.finish(end)
  }

  /** Topic on which the requester can renew and cancel. Undefined if the broker refuses the subscription. */
  private cancelTopic(target: ReplyTarget, stream: OpenStream): Promise<string | undefined> | undefined {
    if (keyOf(target) === undefined) return undefined
    return new Promise(resolve => {
      const leave = this.requester.listen().wait(refused => {
        if (refused !== undefined) stream.dropLease()
        resolve(refused === undefined ? this.requester.responseTopic : undefined)
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
        return this.sendPart(exchange, stream, mqtt5Message(exchange, target, value, extra))
      },
      finish: () => this.hand(exchange, endMessage(exchange, target)),
    }
  }

  private nestSink(exchange: Exchange, stream: OpenStream, id: string): Sink {
    return {
      send: (response, isLast) => {
        if (!isLast) return this.sendPart(exchange, stream, nestMessage(exchange, { response, id }))
        this.hand(exchange, nestMessage(exchange, { response, isDisposed: true, id }))
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
        if (last !== undefined) this.hand(exchange, onlyMessage(exchange, last.value))
        else if (target.kind === 'mqtt5') this.hand(exchange, endMessage(exchange, target))
      },
    }
  }

  /** Ends a stream before its source has ended. */
  private cutShort(exchange: Exchange, answers: SourcedAnswers, reason: StreamEnd, error: MqttError): void {
    answers.cancel(error)
    const { request, target, codec } = exchange
    if (reason === 'evicted') this.session.journal.streamEvicted(target.topic)
    // The request has already timed out if the requester waits for a single response.
    const mayListen = target.kind === 'nest' || target.isStream === true || reason !== 'abandoned'
    if (reason !== 'cancelled' && mayListen) this.respondError(request, target, codec, error)
  }

  /**
   * Publishes the only or last response. Neither the handler's place in the order nor the acknowledgement of the request waits
   * for the broker to acknowledge the response.
   */
  private hand(exchange: Exchange, message: OutboundMessage): void {
    this.publish(exchange, message).catch((error: unknown) => {
      const { request, target, codec } = exchange
      // The response may exceed the broker's Maximum Packet Size. The error message is smaller.
      this.respondError(request, target, codec, error)
    })
  }

  /** Publishes one response of several. If it is lost, the stream fails, because later responses would be misleading. */
  private sendPart(exchange: Exchange, stream: OpenStream, message: OutboundMessage): AnswerOnItsWay {
    const sent = this.publish(exchange, message).then(outcome => {
      if (outcome.status === 'acknowledged') {
        if (outcome.reasonCode === NO_MATCHING_SUBSCRIBERS) this.requester.streams.abandon(stream)
      } else if (outcome.status !== 'sent')
        throw new MqttError('NOT_SENT', `an earlier response was not delivered: ${outcome.status}`)
    })
    return { bytes: message.payload.length, sent }
  }

  private async publish(exchange: Exchange, message: OutboundMessage): Promise<PublishOutcome> {
    const outcome = await this.session.publish(message, { whenBlocked: 'wait', timeoutMs: REPLY_TIMEOUT_MS })
    if (outcome.status === 'sent' || outcome.status === 'acknowledged') return outcome
    this.session.journal.responseNotDelivered(exchange.target.topic, outcome.status)
    return outcome
  }

  private isAllowed({ kind, topic }: ReplyTarget): boolean {
    if (kind === 'nest' || this.allow === undefined) return true
    try {
      return this.allow(topic) === true
    } catch {
      return false
    }
  }
}

/** Returns the key with which a requester cancels and renews its stream. */
function keyOf(target: ReplyTarget): string | undefined {
  if (target.kind === 'nest' || target.isStream !== true || target.correlationData === undefined)
    return undefined
  return streamKey(target.topic, target.correlationData)
}

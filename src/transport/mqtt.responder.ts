import { from, isObservable, lastValueFrom, Observable, of } from 'rxjs'
import { type Codec, jsonCodec } from '../codec.js'
import { describeFailure, MqttError } from '../errors.js'
import type { PublishPacket, PublishProperties } from './connection/link.js'
import type { ReplyTarget } from './inbound/reply-target.js'
import { readRecord } from './mqtt.record.js'
import type { MqttSession } from './mqtt-session.js'
import type { OutboundMessage } from './outbound/outbound-message.js'
import { type AnswerOnItsWay, AnswerQueue, type AnswersEnd } from './requests/answer-queue.js'
import type { Requester } from './requests/requester.js'
import { STATUS } from './requests/response.js'

/** Time in which an answer must be acknowledged by the broker. */
const REPLY_TIMEOUT_MS = 30_000
/** Answers of one stream that may wait for the link. */
const MAX_WAITING_ANSWERS = 1_000

type Mqtt5Target = Extract<ReplyTarget, { kind: 'mqtt5' }>

/** How the answers of a handler get into the queue. */
type Taking = (answers: AnswerQueue) => Promise<AnswersEnd>

interface Exchange {
  readonly request: PublishPacket
  readonly target: ReplyTarget
  readonly codec: Codec
  readonly isError?: boolean
}

/** Sends what handlers return to those who asked. */
export class Responder {
  constructor(
    private readonly session: MqttSession,
    private readonly requester: Requester,
    private readonly allow: ((responseTopic: string) => boolean) | undefined,
  ) {}

  /** The target, if an answer may go there. */
  checked(target: ReplyTarget | undefined): ReplyTarget | undefined {
    if (target === undefined) return undefined
    if (this.isAllowed(target)) return target
    this.requester.refusedTopic()
    return undefined
  }

  /**
   * Sends all that a handler gave: a value, an Observable or an async iterable. Rejects with the handler's own error,
   * which is not sent by this.
   */
  async answer(
    request: PublishPacket,
    target: ReplyTarget,
    codec: Codec,
    result: unknown,
    signal: () => AbortSignal,
  ): Promise<void> {
    const exchange = { request, target, codec }
    const source = observableOf(result, signal)
    const takes: Taking = answers =>
      isAsyncIterable(result) ? answers.takeEach(result, signal()) : answers.take(source)
    if (target.kind === 'nest') this.requester.ownReplies.add(target.topic)
    if (target.kind === 'nest')
      return this.answerNest(
        exchange,
        target.id,
        source,
        takes,
        isObservable(result) || isAsyncIterable(result),
      )
    if (target.isStream && target.correlationData !== undefined)
      return this.answerStream(exchange, target, target.correlationData, takes)
    const value: unknown = await lastValueFrom(source, { defaultValue: NOTHING })
    this.hand(
      exchange,
      value === NOTHING ? endMessage(exchange, target) : this.mqtt5Message(exchange, target, value),
    )
  }

  /** Sends the error of a handler. */
  answerError(request: PublishPacket, target: ReplyTarget, codec: Codec, error: unknown): void {
    const exchange = { request, target, codec, isError: true }
    const err = readableError(error)
    if (target.kind === 'nest') this.requester.ownReplies.add(target.topic)
    if (target.kind === 'nest')
      return this.hand(exchange, nestMessage(exchange, { err, isDisposed: true, id: target.id }))
    this.hand(exchange, {
      ...base(exchange),
      payload: jsonCodec.encode(err),
      properties: properties(target, { contentType: jsonCodec.contentType, status: 'error' }),
    })
  }

  private async answerNest(
    exchange: Exchange,
    id: string,
    source: Observable<unknown>,
    takes: Taking,
    mayBeSeveral: boolean,
  ): Promise<void> {
    const send = (fields: object) => this.sendPart(exchange, nestMessage(exchange, { ...fields, id }))
    const last = (fields: object) => {
      this.hand(exchange, nestMessage(exchange, { ...fields, id }))
      return { bytes: 0, sent: Promise.resolve() }
    }
    if (!mayBeSeveral) {
      const response: unknown = await lastValueFrom(source, { defaultValue: undefined })
      return this.hand(exchange, nestMessage(exchange, { response, isDisposed: true, id }))
    }
    const answers = new AnswerQueue(MAX_WAITING_ANSWERS, (value, isLast) =>
      isLast ? last({ response: value, isDisposed: true }) : send({ response: value }),
    )
    const end = await takes(answers)
    if (end === 'open') last({ isDisposed: true })
  }

  private async answerStream(
    exchange: Exchange,
    target: Mqtt5Target,
    correlationData: Buffer,
    takes: Taking,
  ): Promise<void> {
    // One that may not subscribe to it answers all the same; it just cannot be told to stop.
    const cancelTopic = await this.requester.responseTopic().catch(() => undefined)
    const answers = new AnswerQueue(MAX_WAITING_ANSWERS, value =>
      this.sendPart(
        exchange,
        this.mqtt5Message(exchange, target, value, {
          status: 'next',
          ...(cancelTopic === undefined ? {} : { cancelTopic }),
        }),
      ),
    )
    const forget = this.requester.onCancel(correlationData, () => answers.cancel())
    try {
      if ((await takes(answers)) === 'cancelled') return
      this.hand(exchange, endMessage(exchange, target))
    } finally {
      forget()
    }
  }

  private mqtt5Message(
    exchange: Exchange,
    target: Mqtt5Target,
    value: unknown,
    extra: { readonly status?: string; readonly cancelTopic?: string } = {},
  ): OutboundMessage {
    const { data, options } = readRecord('record of a handler', value)
    const { contentType } = exchange.codec
    const own = options.properties
    return {
      ...base(exchange),
      ...(options.qos === undefined ? {} : { qos: options.qos }),
      ...(options.retain === undefined ? {} : { retain: options.retain }),
      payload: Buffer.isBuffer(data) ? data : exchange.codec.encode(data),
      properties: properties(target, { contentType, ...extra }, own),
    }
  }

  /**
   * The one answer, or the last: it goes its way with the acknowledgement of the request behind it. The handler's place is
   * not kept until the broker has acknowledged the answer, nor is the request.
   */
  private hand(exchange: Exchange, message: OutboundMessage): void {
    this.publish(exchange, message).catch((error: unknown) => {
      const { request, target, codec, isError } = exchange
      // Larger than the broker takes, say: who asked hears of that, if it can be told.
      if (isError !== true) this.answerError(request, target, codec, error)
    })
  }

  /** An answer that others follow: without it they would say something else. */
  private sendPart(exchange: Exchange, message: OutboundMessage): AnswerOnItsWay {
    const sent = this.publish(exchange, message).then(status => {
      if (status !== undefined)
        throw new MqttError('NOT_SENT', `an answer before was not delivered: ${status}`)
    })
    return { bytes: message.payload.length, sent }
  }

  /** @returns why the broker does not have it */
  private async publish(exchange: Exchange, message: OutboundMessage): Promise<string | undefined> {
    const outcome = await this.session.publish(message, { whenBlocked: 'wait', timeoutMs: REPLY_TIMEOUT_MS })
    if (outcome.status === 'sent' || outcome.status === 'acknowledged') return undefined
    this.session.journal.responseNotDelivered(exchange.target.topic, outcome.status)
    return outcome.status
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

function observableOf(result: unknown, signal: () => AbortSignal): Observable<unknown> {
  if (isObservable(result)) return whileWanted(result, signal())
  return isAsyncIterable(result) ? whileWanted(from(result), signal()) : of(result)
}

/** A source that ends when nobody waits for the run any more that it came from. */
export function whileWanted<T>(source: Observable<T>, signal: AbortSignal): Observable<T> {
  return new Observable(subscriber => {
    const abort = (): void => subscriber.error(signal.reason)
    subscriber.add(
      source.subscribe({
        next: value => subscriber.next(value),
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    )
    // What has ended by now has ended, and may have failed.
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
    subscriber.add(() => signal.removeEventListener('abort', abort))
  })
}

/** A source that ends without a value. */
const NOTHING = Symbol('nothing')

function endMessage(exchange: Exchange, target: Mqtt5Target): OutboundMessage {
  return { ...base(exchange), payload: Buffer.alloc(0), properties: properties(target, { status: 'end' }) }
}

export function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

function base({ request, target }: Exchange) {
  return { topic: target.topic, qos: request.qos, retain: false }
}

function nestMessage(exchange: Exchange, reply: object): OutboundMessage {
  if (!('response' in reply)) return { ...base(exchange), payload: jsonCodec.encode(reply) }
  const { data, options } = readRecord('record of a handler', reply.response)
  return {
    ...base(exchange),
    ...(options.qos === undefined ? {} : { qos: options.qos }),
    payload: jsonCodec.encode({ ...reply, response: data }),
    ...(options.properties === undefined ? {} : { properties: options.properties }),
  }
}

interface Extra {
  readonly contentType?: string | undefined
  readonly status?: string
  readonly cancelTopic?: string
}

function properties(
  { correlationData }: Mqtt5Target,
  { contentType, status, cancelTopic }: Extra,
  own: PublishProperties = {},
): PublishProperties {
  const userProperties = { ...own.userProperties, ...(status === undefined ? {} : { [STATUS]: status }) }
  return {
    ...(contentType === undefined ? {} : { contentType }),
    ...own,
    ...(cancelTopic === undefined ? {} : { responseTopic: cancelTopic }),
    ...(correlationData === undefined ? {} : { correlationData }),
    ...(Object.keys(userProperties).length === 0 ? {} : { userProperties }),
  }
}

function isJson(value: unknown): boolean {
  try {
    return JSON.stringify(value) !== undefined
  } catch {
    return false
  }
}

/** What an answer may tell of a failure: what Nest's exception filters made of it. */
function readableError(error: unknown): unknown {
  if (!(error instanceof Error))
    return isJson(error) ? error : { status: 'error', message: describeFailure(error) }
  const code = error instanceof MqttError ? undefined : 'code' in error ? error.code : undefined
  return {
    status: 'error',
    message: error.message,
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
  }
}

import { MqttRecord } from '@nestjs/microservices'
import { from, isObservable, lastValueFrom, type Observable, of } from 'rxjs'
import { type Codec, jsonCodec } from '../codec.js'
import { MqttError } from '../errors.js'
import { isPowerOfTwo } from '../log-thinning.js'
import type { PublishPacket, PublishProperties } from './connection/link.js'
import type { ReplyTarget } from './inbound/reply-target.js'
import type { MqttSession } from './mqtt-session.js'
import type { OutboundMessage } from './outbound/outbound-message.js'
import { AnswerQueue } from './requests/answer-queue.js'
import type { Requester } from './requests/requester.js'
import { STATUS } from './requests/response.js'

/** Time in which an answer must be acknowledged by the broker. */
const REPLY_TIMEOUT_MS = 30_000
/** Answers of one stream that may wait for the link. */
const MAX_WAITING_ANSWERS = 1_000

type Mqtt5Target = Extract<ReplyTarget, { kind: 'mqtt5' }>

interface Exchange {
  readonly request: PublishPacket
  readonly target: ReplyTarget
  readonly codec: Codec
  readonly isError?: boolean
}

/** Sends what handlers return to those who asked. */
export class Responder {
  private failures = 0

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
  async answer(request: PublishPacket, target: ReplyTarget, codec: Codec, result: unknown): Promise<void> {
    const exchange = { request, target, codec }
    const source = observableOf(result)
    if (target.kind === 'nest') this.requester.ownReplies.add(target.topic)
    if (target.kind === 'nest')
      return this.answerNest(exchange, target.id, source, isObservable(result) || isAsyncIterable(result))
    if (target.isStream && target.correlationData !== undefined)
      return this.answerStream(exchange, target, target.correlationData, source)
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
    mayBeSeveral: boolean,
  ): Promise<void> {
    const send = (fields: object) => this.publish(exchange, nestMessage(exchange, { ...fields, id }))
    const last = async (fields: object) => this.hand(exchange, nestMessage(exchange, { ...fields, id }))
    if (!mayBeSeveral) {
      const response: unknown = await lastValueFrom(source, { defaultValue: undefined })
      return this.hand(exchange, nestMessage(exchange, { response, isDisposed: true, id }))
    }
    const answers = new AnswerQueue(MAX_WAITING_ANSWERS, (value, isLast) =>
      isLast ? last({ response: value, isDisposed: true }) : send({ response: value }),
    )
    const end = await answers.take(source)
    if (end === 'open') await last({ isDisposed: true })
  }

  private async answerStream(
    exchange: Exchange,
    target: Mqtt5Target,
    correlationData: Buffer,
    source: Observable<unknown>,
  ): Promise<void> {
    const cancelTopic = await this.requester.responseTopic()
    const answers = new AnswerQueue(MAX_WAITING_ANSWERS, value =>
      this.publish(exchange, this.mqtt5Message(exchange, target, value, { status: 'next', cancelTopic })),
    )
    const forget = this.requester.onCancel(correlationData, () => answers.cancel())
    try {
      if ((await answers.take(source)) === 'cancelled') return
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
    const { data, options } = recordOf(value)
    const { contentType } = exchange.codec
    const own = options?.properties
    return {
      ...base(exchange),
      ...(options?.qos === undefined ? {} : { qos: options.qos }),
      ...(options?.retain === undefined ? {} : { retain: options.retain }),
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

  private async publish(exchange: Exchange, message: OutboundMessage): Promise<void> {
    const outcome = await this.session.publish(message, { whenBlocked: 'wait', timeoutMs: REPLY_TIMEOUT_MS })
    if (outcome.status === 'sent' || outcome.status === 'acknowledged') return
    this.failures += 1
    if (!isPowerOfTwo(this.failures)) return
    this.session.log.warn(
      `the reply to "${exchange.target.topic}" was not delivered: ${outcome.status}; ${this.failures} such replies so far`,
    )
  }

  private isAllowed({ kind, topic }: ReplyTarget): boolean {
    if (kind === 'nest' || this.allow === undefined) return true
    try {
      return this.allow(topic)
    } catch {
      return false
    }
  }
}

function observableOf(result: unknown): Observable<unknown> {
  if (isObservable(result)) return result
  return isAsyncIterable(result) ? from(result) : of(result)
}

/** A source that ends without a value. */
const NOTHING = Symbol('nothing')

function endMessage(exchange: Exchange, target: Mqtt5Target): OutboundMessage {
  return { ...base(exchange), payload: Buffer.alloc(0), properties: properties(target, { status: 'end' }) }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

function base({ request, target }: Exchange) {
  return { topic: target.topic, qos: request.qos, retain: false }
}

function nestMessage(exchange: Exchange, reply: object): OutboundMessage {
  if (!('response' in reply)) return { ...base(exchange), payload: jsonCodec.encode(reply) }
  const { data, options } = recordOf(reply.response)
  return {
    ...base(exchange),
    ...(options?.qos === undefined ? {} : { qos: options.qos }),
    payload: jsonCodec.encode({ ...reply, response: data }),
    ...(options?.properties === undefined ? {} : { properties: options.properties }),
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

/** The options of a record that a handler returns are those of its answer. */
function recordOf(value: unknown) {
  return value instanceof MqttRecord
    ? { data: value.data, options: value.options }
    : { data: value, options: undefined }
}

/** What an answer may tell of a failure: what Nest's exception filters made of it. */
function readableError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const code = error instanceof MqttError ? undefined : 'code' in error ? error.code : undefined
  return {
    status: 'error',
    message: error.message,
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
  }
}

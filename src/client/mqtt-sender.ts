import { MqttError } from '../core/errors.js'
import type { PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
import type { PublishOptions, RequestOptions, TryPublishOptions } from '../options/client-options.js'
import { type Codec, type PayloadCheck, resolveCodec, validated, validatedNow } from '../options/codec.js'
import { describeInput, parseOptions, publishSchema, requestSchema } from '../options/schema.js'
import {
  callOfAt,
  isAddress,
  isContract,
  type PublishPayload,
  publishOptionsOf,
  requestOptionsOf,
  type TopicAddress,
  type TopicContract,
  type TopicInput,
  type TopicResponse,
  tryPublishOptionsOf,
} from '../options/topic-contract.js'
import { MAX_VALIDATION_MS } from './inbound/message-stream.js'
import type { MqttSession } from './mqtt-session.js'
import { dropReasonOf, NO_OPTIONS, outboundMessage, timeLeft, whenValidated } from './outbound/publishes.js'
import type { ResponseReceiver } from './requests/open-requests.js'
import { ResponseStream } from './requests/streams.js'

const MAX_WAITING_RESPONSES = 1_000

/** The calls of a client that send messages. */
export class MqttSender {
  /** @internal */
  readonly session: MqttSession
  private readonly codec: Codec

  /** @internal */
  constructor(session: MqttSession) {
    this.session = session
    this.codec = resolveCodec(session.options.codec)
  }

  /**
   * Publishes a message and resolves with its outcome. A QoS 0 publish settles when it is written to the socket. A QoS 1 or 2
   * publish settles when the broker acknowledges or refuses it, or as `lost` when the session ends. `whenBlocked` decides
   * what happens to a message that cannot be written now: by default it is dropped, at once without a connection, and
   * after `maxDelayMs` on a slow link. Do not change a Buffer before the publish has settled.
   *
   * In place of a topic, pass the result of `at()` of a contract: its schema validates the payload first, and its policy
   * applies to the options that you do not set.
   * @throws MqttError `INVALID_TOPIC_NAME`, `INVALID_OPTION`, `PAYLOAD_INVALID`, `PAYLOAD_NOT_ENCODABLE`,
   * `PACKET_TOO_LARGE`, `QOS_NOT_SUPPORTED` or `RETAIN_NOT_SUPPORTED`
   */
  publish<T extends string | TopicAddress>(
    topic: T,
    payload: PublishPayload<T>,
    options: PublishOptions = NO_OPTIONS,
  ): Promise<PublishOutcome> {
    try {
      if (typeof topic !== 'string') return this.publishAt(addressOf(topic), payload, options)
      const message = outboundMessage(topic, payload, options, 'publish', this.codec)
      const { whenBlocked, timeoutMs, signal } = options
      const hasTerms = whenBlocked !== undefined || timeoutMs !== undefined || signal !== undefined
      const terms = hasTerms ? options : undefined
      const { publisher, events } = this.session
      const isStored = (whenBlocked ?? publisher.options.whenBlocked) === 'store'
      if (isStored || events.publish.hasListeners) return this.session.publish(message, terms)
      return publisher.publish(message, terms)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Publishes a message at QoS 0 and returns at once whether it was accepted. Faster than `publish`, because it creates no
   * promise. If the message is dropped later, only `stats()` shows it.
   * @throws MqttError the same as `publish`; `INVALID_OPTION` for a contract with QoS 1 or 2, or with a schema that validates
   * asynchronously
   */
  tryPublish<T extends string | TopicAddress>(
    topic: T,
    payload: PublishPayload<T>,
    options: TryPublishOptions = NO_OPTIONS,
  ): TryPublishOutcome {
    if (typeof topic !== 'string') return this.tryPublishAt(addressOf(topic), payload, options)
    const message = outboundMessage(topic, payload, options, 'tryPublish', this.codec)
    return this.session.tryPublish(message, options.whenBlocked)
  }

  /**
   * Sends a request and resolves with the response, or with the last one if the responder sends several.
   * @throws MqttError `TIMEOUT`, `ABORTED`, `CONNECTION_LOST`, `CONNECTION_CLOSED`, `NOT_SENT`, `TOO_MANY_REQUESTS`;
   * `NO_RESPONDER` if the broker reports that nobody subscribes (requests at QoS 1 only); `REQUEST_FAILED` if the handler
   * failed, with its error in `response`; `REQUEST_BLOCKED` (delivery at QoS 1 only); `SUBSCRIBE_REFUSED` for the response
   * topic; `PAYLOAD_NOT_DECODABLE` for the response; and the errors of `publish`
   */
  request<T = unknown>(topic: string, payload: unknown, options?: RequestOptions): Promise<T>
  /** The same on a topic of a contract, which also validates the response. @throws MqttError `PAYLOAD_INVALID` */
  request<C extends TopicContract>(
    address: TopicAddress<C>,
    payload: TopicInput<C>,
    options?: RequestOptions,
  ): Promise<TopicResponse<C>>
  request(
    topic: string | TopicAddress,
    payload: unknown,
    options: RequestOptions = NO_OPTIONS,
  ): Promise<unknown> {
    if (typeof topic !== 'string') return this.requestAt(topic, payload, options)
    return new Promise((resolve, reject) => {
      let last: unknown
      this.startRequest(topic, payload, options, false, {
        next: value => {
          last = value
        },
        end: () => resolve(last),
        fail: reject,
      })
    })
  }

  /**
   * Sends a request to a handler that returns an async iterable or an Observable, and iterates over its responses. Leaving the
   * loop or aborting the signal cancels the stream at the responder. At most 1,000 responses wait for the loop; one more
   * ends it with an error. A stream that lost values at QoS 0 fails at its end.
   * @throws MqttError the errors of `publish` at once; those of `request`, and `RESPONSE_LOST`, from the loop
   */
  requestStream<T = unknown>(
    topic: string,
    payload: unknown,
    options?: RequestOptions,
  ): AsyncIterableIterator<T>
  /** The same on a topic of a contract, which also validates every response. @throws MqttError `PAYLOAD_INVALID` */
  requestStream<C extends TopicContract>(
    address: TopicAddress<C>,
    payload: TopicInput<C>,
    options?: RequestOptions,
  ): AsyncIterableIterator<TopicResponse<C>>
  requestStream(
    topic: string | TopicAddress,
    payload: unknown,
    options: RequestOptions = NO_OPTIONS,
  ): AsyncIterableIterator<unknown> {
    if (typeof topic !== 'string') return this.requestStreamAt(addressOf(topic), payload, options)
    const stream = new ResponseStream<unknown>(MAX_WAITING_RESPONSES, topic)
    stream.started(this.startRequest(topic, payload, options, true, stream.receiver))
    return stream
  }

  private async publishAt(
    { topic, contract }: TopicAddress,
    payload: unknown,
    options: PublishOptions,
  ): Promise<PublishOutcome> {
    const validation = validationOf(contract, topic, payload)
    const all = publishOptionsOf(contract, options)
    if (validation === undefined) return this.publish(topic, payload, all)
    parseOptions(`publish to "${topic}"`, publishSchema, all)
    const { connection, publisher, events } = this.session
    const startMs = performance.now()
    try {
      const wait = { timeoutMs: MAX_VALIDATION_MS, ...all }
      await whenValidated(connection, validation, payloadFor(topic), wait)
    } catch (error) {
      const drop = () => publisher.outcomes.dropAtOnce(dropReasonOf(error))
      if (!events.publish.hasListeners) return drop()
      const { qos = 0, retain = false } = all
      // Not encoded yet.
      return events.publishing({ topic, qos, retain, payload: Buffer.alloc(0) }, 'message', drop)
    }
    await validation
    return this.publish(topic, payload, timeLeft(all, startMs))
  }

  private tryPublishAt({ topic, contract }: TopicAddress, payload: unknown, options: TryPublishOptions) {
    assertValidNow(contract, topic, payload)
    return this.tryPublish(topic, payload, tryPublishOptionsOf(contract, options))
  }

  private async requestAt(address: TopicAddress, payload: unknown, options: RequestOptions) {
    const { topic, contract } = addressOf(address)
    const validation = validationOf(contract, topic, payload)
    const all = requestOptionsOf(contract, options)
    const left = validation === undefined ? all : await this.afterValidation(validation, topic, all)
    const response = await this.request(topic, payload, left)
    return this.validResponse(contract, topic, response, all)
  }

  private requestStreamAt({ topic, contract }: TopicAddress, payload: unknown, options: RequestOptions) {
    const validation = validationOf(contract, topic, payload)
    const all = requestOptionsOf(contract, options)
    const send = () => this.requestStream(topic, payload, all)
    const stream = validation === undefined ? send() : this.afterValidation(validation, topic, all).then(send)
    return new CheckedResponses(stream, value => this.validResponse(contract, topic, value, all))
  }

  /** Waits until the payload of a request is validated. @returns the options with the time that is left */
  private async afterValidation(validation: Promise<unknown>, topic: string, options: RequestOptions) {
    parseOptions(`request to "${topic}"`, requestSchema, options)
    const startMs = performance.now()
    await this.inTime(validation, payloadFor(topic), options)
    return timeLeft(options, startMs)
  }

  /** Returns the output of the response schema, or a promise of it. @throws MqttError `PAYLOAD_INVALID` */
  private validResponse(contract: TopicContract, topic: string, value: unknown, options: RequestOptions) {
    const { response, valuesInReasons } = contract
    if (response === undefined) return value
    const what = `the response on "${topic}"`
    const output = validated({ schema: response, showsValues: valuesInReasons }, what, value)
    if (!(output instanceof Promise)) return output
    // The wait may end before the validation does.
    output.catch(() => {})
    return this.inTime(output, what, options)
  }

  /** Returns the output of an asynchronous schema, within the limits of a request. */
  private async inTime(output: Promise<unknown>, what: string, options: RequestOptions): Promise<unknown> {
    const { connection, options: usual } = this.session
    await whenValidated(connection, output, what, { timeoutMs: usual.requests.timeoutMs, ...options })
    return output
  }

  private startRequest(
    topic: string,
    payload: unknown,
    options: RequestOptions,
    isStream: boolean,
    receiver: ResponseReceiver,
  ): () => void {
    const message = outboundMessage(topic, payload, options, 'request', this.codec)
    const { payload: bytes, qos, retain, properties } = message
    // Spreading costs more than the rest of this call.
    const request = { topic, payload: bytes, qos, retain, data: payload }
    const whole = properties === undefined ? request : { ...request, properties }
    return this.session.requester.request(whole, options, isStream, receiver)
  }
}

/** The address that a caller passes in place of a topic. @throws MqttError `INVALID_TOPIC_NAME` for any other value */
function addressOf(value: unknown): TopicAddress {
  if (isAddress(value)) return value
  const text = isContract(value)
    ? `the contract of "${value.pattern}" is not a topic; pass one topic of it: ${callOfAt(value)}`
    : `the topic must be a string or one topic of a contract, but is ${describeInput('', value)}`
  throw new MqttError('INVALID_TOPIC_NAME', text)
}

/** Validates a payload. @returns a promise if the schema validates asynchronously. @throws MqttError `PAYLOAD_INVALID` */
function validationOf(
  { schema, valuesInReasons }: TopicContract,
  topic: string,
  payload: unknown,
): Promise<unknown> | undefined {
  if (schema === undefined) return undefined
  const output = validated({ schema, showsValues: valuesInReasons }, payloadFor(topic), payload)
  if (!(output instanceof Promise)) return undefined
  // The call may end before the validation does.
  output.catch(() => {})
  return output
}

/** @throws MqttError `PAYLOAD_INVALID`; `INVALID_OPTION` for a schema that validates asynchronously */
function assertValidNow({ schema, valuesInReasons }: TopicContract, topic: string, payload: unknown): void {
  if (schema === undefined) return
  const check: PayloadCheck = { schema, showsValues: valuesInReasons }
  validatedNow(check, payloadFor(topic), payload, 'use publish')
}

const payloadFor = (topic: string): string => `the payload for "${topic}"`

/** Responses that are checked. The first one that fails ends the stream, and cancels it at its responder. */
class CheckedResponses<T> implements AsyncIterableIterator<unknown> {
  private readonly source: Promise<AsyncIterableIterator<T>>

  constructor(
    source: AsyncIterableIterator<T> | Promise<AsyncIterableIterator<T>>,
    private readonly check: (value: T) => unknown,
  ) {
    this.source = Promise.resolve(source)
    // The loop receives the error.
    this.source.catch(() => {})
  }

  async next(): Promise<IteratorResult<unknown, undefined>> {
    const result = await (await this.source).next()
    if (result.done) return { done: true, value: undefined }
    try {
      return { done: false, value: await this.check(result.value) }
    } catch (error) {
      await this.return()
      throw error
    }
  }

  async return(): Promise<IteratorResult<unknown, undefined>> {
    await (await this.source).return?.()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

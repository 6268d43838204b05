import type { ConnectionState } from '../core/connection/connection-state.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
import { assertTopicName, UNUSUAL_IN_TOPIC_NAME, USUAL_TOPIC_LENGTH } from '../core/topic/topic-filter.js'
import {
  type MessagesOptions,
  type MqttConnectOptions,
  type PublishOptions,
  type RequestOptions,
  type RespondOptions,
  resolveConnectOptions,
  type TryPublishOptions,
} from '../options/client-options.js'
import { type Codec, encodePayload, resolveCodec } from '../options/codec.js'
import type { HandlerOptions } from '../options/handler-options.js'
import {
  messagesSchema,
  parseOptions,
  publishSchema,
  requestSchema,
  tryPublishSchema,
} from '../options/schema.js'
import {
  type MqttMessage,
  type MqttMessages,
  type MqttRun,
  type MqttSubscription,
  Subscriber,
} from './inbound/subscriber.js'
import { MqttSession } from './mqtt-session.js'
import type { MqttHealth, MqttStats } from './report.js'
import type { ResponseReceiver } from './requests/open-requests.js'
import { ResponseStream } from './requests/streams.js'
import { hasClosed, type WaitOptions } from './waits.js'

const NO_OPTIONS = {}
const MAX_WAITING_RESPONSES = 1_000

/**
 * An MQTT client with one connection. It reconnects after every loss, until `close()`. A closed client cannot be used again;
 * create a new one.
 */
export class MqttClient implements AsyncDisposable {
  /** @internal */
  readonly session: MqttSession
  private readonly codec: Codec
  private readonly subscriber: Subscriber

  /**
   * Creates a client that is not connected yet, so that you can add handlers before the first message arrives. Call
   * `start()` to connect.
   * @throws MqttError `INVALID_OPTION`
   */
  constructor(options: MqttConnectOptions)
  /** @internal */
  constructor(session: MqttSession)
  constructor(source: MqttConnectOptions | MqttSession) {
    this.session = source instanceof MqttSession ? source : newSession(source)
    this.codec = resolveCodec(this.session.options.codec)
    this.subscriber = new Subscriber(this.session, this.session.options)
  }

  /**
   * Creates a client and connects it. Resolves when it is connected; with `connect: 'background'` it resolves at once, and the
   * client keeps trying to connect.
   * @throws MqttError `INVALID_OPTION`; with `connect: 'fail-fast'` the cause of the first failed round of attempts
   */
  static async connect(options: MqttConnectOptions): Promise<MqttClient> {
    const client = new MqttClient(options)
    await client.start()
    return client
  }

  /**
   * Connects, subscribes and starts the handlers. Repeated calls share one connection.
   * @throws MqttError with `connect: 'fail-fast'` (the default), the cause of the first failed round of attempts or
   * `SUBSCRIBE_REFUSED`; `CONNECTION_CLOSED` if the client is closed
   */
  async start(): Promise<void> {
    const { state } = this
    if (state.status === 'closed') throw hasClosed(state.cause)
    await this.session.listen()
  }

  /** Current state of the connection. */
  get state(): ConnectionState {
    return this.session.connection.state
  }

  /** Calls the listener with each new state of the connection. @returns a function that removes the listener */
  onState(listener: (state: ConnectionState) => void): () => void {
    return this.session.connection.attach({ stateChanged: state => listener(state) })
  }

  /**
   * Publishes a message and resolves with its outcome. A QoS 0 publish settles when it is written to the socket. A QoS 1 or 2
   * publish settles when the broker acknowledges or refuses it, or as `lost` when the session ends. `whenBlocked` decides
   * what happens to a message that cannot be written now: by default it is dropped, at once without a connection, and
   * after `maxDelayMs` on a slow link. Do not change a Buffer before the publish has settled.
   * @throws MqttError `INVALID_TOPIC_NAME`, `INVALID_OPTION`, `PAYLOAD_NOT_ENCODABLE`, `PACKET_TOO_LARGE`,
   * `QOS_NOT_SUPPORTED` or `RETAIN_NOT_SUPPORTED`
   */
  publish(topic: string, payload: unknown, options: PublishOptions = NO_OPTIONS): Promise<PublishOutcome> {
    try {
      const message = this.message(topic, payload, options, publishSchema)
      const { whenBlocked, timeoutMs, signal } = options
      const hasTerms = whenBlocked !== undefined || timeoutMs !== undefined || signal !== undefined
      const { publisher, events } = this.session
      const outcome = publisher.publish(message, hasTerms ? options : undefined)
      return events.publish.isHeard ? events.publishing(message, outcome) : outcome
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Publishes a message at QoS 0 and returns at once whether it was accepted. Faster than `publish`, because it creates no
   * promise. If the message is dropped later, only `stats()` shows it.
   * @throws MqttError the same as `publish`
   */
  tryPublish(topic: string, payload: unknown, options: TryPublishOptions = NO_OPTIONS): TryPublishOutcome {
    const message = this.message(topic, payload, options, tryPublishSchema)
    return this.session.tryPublish(message, options.whenBlocked)
  }

  /**
   * Sends a request and resolves with the response, or with the last one if the responder sends several.
   * @throws MqttError `TIMEOUT`, `ABORTED`, `CONNECTION_LOST`, `CONNECTION_CLOSED`, `NOT_SENT`, `TOO_MANY_REQUESTS`;
   * `NO_RESPONDER` if the broker reports that nobody subscribes (requests at QoS 1 only); `REQUEST_FAILED` if the handler
   * failed, with its error in `response`; `REQUEST_BLOCKED` (delivery at QoS 1 only); `SUBSCRIBE_REFUSED` for the response
   * topic; `PAYLOAD_NOT_DECODABLE` for the response; and the errors of `publish`
   */
  request<T = unknown>(topic: string, payload: unknown, options: RequestOptions = NO_OPTIONS): Promise<T> {
    return new Promise((resolve, reject) => {
      let last: unknown
      this.startRequest(topic, payload, options, false, {
        next: value => {
          last = value
        },
        // Seam: the caller declares the type of the response, as with JSON.parse.
        end: () => resolve(last as T),
        fail: reject,
      })
    })
  }

  /**
   * Sends a request to a handler that returns an async iterable or an Observable, and iterates over its responses. Leaving the
   * loop or aborting the signal cancels the stream at the responder. At most 1,000 responses wait for the loop; one more
   * ends it with an error.
   * @throws MqttError the errors of `publish` at once, and those of `request` from the loop
   */
  requestStream<T = unknown>(
    topic: string,
    payload: unknown,
    options: RequestOptions = NO_OPTIONS,
  ): AsyncIterableIterator<T> {
    const stream = new ResponseStream<T>(MAX_WAITING_RESPONSES, topic)
    stream.started(this.startRequest(topic, payload, options, true, stream.receiver))
    return stream
  }

  /**
   * Adds a handler at run time, with the options of `handle()`. It runs once the client has started, and after every
   * reconnect, until `unsubscribe()`. Only the first handler of a filter receives the retained messages, because the
   * client subscribes once per filter.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`
   */
  subscribe<T = unknown>(
    pattern: string,
    handler: (message: MqttMessage<T>, run: MqttRun) => unknown,
    options: HandlerOptions = NO_OPTIONS,
  ): MqttSubscription {
    return this.subscriber.subscribe(pattern, handler, options)
  }

  /**
   * Adds a handler that responds to requests: those of `request()` and `requestStream()`, and those of Nest services and
   * their built-in MQTT client. It responds as the request asks: to its Response Topic (MQTT 5), or in Nest's envelope. The
   * handler returns a value, a promise, or an async iterable for a stream; `requestStream()` receives every value of it, other
   * requesters the last one. If it throws, the requester receives the message and `code` of the error (`REQUEST_FAILED`). It
   * also runs for messages that expect no response.
   *
   * Requests run concurrently and are delivered at QoS 0, unless `options` say otherwise. At most `requests.maxStreams`
   * streams are open. A response waits up to 30 s for the link; a response that is too large for the broker becomes an error.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`
   */
  respond<T = unknown>(
    pattern: string,
    handler: (request: MqttMessage<T>, run: MqttRun) => unknown,
    options: RespondOptions = NO_OPTIONS,
  ): MqttSubscription {
    return this.subscriber.respond(pattern, handler, options)
  }

  /**
   * Subscribes and returns the messages for `for await`. The loop continues after reconnects. It ends with `signal`, with
   * `break`, or when the client closes, and then unsubscribes. A QoS 1 message is acknowledged when the loop asks for the
   * next one. If several loops use one filter, each receives every message.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`
   */
  messages<T = unknown>(pattern: string, options: MessagesOptions = NO_OPTIONS): MqttMessages<T> {
    const checked = parseOptions(`messages of "${pattern}"`, messagesSchema, options)
    const { signal, limit, overflow, ...handlerOptions } = { ...options, ...checked }
    return this.subscriber.messages<T>(pattern, handlerOptions, { limit, overflow }, signal)
  }

  /**
   * Resolves when there is a connection.
   * @throws MqttError `TIMEOUT`, `ABORTED`, or the reason why the connection was closed
   */
  whenConnected(options: WaitOptions = {}): Promise<void> {
    return this.session.connection.whenConnected(options)
  }

  /** Health of the connection and its subscriptions, for a health check. */
  get health(): MqttHealth {
    return this.session.health
  }

  /** Counters since the start of the process. */
  stats(): MqttStats {
    return this.session.stats
  }

  /**
   * Stops receiving messages, and waits up to `drainTimeoutMs` for running handlers, acknowledgements and publishes. You can
   * publish and send requests until the client closes. Repeated calls share one drain.
   */
  drain(): Promise<void> {
    return this.session.drain()
  }

  /**
   * Drains the client, waits for later publishes to settle, and sends DISCONNECT, all within `drainTimeoutMs`. Repeated calls
   * share one close. A closed client cannot be used again.
   */
  close(): Promise<void> {
    return this.session.close()
  }

  /** Calls `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.session.close()
  }

  /**
   * Returns the `mqtt` client of the current connection. Each connection has a new one.
   * @throws MqttError `CONNECTION_LOST` without a connection
   */
  unwrap<T>(): T {
    return this.session.connection.unwrap<T>()
  }

  private startRequest(
    topic: string,
    payload: unknown,
    options: RequestOptions,
    isStream: boolean,
    receiver: ResponseReceiver,
  ): () => void {
    const message = this.message(topic, payload, options, requestSchema)
    return this.session.requester.request({ ...message, data: payload }, options, isStream, receiver)
  }

  private message(
    topic: string,
    payload: unknown,
    options: PublishOptions,
    schema: typeof publishSchema | typeof tryPublishSchema | typeof requestSchema,
  ): OutboundMessage {
    const isShort = typeof topic === 'string' && topic !== '' && topic.length <= USUAL_TOPIC_LENGTH
    if (!isShort || UNUSUAL_IN_TOPIC_NAME.test(topic)) assertTopicName(topic)
    // Skips validation on the hot path.
    const isChecked = options === NO_OPTIONS || (schema !== tryPublishSchema && isCommonPublish(options))
    if (!isChecked) parseOptions(`publish to "${topic}"`, schema, options)
    const codec = options.codec === undefined ? this.codec : resolveCodec(options.codec)
    const { qos = 0, retain = false, properties } = options
    const bytes = encodePayload(codec, topic, payload)
    if (properties === undefined) return { topic, payload: bytes, qos, retain }
    return { topic, payload: bytes, qos, retain, properties }
  }
}

/** Whether these options, if any, are the ones that most publishes have, and valid. */
function isCommonPublish(options: { readonly qos?: unknown; readonly retain?: unknown }): boolean {
  if (typeof options !== 'object' || options === null) return false
  for (const key in options) if (key !== 'qos' && key !== 'retain') return false
  const { qos, retain } = options
  const isQoS = qos === undefined || qos === 0 || qos === 1 || qos === 2
  return isQoS && (retain === undefined || typeof retain === 'boolean')
}

function newSession(options: MqttConnectOptions): MqttSession {
  const { logger, ...resolved } = resolveConnectOptions(options)
  return new MqttSession(resolved, logger)
}

import type { ConnectionState } from '../core/connection/connection-state.js'
import { MqttError } from '../core/errors.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
import { assertTopicName } from '../core/topic/topic-filter.js'
import { type MqttConnectOptions, resolveConnectOptions } from '../options/client-options.js'
import { type Codec, encodePayload, resolveCodec } from '../options/codec.js'
import type { HandlerOptions } from '../options/handler-options.js'
import {
  messagesSchema,
  parseOptions,
  publishSchema,
  requestSchema,
  tryPublishSchema,
} from '../options/schema.js'
import type {
  MessagesOptions,
  PublishOptions,
  RequestOptions,
  TryPublishOptions,
} from '../options/service-options.js'
import type { WaitOptions } from './connection/connection-wait.js'
import {
  type MqttMessage,
  type MqttMessages,
  type MqttRun,
  type MqttSubscription,
  Subscriber,
} from './inbound/subscriber.js'
import { hasClosed, MqttSession } from './mqtt-session.js'
import type { ResponseReceiver } from './requests/open-requests.js'
import { ResponseStream } from './requests/responses.js'
import type { MqttHealth, MqttStats } from './session-report.js'

const NO_OPTIONS = {}
const MAX_WAITING_RESPONSES = 1_000

/**
 * An MQTT client: one connection that comes back after every loss, until `close()`. A client that has closed stays
 * closed; make a new one to connect again.
 */
export class MqttClient implements AsyncDisposable {
  /** @internal */
  readonly session: MqttSession
  private readonly codec: Codec
  private readonly subscriber: Subscriber

  /**
   * A client that is not connected yet, so that you can add handlers before the first message arrives. `start()`
   * connects it.
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
   * A client that is connected: `new MqttClient(options)` and `start()`. With `connect: 'background'` it resolves at once, and
   * the connection comes when the broker does.
   * @throws MqttError `INVALID_OPTION`; with `connect: 'fail-fast'` the reason why the first attempt failed
   */
  static async connect(options: MqttConnectOptions): Promise<MqttClient> {
    const client = new MqttClient(options)
    await client.start()
    return client
  }

  /**
   * Connects, subscribes, and lets handlers run. Calls share one connection.
   * @throws MqttError with `connect: 'fail-fast'`, which is the default: why the first attempt failed, or
   * `SUBSCRIBE_REFUSED`; `CONNECTION_CLOSED` for a client that has closed
   */
  async start(): Promise<void> {
    const { state } = this
    if (state.status === 'closed') throw hasClosed(state.cause)
    await this.session.listen()
  }

  /** Present state of the connection. */
  get state(): ConnectionState {
    return this.session.connection.state
  }

  /** Calls the listener with each new state of the connection. @returns what ends this */
  onState(listener: (state: ConnectionState) => void): () => void {
    return this.session.connection.attach({ stateChanged: state => listener(state) })
  }

  /**
   * Publishes one message and tells how it ended, exactly once. QoS 0 settles when it is written to the socket, QoS 1
   * and 2 with the broker's answer, or as `lost` with the session. What cannot be written now follows `whenBlocked`;
   * by default it is dropped at once without a connection, and after `maxDelayMs` on a link that is behind. A
   * Buffer must not be changed before the publish has settled.
   * @throws MqttError `INVALID_TOPIC_NAME`, `INVALID_OPTION`, `PAYLOAD_NOT_ENCODABLE`, `PACKET_TOO_LARGE`,
   * `QOS_NOT_SUPPORTED`, `RETAIN_NOT_SUPPORTED`: mistakes that are known before sending
   */
  async publish(
    topic: string,
    payload: unknown,
    options: PublishOptions = NO_OPTIONS,
  ): Promise<PublishOutcome> {
    const message = this.message(topic, payload, options, publishSchema)
    const { whenBlocked, timeoutMs, signal } = options
    if (whenBlocked === undefined && timeoutMs === undefined && signal === undefined)
      return this.session.publisher.publish(message)
    return this.session.publisher.publish(message, options)
  }

  /**
   * Publishes one message at QoS 0, and tells at once whether it was taken. Costs no promise; one that is dropped
   * later, because the link stayed behind for `maxDelayMs`, shows in `stats()` only.
   * @throws MqttError as `publish` does
   */
  tryPublish(topic: string, payload: unknown, options: TryPublishOptions = NO_OPTIONS): TryPublishOutcome {
    const message = this.message(topic, payload, options, tryPublishSchema)
    return this.session.publisher.tryPublish(message, options.whenBlocked)
  }

  /**
   * Asks, and resolves with the answer. The last one, where the responder answers several times.
   * @throws MqttError `TIMEOUT`, `ABORTED`, `CONNECTION_LOST`, `CONNECTION_CLOSED`, `NOT_SENT`; `NO_RESPONDER` when the
   * broker says so, for a request of QoS 1; `REQUEST_FAILED` with the `response` of a responder that failed;
   * `TOO_MANY_REQUESTS`; `REQUEST_BLOCKED` (delivery at QoS 1 only); `SUBSCRIBE_REFUSED` for the topic of the answers; `PAYLOAD_NOT_DECODABLE` for the answer; and
   * what `publish` throws
   */
  request<T = unknown>(topic: string, payload: unknown, options: RequestOptions = NO_OPTIONS): Promise<T> {
    return new Promise((resolve, reject) => {
      let last: unknown
      this.startRequest(topic, payload, options, false, {
        next: value => {
          last = value
        },
        // Seam: the caller names the type of what comes from outside, as with JSON.parse.
        end: () => resolve(last as T),
        fail: reject,
      })
    })
  }

  /**
   * Asks a handler that answers several times, with an async iterable or an Observable. Ends with its last answer, and
   * tells it to stop when the loop is left or the signal aborted. No more than 1,000 answers wait for the loop.
   * @throws MqttError as `request` does, from the loop; mistakes of the caller at once
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
   * Adds a handler at run time, with the options of `handle()`. It runs from the moment the client has started,
   * over reconnects, until `unsubscribe`. A message that the broker retains comes for the first handler of a filter
   * only, since the broker is asked once for each filter.
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
   * Messages for `for await`. Goes on over reconnects; ends with the signal, with `break`, and when the client
   * closes, and leaves no subscription behind. A QoS 1 message is acknowledged when the loop asks for the next one;
   * several loops on one filter each get every message.
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

  /** Whether the connection does what the application needs of it: for a health check. */
  get health(): MqttHealth {
    return this.session.health
  }

  /** Counters since the start of the process. */
  stats(): MqttStats {
    return this.session.stats
  }

  /**
   * Ends the intake, and waits for handlers, acknowledgements and publishes that are under way, within
   * `drainTimeoutMs`. You can publish and send requests until the client closes. Repeated calls share one drain.
   */
  drain(): Promise<void> {
    return this.session.drain()
  }

  /**
   * Drains, lets what was published since then settle, sends DISCONNECT and ends. Takes `drainTimeoutMs` at most.
   * Repeated calls share one close. The client stays closed.
   */
  close(): Promise<void> {
    return this.session.close()
  }

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.session.close()
  }

  /**
   * The client of `mqtt` behind the present connection. Each connection has a new one.
   * @throws MqttError `CONNECTION_LOST` while there is none
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
    const { requester } = this.session
    const codec = options.codec === undefined ? this.codec : resolveCodec(options.codec)
    return requester.start(
      { ...message, data: payload },
      {
        protocol: options.protocol ?? requester.defaultProtocol,
        isStream,
        codec,
        timeoutMs: options.timeoutMs ?? this.session.options.requests.timeoutMs,
        signal: options.signal,
      },
      receiver,
    )
  }

  private message(
    topic: string,
    payload: unknown,
    options: PublishOptions,
    schema: typeof publishSchema | typeof tryPublishSchema | typeof requestSchema,
  ): OutboundMessage {
    if (typeof topic !== 'string') {
      throw new MqttError(
        'INVALID_TOPIC_NAME',
        `a topic is a text, not ${topic === null ? 'null' : typeof topic}`,
      )
    }
    assertTopicName(topic)
    // Most publishes have no options, and need no check of them.
    if (options !== NO_OPTIONS) parseOptions(`publish to "${topic}"`, schema, options)
    const codec = options.codec === undefined ? this.codec : resolveCodec(options.codec)
    return {
      topic,
      payload: encodePayload(codec, topic, payload),
      qos: options.qos ?? 0,
      retain: options.retain ?? false,
      ...(options.properties === undefined ? {} : { properties: options.properties }),
    }
  }
}

function newSession(options: MqttConnectOptions): MqttSession {
  const { logger, ...resolved } = resolveConnectOptions(options)
  return new MqttSession(resolved, logger)
}

import { distinctUntilChanged, Observable } from 'rxjs'
import type { WaitOptions } from './client/connection/connection-wait.js'
import {
  type MqttMessage,
  type MqttMessages,
  type MqttRun,
  type MqttSubscription,
  Subscriber,
} from './client/inbound/subscriber.js'
import type { MqttSession } from './client/mqtt-session.js'
import type { ResponseReceiver } from './client/requests/open-requests.js'
import { ResponseStream } from './client/requests/response-stream.js'
import type { MqttHealth, MqttStats } from './client/session-report.js'
import type { ConnectionState } from './core/connection/connection-state.js'
import { MqttError } from './core/errors.js'
import type { OutboundMessage } from './core/outbound/outbound-message.js'
import type { PublishOutcome, TryPublishOutcome } from './core/outbound/publish-outcome.js'
import { assertTopicName } from './core/topic/topic-filter.js'
import { type Codec, encodePayload, resolveCodec } from './options/codec.js'
import type { HandlerOptions } from './options/handler-options.js'
import type { ResolvedOptions } from './options/resolved-options.js'
import {
  messagesSchema,
  parseOptions,
  publishSchema,
  requestSchema,
  tryPublishSchema,
} from './options/schema.js'
import type {
  MessagesOptions,
  PublishOptions,
  RequestOptions,
  TryPublishOptions,
} from './options/service-options.js'

const NO_OPTIONS = {}
const MAX_WAITING_RESPONSES = 1_000

/** Publishes on the connection of the application, and tells how it is. */
export class MqttService {
  private readonly codec: Codec
  private readonly subscriber: Subscriber

  constructor(
    private readonly session: MqttSession,
    private readonly options: ResolvedOptions,
  ) {
    this.codec = resolveCodec(options.codec)
    this.subscriber = new Subscriber(session, options)
  }

  /** Present state of the connection. */
  get state(): ConnectionState {
    return this.session.connection.state
  }

  /** The state now and at each change. Never errors; never completes, since a connection may be opened again. */
  get status$(): Observable<ConnectionState> {
    const { connection } = this.session
    return new Observable<ConnectionState>(subscriber => {
      subscriber.next(connection.state)
      return connection.attach({ stateChanged: state => subscriber.next(state) })
    }).pipe(distinctUntilChanged())
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
      return this.session.publish(message)
    return this.session.publish(message, options)
  }

  /**
   * Publishes one message at QoS 0, and tells at once whether it was taken. Costs no promise; one that is dropped
   * later, because the link stayed behind for `maxDelayMs`, shows in `stats()` only.
   * @throws MqttError as `publish` does
   */
  tryPublish(topic: string, payload: unknown, options: TryPublishOptions = NO_OPTIONS): TryPublishOutcome {
    const message = this.message(topic, payload, options, tryPublishSchema)
    return this.session.tryPublish(message, options.whenBlocked)
  }

  /**
   * Asks, and resolves with the answer. The last one, where the responder answers several times.
   * @throws MqttError `TIMEOUT`, `ABORTED`, `CONNECTION_LOST`, `CONNECTION_CLOSED`, `NOT_SENT`; `NO_RESPONDER` when the
   * broker says so, for a request of QoS 1; `REQUEST_FAILED` with the `response` of a responder that failed;
   * `TOO_MANY_REQUESTS`; `SUBSCRIBE_REFUSED` for the topic of the answers; `PAYLOAD_NOT_DECODABLE` for the answer; and
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
   * Asks a handler that answers several times, with an Observable or an async iterable. Ends with its last answer, and
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
   * Adds a handler at run time, with the options of `handle()`. It runs from the moment the application has started,
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
   * Messages for `for await`. Goes on over reconnects; ends with the signal, with `break`, and when the application
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
   * The same as an Observable: each subscriber has a handler of its own, which ends with it. Completes when the
   * application closes.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`
   */
  messages$<T = unknown>(pattern: string, options: HandlerOptions = NO_OPTIONS): Observable<MqttMessage<T>> {
    return new Observable(subscriber => {
      const take = (message: MqttMessage<T>): void => subscriber.next(message)
      const subscription = this.subscriber.subscribe<T>(pattern, take, options)
      const stopListening = this.session.onDrain(() => subscriber.complete())
      return () => {
        void subscription.unsubscribe()
        stopListening()
      }
    })
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
   * `drainTimeoutMs`. You can publish and send requests until the application shuts down. Repeated calls share one drain.
   */
  drain(): Promise<void> {
    return this.session.drain()
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
        timeoutMs: options.timeoutMs ?? this.options.requests.timeoutMs,
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

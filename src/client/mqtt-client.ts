import type { ConnectionState } from '../core/connection/connection-state.js'
import type { StoredOutcomeQuery, StoredSettlement } from '../core/outbound/message-store.js'
import type { Retained } from '../core/subscriptions/retained-values.js'
import {
  type MessagesOptions,
  type MqttConnectOptions,
  type RespondOptions,
  type RetainedOptions,
  resolveConnectOptions,
} from '../options/client-options.js'
import type { HandlerOptions } from '../options/handler-options.js'
import { withoutStore } from '../options/resolved-options.js'
import type { TopicAddress, TopicContract, TopicPayload, TopicSource } from '../options/topic-contract.js'
import {
  type ContractMessage,
  type ContractMessages,
  type ContractResult,
  type Handler,
  type MqttMessage,
  type MqttMessages,
  type MqttRun,
  type MqttSubscription,
  Subscriber,
} from './inbound/subscriber.js'
import { MqttSender } from './mqtt-sender.js'
import { MqttSession } from './mqtt-session.js'
import { NO_OPTIONS } from './outbound/publishes.js'
import { STORE_CALL_MS } from './outbound/store-calls.js'
import type { MqttHealth, MqttStats } from './report.js'
import { hasClosed, limited, type WaitOptions } from './waits.js'

/**
 * An MQTT client with one connection. It reconnects after every loss, until `close()`. A closed client cannot be used again;
 * create a new one.
 */
export class MqttClient extends MqttSender implements AsyncDisposable {
  private readonly handlers: Subscriber

  /**
   * Creates a client that is not connected yet, so that you can add handlers before the first message arrives. Call
   * `start()` to connect.
   * @throws MqttError `INVALID_OPTION`
   */
  constructor(options: MqttConnectOptions)
  /** @internal */
  constructor(session: MqttSession)
  constructor(source: MqttConnectOptions | MqttSession) {
    super(source instanceof MqttSession ? source : newSession(source))
    this.handlers = new Subscriber(this.session, this.session.options)
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
    this.assertOpen()
    await this.session.listen()
  }

  private assertOpen(): void {
    const { state } = this
    if (state.status === 'closed') throw hasClosed(state.cause)
  }

  private get subscriber(): Subscriber {
    this.assertOpen()
    return this.handlers
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
   * Adds a handler at run time, with the options of `handle()`. It runs once the client has started, and after every
   * reconnect, until `unsubscribe()`. Only the first handler of a filter receives the retained messages, because the
   * client subscribes once per filter.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`; `CONNECTION_CLOSED` if the client is closed
   */
  subscribe<T = unknown>(
    pattern: string,
    handler: (message: MqttMessage<T>, run: MqttRun) => unknown,
    options?: HandlerOptions,
  ): MqttSubscription
  /** The same for a contract, or for one topic of it (`contract.at(params)`). The payload is validated. */
  subscribe<C extends TopicContract>(
    contract: C | TopicAddress<C>,
    handler: (message: ContractMessage<C>, run: MqttRun) => unknown,
    options?: HandlerOptions,
  ): MqttSubscription
  subscribe(source: TopicSource, handler: Handler, options: HandlerOptions = NO_OPTIONS) {
    return this.subscriber.subscribe(source, handler, options)
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
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`; `CONNECTION_CLOSED` if the client is closed
   */
  respond<T = unknown>(
    pattern: string,
    handler: (request: MqttMessage<T>, run: MqttRun) => unknown,
    options?: RespondOptions,
  ): MqttSubscription
  /** The same for a contract, or for one topic of it (`contract.at(params)`). The payload and every response are validated. */
  respond<C extends TopicContract>(
    contract: C | TopicAddress<C>,
    handler: (request: ContractMessage<C>, run: MqttRun) => ContractResult<C>,
    options?: RespondOptions,
  ): MqttSubscription
  respond(source: TopicSource, handler: Handler, options: RespondOptions = NO_OPTIONS) {
    return this.subscriber.respond(source, handler, options)
  }

  /**
   * Subscribes and returns the messages for `for await`. The loop continues after reconnects. It ends with `signal`, with
   * `break`, or when the client closes or stops for good, and then unsubscribes. A QoS 1 message is acknowledged when the loop
   * asks for the next one. If several loops use one filter, each receives every message.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`; `CONNECTION_CLOSED` if the client is closed
   */
  messages<T = unknown>(pattern: string, options?: MessagesOptions): MqttMessages<T>
  /** The same for a contract, or for one topic of it. Invalid messages do not reach the loop. */
  messages<C extends TopicContract>(
    contract: C | TopicAddress<C>,
    options?: MessagesOptions,
  ): ContractMessages<C>
  messages(source: TopicSource, options: MessagesOptions = NO_OPTIONS): MqttMessages<unknown> {
    return this.subscriber.messages(source, options)
  }

  /**
   * Keeps the retained messages of the topics that match a filter: what the broker has stored, and what is published later. On
   * MQTT 3.1.1 it keeps every message of these topics, because the broker does not tell which live messages it retains.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`; `CONNECTION_CLOSED` if the client is closed
   */
  retained<T = unknown>(pattern: string, options?: RetainedOptions): Retained<T>
  /** The same for a contract, or for one topic of it. The values are validated. */
  retained<C extends TopicContract>(
    contract: C | TopicAddress<C>,
    options?: RetainedOptions,
  ): Retained<TopicPayload<C>>
  retained(source: TopicSource, options: RetainedOptions = NO_OPTIONS): Retained<unknown> {
    return this.subscriber.retained(source, options)
  }

  /**
   * Resolves when there is a connection.
   * @throws MqttError `TIMEOUT`, `ABORTED`, or the reason why the connection was closed
   */
  whenConnected(options: WaitOptions = {}): Promise<void> {
    return this.session.connection.whenConnected(options)
  }

  /**
   * Returns what became of stored messages, the newest first, as far as the store remembers (`maxOutcomes`), also those of
   * earlier processes. A message that still waits has no outcome.
   * @throws MqttError `INVALID_OPTION` without a `store`; `STORE_FAILED`
   */
  async storedOutcomes(query: StoredOutcomeQuery = NO_OPTIONS): Promise<readonly StoredSettlement[]> {
    const { storing } = this.session.options
    if (storing === undefined) throw withoutStore('storedOutcomes')
    return limited(storing.store.outcomes(query), 'the store', STORE_CALL_MS)
  }

  /**
   * Authenticates again on the open connection (MQTT 5, 4.12.1), with new data from `credentials` and `authentication.start`.
   * Publishing and receiving continue. Calls during a re-authentication share its result. If your functions fail, the
   * connection stays; if the exchange fails, it ends and the client reconnects.
   * @throws MqttError `INVALID_OPTION` without `authentication`; `CONNECTION_LOST` if there is no connection or it has ended;
   * `AUTHENTICATION_FAILED`
   */
  reauthenticate(): Promise<void> {
    return this.session.renewal.reauthenticate()
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
}

function newSession(options: MqttConnectOptions): MqttSession {
  const { logger, ...resolved } = resolveConnectOptions(options)
  return new MqttSession(resolved, logger)
}

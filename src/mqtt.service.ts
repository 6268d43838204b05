import { distinctUntilChanged, Observable } from 'rxjs'
import { type Codec, type CodecOption, encodePayload, resolveCodec } from './codec.js'
import { MqttError } from './errors.js'
import type { ResolvedOptions } from './options.js'
import type { PublishOutcome, TryPublishOutcome } from './publish-outcome.js'
import { parseOptions, publishSchema, tryPublishSchema } from './schema.js'
import { assertTopicName } from './topic/topic-filter.js'
import type { ConnectionState } from './transport/connection/connection-state.js'
import type { PublishProperties } from './transport/connection/link.js'
import type { WaitOptions } from './transport/connection/mqtt-connection.js'
import type { MqttHealth, MqttSession, MqttStats } from './transport/mqtt-session.js'
import type { OutboundMessage } from './transport/outbound/outbound-message.js'

/** How a message is published at QoS 0. */
export interface TryPublishOptions {
  /** The broker keeps the message as the last value of the topic (MQTT 5, 3.3.1.3). @default false */
  readonly retain?: boolean
  /** How the payload is encoded; a Buffer goes as it is. @default the codec of the connection */
  readonly codec?: CodecOption
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3): User Properties, Message Expiry Interval and others. Not sent on MQTT 3.1.1. */
  readonly properties?: PublishProperties
}

/** How a message is published. */
export interface PublishOptions extends TryPublishOptions {
  /** Quality of Service (MQTT 5, 4.3). @default 0 */
  readonly qos?: 0 | 1 | 2
}

const NO_OPTIONS = {}

/** Publishes on the connection of the application, and tells how it is. */
export class MqttService {
  private readonly codec: Codec

  constructor(
    private readonly session: MqttSession,
    options: ResolvedOptions,
  ) {
    this.codec = resolveCodec(options.codec)
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
   * Publishes one message and tells how it ended. QoS 0 settles when the socket has it, QoS 1 and 2 with the
   * broker's answer, or as `lost` with the connection. Never waits for a connection: offline it is `dropped`.
   * @throws MqttError `INVALID_TOPIC_NAME`, `INVALID_OPTION`, `PAYLOAD_NOT_ENCODABLE`, `PACKET_TOO_LARGE`,
   * `QOS_NOT_SUPPORTED`, `RETAIN_NOT_SUPPORTED`: mistakes that are known before sending
   */
  async publish(
    topic: string,
    payload: unknown,
    options: PublishOptions = NO_OPTIONS,
  ): Promise<PublishOutcome> {
    return this.session.publish(this.message(topic, payload, options, publishSchema))
  }

  /**
   * Publishes one message at QoS 0, and tells at once whether it was taken. Costs no promise.
   * @throws MqttError as `publish` does
   */
  tryPublish(topic: string, payload: unknown, options: TryPublishOptions = NO_OPTIONS): TryPublishOutcome {
    return this.session.tryPublish(this.message(topic, payload, options, tryPublishSchema))
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
   * `drainTimeoutMs`. Publishing goes on to work until the module is destroyed. Repeated calls share one drain.
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

  private message(
    topic: string,
    payload: unknown,
    options: PublishOptions,
    schema: typeof publishSchema | typeof tryPublishSchema,
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

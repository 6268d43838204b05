import type { PublishProperties } from '../core/protocol/packets.js'
import type { RequestProtocol } from '../core/requests/reply-target.js'
import type { CodecOption } from './codec.js'
import type { HandlerOptions } from './handler-options.js'
import type { WhenBlocked } from './options.js'

/** How a message is published at QoS 0. */
export interface TryPublishOptions {
  /** The broker keeps the message as the last value of the topic (MQTT 5, 3.3.1.3). @default false */
  readonly retain?: boolean
  /** How the payload is encoded; a Buffer goes as it is. @default the codec of the connection */
  readonly codec?: CodecOption
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3): User Properties, Message Expiry Interval and others. Not sent on MQTT 3.1.1. */
  readonly properties?: PublishProperties
  /**
   * What becomes of the message when the link is down or slower than the data. @default `outbound.whenBlocked`, and
   * `drop` where that is `wait`
   */
  readonly whenBlocked?: Exclude<WhenBlocked, 'wait'>
}

/** How a message is published. */
export interface PublishOptions extends Omit<TryPublishOptions, 'whenBlocked'> {
  /** Quality of Service (MQTT 5, 4.3). @default 0 */
  readonly qos?: 0 | 1 | 2
  /** What becomes of the message when the link is down or slower than the data. @default `outbound.whenBlocked` */
  readonly whenBlocked?: WhenBlocked
  /**
   * Time, in milliseconds, until the publish is given up: `dropped: expired` while it waits, and `lost` once it is
   * written and not answered. 1 to 3,600,000. @default no limit
   */
  readonly timeoutMs?: number
  /** Gives the publish up: `dropped: aborted` while it waits, and `lost` once it is written. @default none */
  readonly signal?: AbortSignal
}

/** How a request is sent. */
export interface RequestOptions extends Omit<PublishOptions, 'whenBlocked'> {
  /**
   * Time for the answer, in milliseconds, and for each next one of a stream; also the Message Expiry Interval of the
   * request. 1 to 3,600,000. @default `requests.timeoutMs`
   */
  readonly timeoutMs?: number
  /** Gives the request up, and tells the responder of a stream to stop. @default none */
  readonly signal?: AbortSignal
  /**
   * `mqtt5`: Response Topic and Correlation Data (MQTT 5, 4.10). `nest`: the envelope of Nest's built-in transport,
   * which its servers and, on MQTT 3.1.1, those of this package take. @default `mqtt5` on MQTT 5, `nest` on 3.1.1
   */
  readonly protocol?: RequestProtocol
}

/** How a loop over messages takes them. */
export interface MessagesOptions extends Omit<HandlerOptions, 'concurrency' | 'order' | 'timeoutMs' | 'ack'> {
  /** Ends the loop, without an error. @default none */
  readonly signal?: AbortSignal
  /** QoS 0 messages that may wait for the loop. 1 to 10,000,000. @default 1000 */
  readonly limit?: number
  /** Which QoS 0 message goes when so many wait. @default 'drop-oldest' */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
}

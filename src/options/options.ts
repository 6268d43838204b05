import type { Duplex } from 'node:stream'
import type { IClientOptions } from 'mqtt'
import type { Verdict } from '../core/connection/reason-code-rules.js'
import type { MqttError } from '../core/errors.js'
import type { WhenBlocked } from '../core/outbound/outbound-message.js'
import type { CodecOption } from './codec.js'

export type { Verdict, WhenBlocked }

/** Options of the `mqtt` package that this package does not own, under their own names. */
export type PassThroughOptions = Pick<IClientOptions, keyof typeof PASS_THROUGH>

/** The names of the options that go to `mqtt` as they came. */
export const PASS_THROUGH = {
  ALPNProtocols: true,
  ca: true,
  cert: true,
  clean: true,
  clientId: true,
  createWebsocket: true,
  keepalive: true,
  key: true,
  password: true,
  properties: true,
  rejectUnauthorized: true,
  servername: true,
  socksProxy: true,
  socksTimeout: true,
  transformWsUrl: true,
  username: true,
  will: true,
  wsOptions: true,
} as const satisfies Partial<Record<keyof IClientOptions, true>>

/** Why an attempt to connect, or a connection, failed. The code is one of `CONNECT_*` or `CONNECTION_*`, or `TIMEOUT`. */
export type ConnectionFailure = MqttError

/** A delay that doubles with every failure in a row. */
export interface BackoffOptions {
  /** Delay before the first retry, in milliseconds. 1 to `max`. @default 500 */
  readonly min?: number
  /** Longest delay, in milliseconds. At most 86,400,000. @default 30000 */
  readonly max?: number
  /**
   * How the delay is spread, so that a fleet does not come back at the same moment: `full` is anything
   * between half of `min` and the doubled-up delay, `decorrelated` anything between `min` and three times the
   * delay before, `none` the delay itself. @default 'full'
   */
  readonly jitter?: 'full' | 'decorrelated' | 'none'
}

/** When the next attempt to connect is made. */
export interface ReconnectOptions {
  /**
   * Delay before each retry, in milliseconds: a list whose last value repeats, a function of the number of
   * rounds of failures over all URLs (from 1) and the last cause, or a growing delay. @default { min: 500, max: 30000, jitter: 'full' }
   */
  readonly delayMs?:
    | readonly number[]
    | ((attempt: number, cause: ConnectionFailure) => number)
    | BackoffOptions
  /**
   * A connection must have lasted this long, in milliseconds, before failures are counted from zero again.
   * Keeps a broker that accepts and drops from being hammered. 0 or more. @default 10000
   */
  readonly resetAfterMs?: number
  /**
   * What follows an end of a connection, or of an attempt, in place of the rules of this package (`docs/reconnect.md`).
   * Undefined leaves it to them. @default none
   */
  readonly verdict?: (cause: ConnectionFailure) => Verdict | undefined
}

/**
 * TLS files, read before every attempt to connect, so that a renewed certificate is used without a restart. A file that
 * cannot be read or used is a failed attempt whose cause names it.
 */
export interface TlsFileOptions {
  /** CA certificates in PEM, in place of `ca`: the path of a file, or a list of them. @default none */
  readonly caPath?: string | readonly string[]
  /** Path of the client certificate in PEM, in place of `cert`. @default none */
  readonly certPath?: string
  /** Path of the private key in PEM, in place of `key`. @default none */
  readonly keyPath?: string
  /** Decrypts the private key of `key` or `keyPath`. @default none */
  readonly passphrase?: string
}

/** What an attempt to connect is made with. */
export interface MqttCredentials
  extends Pick<PassThroughOptions, 'username' | 'password' | 'ca' | 'cert' | 'key'>,
    TlsFileOptions {
  /** Headers of the WebSocket handshake. */
  readonly headers?: Readonly<Record<string, string>>
}

/** How much work comes in at a time. */
export interface InboundOptions {
  /**
   * Handlers whose code runs at the same time on this connection. A handler that waits for its next retry, its dead
   * letter or the response to its own `request()` does not count. 1 to 65,535. @default 16
   */
  readonly concurrency?: number
  /**
   * QoS 1 and 2 messages that may be unacknowledged, sent to the broker as Receive Maximum (MQTT 5,
   * 3.1.2.11.3). Messages that wait for a retry or a dead letter count; `maxQueuedBytes` bounds their bytes. 1 to 65,535.
   * @default 256, or 2 x `concurrency` where that is more
   */
  readonly maxInFlight?: number
  /** QoS 0 messages that may wait for a handler. 1 or more. @default 1000 */
  readonly maxQueued?: number
  /**
   * Bytes of messages that may be held at a time, of every QoS: waiting for a handler, being handled, waiting for a
   * retry, a dead letter or `ack()`, unread in `messages()`, or not released by the broker (QoS 2). Each counts with
   * 512 bytes more than its packet. When they are used up, QoS 0 follows `overflow`, and QoS 1 and 2 are not read until
   * there is room. What must be read all the same ends the connection with Reason Code 0x93, and the broker delivers
   * again to a kept session. 1 or more. @default 67108864
   */
  readonly maxQueuedBytes?: number
  /**
   * What makes room when so many wait: `drop-oldest`, `drop-newest`; `latest`: of each topic only the newest waits for
   * a handler; `stall`: nothing is read until there is room, which the broker feels. Answers to what handlers publish
   * and request on this connection cannot be read meanwhile either; when these would hold it up, it is read on,
   * and the oldest goes. @default 'drop-oldest'
   */
  readonly overflow?: 'drop-oldest' | 'drop-newest' | 'latest' | 'stall'
  /**
   * Largest packet that is taken, in bytes, sent to the broker as Maximum Packet Size (MQTT 5, 3.1.2.11.4). A larger
   * one ends the connection, with Reason Code 0x95. 128 to 268,435,460. @default 16777216
   */
  readonly maxPacketBytes?: number
}

/** How much may be under way to the broker, and how much may wait for it. */
export interface OutboundOptions {
  /**
   * QoS 1 and 2 messages of ours that may be unacknowledged. The broker's Receive Maximum lowers it
   * (MQTT 5, 3.2.2.3.3). 1 to 65,535. @default 1000
   */
  readonly maxInFlight?: number
  /**
   * How long the broker may take to respond to the oldest SUBSCRIBE, UNSUBSCRIBE, or QoS 1 or 2 message on a connection,
   * in milliseconds. Then the connection is given up and made again: a kept session sends the message again, without
   * one it is `lost`. From half of the time on, health is `degraded`. A message that the broker cannot have read yet has
   * a millisecond more for each byte of it; under `flowControl: 'kernel'` nobody knows that. 1 to 3,600,000. @default 30000
   */
  readonly ackTimeoutMs?: number
  /**
   * Age, in milliseconds, at which a message that waits under `drop` is not written any more. 10 to 3,600,000. @default 1000
   */
  readonly maxDelayMs?: number
  /** What becomes of a publish that cannot be written now and does not say so itself. @default 'drop' */
  readonly whenBlocked?: WhenBlocked
  /** Messages that may wait under `latest` (so many topics), `queue` and `wait` together. 1 to 10,000,000. @default 1000 */
  readonly maxQueued?: number
  /** Bytes of these messages. 1 or more. @default 1048576 */
  readonly maxQueuedBytes?: number
  /** Longest wait under `queue`, in milliseconds. 1 to 86,400,000. @default 60000 */
  readonly maxAgeMs?: number
  /** Which message of `queue` goes when there is no room: the oldest, or the one that comes. @default 'drop-oldest' */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
  /**
   * Gives Topic Aliases to the topics that were used last, as many as the broker takes (MQTT 5, 3.3.2.3.4). @default true
   */
  readonly topicAlias?: boolean
  /**
   * How the link is kept from filling up: `markers` measures it by PINGREQ packets between the messages, and keeps
   * about 100 ms of it on the wire; `kernel` writes until the operating system refuses, which on a slow link is
   * many seconds of data. @default 'markers'
   */
  readonly flowControl?: 'markers' | 'kernel'
}

/** What requests are like that do not say otherwise. */
export interface RequestDefaults {
  /** Time for the first answer, and for each next one of a stream, in milliseconds. 1 to 3,600,000. @default 30000 */
  readonly timeoutMs?: number
  /** Requests that may be open at the same time. 1 to 1,000,000. @default 10000 */
  readonly maxOpen?: number
  /**
   * Answers come to a topic of this connection alone: this prefix, `/` and a random part. Access rules of the broker
   * must let this client subscribe to it, and responders publish. @default 'nestjs-mqtt/responses'
   */
  readonly responseTopicPrefix?: string
  /**
   * Highest QoS at which the broker delivers responses to this connection, by the private topic and by the reply topics
   * of Nest's envelope. 0: a lost response ends as `TIMEOUT`. 1: the broker repeats a response that was not
   * acknowledged; it counts against the broker's window for this client (`inbound.maxInFlight`), in which it can wait
   * behind events. A request that blocks itself that way fails as `REQUEST_BLOCKED`. @default 0
   */
  readonly responseQos?: 0 | 1
  /** Open streams of responses as the responder. One more ends the oldest that is not renewed, else is refused. 1 to 1,000,000. @default 1000 */
  readonly maxStreams?: number
  /**
   * How long the responder of a stream goes on without a sign of this requester, in milliseconds. The requester renews
   * each open stream three times in this time (MQTT 5). Rounded up to seconds. 1,000 to 3,600,000. @default 30000
   */
  readonly streamLeaseMs?: number
}

/**
 * Options of one connection. Besides the ones listed here, these options of the `mqtt` package pass through
 * under their own names: TLS (`ca`, `cert`, `key`, `rejectUnauthorized`, …), `username`, `password`,
 * `keepalive`, `will`, `properties`, `wsOptions`, `socksProxy` and others.
 */
export interface MqttModuleOptions extends PassThroughOptions, TlsFileOptions {
  /**
   * Where the broker is: `mqtt`, `mqtts`, `ws` or `wss`, host, port and path; or `mqtt+srv` or `mqtts+srv` and a
   * name whose DNS SRV records (`_mqtt._tcp`, `_secure-mqtt._tcp`) are looked up at each attempt. A list is tried in
   * order, starting with the one that was good last; the delay grows after a whole round. Required unless
   * `createStream` is given.
   */
  readonly url?: string | readonly string[]
  /**
   * Opens the byte stream to the broker in place of `url`, once for every attempt to connect: an in-memory
   * broker in a test, a tunnel, a serial line.
   * @default none: `url` is dialled
   */
  readonly createStream?: () => Duplex
  /**
   * Client Identifier. Must be given, and be the same after a restart, for `clean: false`.
   * @default a random one for each process
   */
  readonly clientId?: string
  /**
   * Whether the broker forgets the session at the end of the connection. With `false` it keeps subscriptions
   * and unacknowledged messages; on MQTT 5 the Session Expiry Interval is then set to "never", as MQTT 3.1.1
   * has it, unless `properties.sessionExpiryInterval` says otherwise. @default true
   */
  readonly clean?: boolean
  /**
   * `fail-fast`: the application does not start when the first attempt fails. `background`: it starts, and
   * the connection comes when the broker does. @default 'fail-fast'
   */
  readonly connect?: 'fail-fast' | 'background'
  /** Time for one attempt, from dialling to CONNACK, in milliseconds. 1 to 3,600,000. @default 10000 */
  readonly connectTimeoutMs?: number
  /** MQTT version: 5, 4 (which is 3.1.1), or `auto`: 5, and 3.1.1 with a broker that refuses 5. @default 'auto' */
  readonly protocolVersion?: 'auto' | 4 | 5
  /** Delays between attempts to connect. @default those of `ReconnectOptions` */
  readonly reconnect?: ReconnectOptions
  /**
   * Called before every attempt to connect; what it gives goes over `username`, `password` and the TLS options. A
   * rejection is a failed attempt with that cause. Must settle within `connectTimeoutMs`. @default none
   */
  readonly credentials?: () => MqttCredentials | Promise<MqttCredentials>
  /** Address of this machine to connect from. @default the operating system's choice */
  readonly localAddress?: string
  /**
   * Called when the connection has stopped for good by itself, with the cause: see `reconnect.verdict`. It is in the
   * log too, as an error. @default none
   */
  readonly onStopped?: (cause: ConnectionFailure) => void
  /**
   * A subscription that the broker refuses at the start: `fail` keeps the application from starting, `warn` logs it.
   * A refused subscription is tried again with growing delays either way. @default 'fail'
   */
  readonly refusedSubscription?: 'fail' | 'warn'
  /** Limits for messages that come in. @default those of `InboundOptions` */
  readonly inbound?: InboundOptions
  /** Limits for messages that go out. @default those of `OutboundOptions` */
  readonly outbound?: OutboundOptions
  /** Limits for requests, and where their answers come. @default those of `RequestDefaults` */
  readonly requests?: RequestDefaults
  /**
   * Whether an answer may go to this Response Topic (MQTT 5, 4.10). One with wildcards or on `$` never may.
   * @default every other one may
   */
  readonly allowResponseTopic?: (responseTopic: string) => boolean
  /**
   * Which handlers take the envelope of Nest's built-in transport: `requests`: `@MessagePattern` handlers take
   * `{ pattern, data, id }` and answer it; `all`: besides, every handler takes `{ pattern, data }`, as the built-in
   * `emit()` sends it, for its data, where `pattern` is the topic; and the `MqttClientProxy` of the module sends the
   * envelope, as a built-in server takes it. @default 'requests'
   */
  readonly envelope?: 'requests' | 'all'
  /**
   * Time for shutting down, in milliseconds: handlers end, acknowledgements leave, publishes settle, those of HTTP
   * handlers that still run included. What is not done then is given up and logged. A fifth of it is kept for
   * DISCONNECT. 0 to 3,600,000. @default 5000
   */
  readonly drainTimeoutMs?: number
  /** How payloads are decoded for handlers and encoded by publishes that do not say otherwise. @default 'json' */
  readonly codec?: CodecOption
  /** ShareName for every handler (MQTT 5, 4.8.2); a handler's own `sharedGroup` wins. @default none */
  readonly sharedGroup?: string
  /** Values for `${name}` in patterns. @default none */
  readonly variables?: Readonly<Record<string, string>>
}

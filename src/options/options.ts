import type { Duplex } from 'node:stream'
import type { Verdict } from '../core/connection/reconnect-rules.js'
import type { MqttError } from '../core/errors.js'
import type { MessageStore, StoredSettlement } from '../core/outbound/message-store.js'
import type { WhenBlocked } from '../core/outbound/publish-outcome.js'
import type { AuthenticationOptions } from './authentication.js'
import type { CodecOption } from './codec.js'
import type {
  KnownLimits,
  MqttCredentials,
  PassThroughOptions,
  PresenceOptions,
  SocketOptions,
  TlsFileOptions,
} from './pass-through.js'

export type {
  AuthenticationOptions,
  KnownLimits,
  MqttCredentials,
  PassThroughOptions,
  PresenceOptions,
  SocketOptions,
  TlsFileOptions,
  Verdict,
  WhenBlocked,
}

/** Why a connection, or an attempt to connect, failed. The code is `TIMEOUT`, or starts with `CONNECT` or `AUTHENTICATION`. */
export type ConnectionFailure = MqttError

/** A delay that doubles with every consecutive failure. */
export interface BackoffOptions {
  /** Delay before the first retry, in milliseconds. 1 to `max`. @default 500 */
  readonly min?: number
  /** Longest delay, in milliseconds. At most 86,400,000. @default 30000 */
  readonly max?: number
  /**
   * Randomises the delay, so that many clients do not reconnect at the same moment. `full`: between half of `min` and
   * the current delay. `decorrelated`: between `min` and three times the previous delay. `none`: exactly the current
   * delay. @default 'full'
   */
  readonly jitter?: 'full' | 'decorrelated' | 'none'
}

/** When and whether the client reconnects. */
export interface ReconnectOptions {
  /**
   * Delay before each retry, in milliseconds: a list whose last value repeats, a growing delay, or a function of the
   * failed rounds (each round tries every URL; starts at 1) and the last cause.
   * @default { min: 500, max: 30000, jitter: 'full' }
   */
  readonly delayMs?:
    | readonly number[]
    | ((attempt: number, cause: ConnectionFailure) => number)
    | BackoffOptions
  /**
   * How long a connection must last, in milliseconds, before the delay starts from the beginning. Prevents rapid
   * reconnects to a broker that accepts connections and drops them. 0 to 86,400,000. @default 10000
   */
  readonly resetAfterMs?: number
  /**
   * Decides what follows the end of a connection or of an attempt, in place of the rules in `docs/reconnect.md`. Return
   * undefined to apply these rules. @default none
   */
  readonly verdict?: (cause: ConnectionFailure) => Verdict | undefined
}

/** Limits for incoming messages. */
export interface InboundOptions {
  /**
   * Number of handlers whose code runs at the same time on this connection. Handlers that wait for a retry, a dead
   * letter or the response to their own `request()` do not count. 1 to 65,535. @default 16
   */
  readonly concurrency?: number
  /**
   * Number of unacknowledged QoS 1 and 2 messages, sent to the broker as Receive Maximum (MQTT 5, 3.1.2.11.3). Messages
   * that wait for a retry or a dead letter count too. 1 to 65,535. @default 256, or 2 x `concurrency` if that is more
   */
  readonly maxInFlight?: number
  /** Number of QoS 0 messages that wait for a handler. 1 to 10,000,000. @default 1000 */
  readonly maxQueued?: number
  /**
   * Total bytes of all messages that the client holds, at any QoS: those that wait for a handler, are being handled,
   * wait for a retry, a dead letter or `ack()`, are unread in `messages()`, or are not yet released by the broker
   * (QoS 2). Each counts as the size of its packet plus 512 bytes. At the limit, QoS 0 follows `overflow`, and QoS 1 and 2
   * stay unread until there is room. If the client has to read on, it leaves them unacknowledged, and reconnects when the
   * messages that it holds are finished, so that a broker with a persistent session delivers them again. 1 or more.
   * @default 67108864
   */
  readonly maxQueuedBytes?: number
  /**
   * How the client makes room when `maxQueued` messages wait. `drop-oldest` and `drop-newest` drop a message. `latest`
   * keeps the newest message of each topic for each handler. `stall` stops reading, so that TCP slows the broker down.
   * Responses and acknowledgements for what handlers publish on this connection are then not read either; if handlers
   * wait for these, the client reads on and drops the oldest message. @default 'drop-oldest'
   */
  readonly overflow?: 'drop-oldest' | 'drop-newest' | 'latest' | 'stall'
  /**
   * Largest accepted packet, in bytes, sent to the broker as Maximum Packet Size (MQTT 5, 3.1.2.11.4). A larger packet
   * ends the connection with Reason Code 0x95. 128 to 268,435,460. @default 16777216
   */
  readonly maxPacketBytes?: number
}

/** Limits for outgoing messages. */
export interface OutboundOptions {
  /**
   * Number of unacknowledged QoS 1 and 2 publishes. The broker can lower it with its Receive Maximum
   * (MQTT 5, 3.2.2.3.3). 1 to 65,535. @default 1000
   */
  readonly maxInFlight?: number
  /**
   * How long the broker may take to respond to the oldest SUBSCRIBE, UNSUBSCRIBE, or QoS 1 or 2 publish on a
   * connection, in milliseconds. After that the client closes the connection and reconnects: with a persistent session
   * the publish is sent again, without one it is `lost`. Health is `degraded` after half of the time. A publish that the
   * broker cannot have read yet has one more millisecond per byte; `flowControl: 'kernel'` does not measure this.
   * 1 to 3,600,000. @default 30000
   */
  readonly ackTimeoutMs?: number
  /** Age, in milliseconds, at which the `drop` policy drops a waiting message. 10 to 3,600,000. @default 1000 */
  readonly maxDelayMs?: number
  /** What happens to a publish that cannot be written now, unless it sets its own `whenBlocked`. @default 'drop' */
  readonly whenBlocked?: WhenBlocked
  /** Number of messages that wait under `latest`, `queue` and `wait` together. 1 to 10,000,000. @default 1000 */
  readonly maxQueued?: number
  /** Total bytes of the messages that `maxQueued` counts. 1 or more. @default 1048576 */
  readonly maxQueuedBytes?: number
  /** Longest wait under `queue`, in milliseconds. 1 to 86,400,000. @default 60000 */
  readonly maxAgeMs?: number
  /** Which message `queue` drops when it is full: the oldest, or the new one. @default 'drop-oldest' */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
  /**
   * Assigns Topic Aliases to the most recently used topics, up to the number the broker allows (MQTT 5, 3.3.2.3.4).
   * @default true
   */
  readonly topicAlias?: boolean
  /**
   * How the client keeps the link from filling up. `markers` measures the link with PINGREQ packets between the messages
   * and keeps about 100 ms of data on the wire. `kernel` writes until the operating system refuses, which on a slow
   * link is many seconds of data; what it refuses waits as `whenBlocked` says. @default 'markers'
   */
  readonly flowControl?: 'markers' | 'kernel'
}

/** Defaults and limits of requests. */
export interface RequestDefaults {
  /** Time limit for a response, and for each further one of a stream, in ms. 1 to 3,600,000. @default 30000 */
  readonly timeoutMs?: number
  /** Number of requests open at the same time. 1 to 1,000,000. @default 10000 */
  readonly maxOpen?: number
  /**
   * Responses arrive on a private topic of this connection: this prefix, `/` and a random part. The access rules of
   * the broker must allow this client to subscribe to it, and responders to publish to it.
   * @default 'nestjs-mqtt/responses'
   */
  readonly responseTopicPrefix?: string
  /**
   * Highest QoS at which the broker delivers responses to this connection, on the private topic and on the reply topics
   * of Nest's envelope. With 0, a lost response results in `TIMEOUT`. With 1, the broker repeats an unacknowledged
   * response, which then counts towards `inbound.maxInFlight` and can wait behind events. A request that blocks its own
   * response in this way fails with `REQUEST_BLOCKED`. @default 0
   */
  readonly responseQos?: 0 | 1
  /**
   * Sends a PINGREQ every 2 ms while a request or response at QoS 1 is under way, and for 40 ms after. It carries the TCP
   * acknowledgement that a broker with Nagle's algorithm on (as mosquitto by default) waits for: a response then takes a
   * few ms instead of 44. Not used if the broker takes more than 5 ms to respond. @default true
   */
  readonly ackPings?: boolean
  /**
   * Number of streams of responses open on this responder. A further stream ends the oldest one that is not renewed; if
   * all are renewed, the new one is refused. 1 to 1,000,000. @default 1000
   */
  readonly maxStreams?: number
  /**
   * How long a responder keeps a stream open without a renewal from this requester, in milliseconds. The requester
   * renews each open stream three times within that time (MQTT 5 only). Rounded up to seconds. 1,000 to 3,600,000.
   * @default 30000
   */
  readonly streamLeaseMs?: number
}

/**
 * Options of one connection. In addition to the options listed here, these options are passed to the `mqtt` package
 * unchanged: TLS (`ca`, `cert`, `key`, `servername`, …), `username`, `password`, `keepalive`, `will`, `properties`,
 * `wsOptions` and others.
 */
export interface MqttModuleOptions extends PassThroughOptions, TlsFileOptions, KnownLimits, SocketOptions {
  /**
   * Address of the broker: a `mqtt`, `mqtts`, `ws` or `wss` URL; `mqtt+unix:///path` for a Unix socket; or `mqtt+srv` or
   * `mqtts+srv` with a name whose DNS SRV records (`_mqtt._tcp`, `_secure-mqtt._tcp`) the client resolves before each
   * attempt. The client tries a list of up to 1,000 URLs in order, starting with the one that worked last; the delay grows after
   * a full round. A function is called before every attempt, for example to sign the URL; it must settle within
   * `connectTimeoutMs`. Required, unless `createStream` is set.
   */
  readonly url?: string | readonly string[] | (() => string | Promise<string>)
  /**
   * Opens the byte stream to the broker, in place of `url`. Called once per attempt to connect. Use it for an in-memory
   * broker in a test, a tunnel or a serial line. @default none: the client connects to `url`
   */
  readonly createStream?: () => Duplex
  /** Client Identifier. `clean: false` requires one that is the same after a restart. @default a random one per process */
  readonly clientId?: string
  /**
   * Whether the session ends with the connection. With `false` the broker keeps subscriptions and unacknowledged
   * messages. On MQTT 5 the Session Expiry Interval is then "never", as on MQTT 3.1.1, unless
   * `properties.sessionExpiryInterval` sets one. @default true
   */
  readonly clean?: boolean
  /**
   * `fail-fast`: the application does not start if the first round of attempts fails. `background`: the application
   * starts without a connection, and the client keeps trying. @default 'fail-fast'
   */
  readonly connect?: 'fail-fast' | 'background'
  /** Time limit of one attempt, from opening the socket to CONNACK, in milliseconds. 1 to 3,600,000. @default 10000 */
  readonly connectTimeoutMs?: number
  /** MQTT version: 5, 4 (MQTT 3.1.1), or `auto`: MQTT 5, or 3.1.1 if the broker refuses MQTT 5. @default 'auto' */
  readonly protocolVersion?: 'auto' | 4 | 5
  /** Delays between attempts to connect. @default see `ReconnectOptions` */
  readonly reconnect?: ReconnectOptions
  /**
   * Returns the credentials for an attempt to connect. Called before every attempt; the result overrides `username`,
   * `password` and the TLS options. If it rejects, the attempt fails with that cause. Must settle within
   * `connectTimeoutMs`. Also called before the credentials expire (`expiresAtMs`), and by `reauthenticate()`. @default none
   */
  readonly credentials?: () => MqttCredentials | Promise<MqttCredentials>
  /** Enhanced authentication with AUTH packets (MQTT 5, 4.12). The connection then never uses MQTT 3.1.1. @default none */
  readonly authentication?: AuthenticationOptions
  /**
   * Called with the cause when the connection stops for good by itself; see `reconnect.verdict`. The client also logs
   * this as an error. @default none
   */
  readonly onStopped?: (cause: ConnectionFailure) => void
  /**
   * What happens if the broker refuses a subscription at startup. `fail`: the application does not start. `warn`: the
   * client logs a warning. With both, the client retries the subscription with growing delays. @default 'fail'
   */
  readonly refusedSubscription?: 'fail' | 'warn'
  /** Limits for incoming messages. @default see `InboundOptions` */
  readonly inbound?: InboundOptions
  /** Limits for outgoing messages. @default see `OutboundOptions` */
  readonly outbound?: OutboundOptions
  /** Defaults and limits of requests. @default see `RequestDefaults` */
  readonly requests?: RequestDefaults
  /**
   * Decides whether a response may be sent to this Response Topic (MQTT 5, 4.10). Topics with wildcards, and topics that
   * start with `$`, are always refused. @default all other topics are allowed
   */
  readonly allowResponseTopic?: (responseTopic: string) => boolean
  /**
   * Which handlers accept the envelope of Nest's built-in transport. `requests`: `@MessagePattern` handlers accept
   * `{ pattern, data, id }` and send the reply in the same format. `all`: in addition, every handler accepts
   * `{ pattern, data }` from the built-in `emit()` if `pattern` is the topic, and the `MqttClientProxy` of the module
   * sends the envelope. @default 'requests'
   */
  readonly envelope?: 'requests' | 'all'
  /**
   * QoS of `emit()` of `MqttClientProxy`, unless the record of the event has one. With 1 or 2, the Observable completes when the
   * broker has acknowledged the event, or the store of the connection has it. Otherwise it fails with `NOT_SENT`, and `outcome`
   * of the error says what became of the event: `dropped`, `refused` or `lost`. @default 0
   */
  readonly eventQos?: 0 | 1 | 2
  /**
   * Time limit of the shutdown, in milliseconds. Within it handlers finish, acknowledgements are sent and publishes
   * settle, including those of HTTP handlers that are still running. The rest is discarded and logged. A fifth of the
   * time is reserved for DISCONNECT. 0 to 3,600,000. @default 5000
   */
  readonly drainTimeoutMs?: number
  /**
   * Where publishes with `whenBlocked: 'store'` wait: `sqliteStore()` of `nestjs-mqtt/store`. A store belongs to one client.
   * The client opens it at its start, and closes it at its end. @default none
   */
  readonly store?: MessageStore
  /**
   * How long a publish with `whenBlocked: 'store'` waits for its acknowledgement before it is written to the store, in
   * milliseconds. 0: every such message is stored, at the same time as it is sent. 0 to 3,600,000. @default 200
   */
  readonly storeAfterMs?: number
  /** Called when a stored message has ended: delivered, or not. The store has the outcome already. @default none */
  readonly onStoredSettled?: (settlement: StoredSettlement) => void
  /**
   * Keeps a retained message up to date that says whether this client is online: the will, a message after every connect, and
   * one before a clean close, at QoS 1. Cannot be combined with `will`. @default none
   */
  readonly presence?: PresenceOptions
  /** Default codec of handlers and publishes. @default 'json' */
  readonly codec?: CodecOption
  /** Share Name for every handler (MQTT 5, 4.8.2); the `sharedGroup` of a handler takes precedence. @default none */
  readonly sharedGroup?: string
  /** Values for `${name}` in patterns. @default none */
  readonly variables?: Readonly<Record<string, string>>
}

import * as v from 'valibot'
import type { LogLevel } from '../core/log-lines.js'
import type { StoreLimits } from '../core/outbound/message-store.js'
import type { PublishProperties } from '../core/protocol/packets.js'
import type { RequestProtocol } from '../core/requests/request-rules.js'
import type { CodecOption } from './codec.js'
import type { HandlerOptions } from './handler-options.js'
import { resolveOptions } from './option-checks.js'
import type { MqttModuleOptions, WhenBlocked } from './options.js'
import type { ResolvedOptions } from './resolved-options.js'
import {
  assertReadable,
  codecSchema,
  flag,
  integer,
  invalidOption,
  MAX_TIMEOUT_MS,
  messageProperties,
  oneOf,
  parseOptions,
  qosSchema,
  strictObject,
} from './schema.js'

/** Receives the log lines of a client. `console` is one. */
export interface MqttLogger {
  error(text: string): void
  warn(text: string): void
  log(text: string): void
  debug(text: string): void
}

/** Options of a client without Nest. */
export interface MqttConnectOptions extends MqttModuleOptions {
  /** Receives the log lines of this client. @default none: the client logs nothing */
  readonly logger?: MqttLogger
}

const OWNER = 'MqttClient options'
const LEVELS: readonly LogLevel[] = ['error', 'warn', 'log', 'debug']
const ignore = () => {}
const SILENT: MqttLogger = { error: ignore, warn: ignore, log: ignore, debug: ignore }

/** @throws MqttError `INVALID_OPTION` */
export function resolveConnectOptions(
  options: MqttConnectOptions,
): ResolvedOptions & { readonly logger: MqttLogger } {
  assertReadable(OWNER, options)
  const { logger = SILENT, ...connection } = options
  if (!isLogger(logger))
    throw invalidOption(OWNER, '"logger" must be an object with the functions error, warn, log and debug')
  return { ...resolveOptions(connection, OWNER), logger }
}

const isLogger = (value: unknown): value is MqttLogger =>
  typeof value === 'object' && LEVELS.every(level => typeof Reflect.get(value ?? {}, level) === 'function')

/** Options of `tryPublish`. */
export interface TryPublishOptions {
  /** Whether the broker keeps the message as the last value of its topic (MQTT 5, 3.3.1.3). @default false */
  readonly retain?: boolean
  /** Encodes the payload. A Buffer or Uint8Array is sent unchanged. @default the codec of the connection */
  readonly codec?: CodecOption
  /**
   * Properties of the PUBLISH packet (MQTT 5, 3.3.2.3): User Properties, Message Expiry Interval and others. Not sent on
   * MQTT 3.1.1. @default none
   */
  readonly properties?: PublishProperties
  /**
   * What happens to the message when there is no connection, or the link is slower than the data.
   * @default `outbound.whenBlocked`, or `drop` if that is `wait` or `store`
   */
  readonly whenBlocked?: Exclude<WhenBlocked, 'wait' | 'store'>
}

/** Options of `publish`. */
export interface PublishOptions extends Omit<TryPublishOptions, 'whenBlocked'> {
  /** Quality of Service (MQTT 5, 4.3). @default 0 */
  readonly qos?: 0 | 1 | 2
  /**
   * What happens to the message when there is no connection, or the link is slower than the data.
   * @default `outbound.whenBlocked`
   */
  readonly whenBlocked?: WhenBlocked
  /**
   * Time limit, in milliseconds. After that a waiting publish is `dropped: expired`, and a written publish without an
   * acknowledgement is `lost`. 1 to 3,600,000. @default no limit
   */
  readonly timeoutMs?: number
  /** Aborts the publish: it is `dropped: aborted` while it waits, and `lost` once it is written. @default none */
  readonly signal?: AbortSignal
}

/** Options of `request` and `requestStream`. */
export interface RequestOptions extends Omit<PublishOptions, 'whenBlocked'> {
  /**
   * Time limit for a response, and for each further response of a stream, in milliseconds. Also the Message Expiry
   * Interval of the request. 1 to 3,600,000. @default `requests.timeoutMs`
   */
  readonly timeoutMs?: number
  /** Aborts the request, and cancels the stream at its responder. @default none */
  readonly signal?: AbortSignal
  /**
   * `mqtt5`: Response Topic and Correlation Data (MQTT 5, 4.10). `nest`: the envelope of Nest's built-in transport.
   * @default `mqtt5` on MQTT 5, `nest` on MQTT 3.1.1
   */
  readonly protocol?: RequestProtocol
}

/** Options of `respond`: those of a handler of requests. The defaults are QoS 0 and `order: 'none'`. */
export interface RespondOptions extends Omit<HandlerOptions, 'retries' | 'onFailure' | 'ack'> {}

/** Options of `retained`. */
export interface RetainedOptions {
  /**
   * Highest QoS at which the broker delivers. With 1, retained messages can wait behind unacknowledged ones of other handlers.
   * @default 0
   */
  readonly qos?: 0 | 1
  /** Decodes the payloads. @default the codec of the contract or of the connection */
  readonly codec?: CodecOption
  /** Number of topics. 1 to 10,000,000. @default 10000 */
  readonly maxTopics?: number
  /** Bytes of all values. Each counts as the size of its packet plus 512 bytes. 1 or more. @default 16777216 */
  readonly maxBytes?: number
  /**
   * What is dropped at a limit: `drop-oldest`, the topic that was updated longest ago, or `drop-newest`, the new topic.
   * @default 'drop-oldest'
   */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
  /**
   * Time without a new topic after which the set is complete, in milliseconds, in addition to a round trip. For brokers that
   * look up retained messages in the background, such as clusters. 0 to 3,600,000. @default 100
   */
  readonly quietMs?: number
}

const retainedSchema = strictObject(
  {
    qos: v.optional(oneOf([0, 1]), 0),
    codec: v.optional(codecSchema),
    maxTopics: v.optional(integer(1, 10_000_000), 10_000),
    maxBytes: v.optional(integer(1, Number.MAX_SAFE_INTEGER), 16_777_216),
    overflow: v.optional(oneOf(['drop-oldest', 'drop-newest']), 'drop-oldest'),
    quietMs: v.optional(integer(0, MAX_TIMEOUT_MS), 100),
  },
  'an object with options',
)

/** Options of `retained`, with defaults. */
export type ResolvedRetained = Required<Omit<RetainedOptions, 'codec'>> & Pick<RetainedOptions, 'codec'>

/** @throws MqttError `INVALID_OPTION` */
export function resolveRetained(filter: string, options: RetainedOptions): ResolvedRetained {
  const { codec, ...checked } = parseOptions(`retained messages of "${filter}"`, retainedSchema, options)
  return codec === undefined ? checked : { ...checked, codec }
}

/** Options of `messages` and `messages$`. */
export interface MessagesOptions
  extends Omit<HandlerOptions, 'concurrency' | 'order' | 'timeoutMs' | 'ack' | 'dedupe'> {
  /** Ends the loop without an error. @default none */
  readonly signal?: AbortSignal
  /** Number of QoS 0 messages that wait for the loop. 1 to 10,000,000. @default 1000 */
  readonly limit?: number
  /** Which QoS 0 message is dropped when `limit` messages wait. @default 'drop-oldest' */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
}

/** The limits of a store. */
export interface StoreOptions {
  /** Number of messages. 1 to 1,000,000,000. @default 1000000 */
  readonly maxMessages?: number
  /**
   * Bytes of all messages. Each counts as the size of its packet plus 150 bytes. 1 or more.
   * @default 67108864
   */
  readonly maxBytes?: number
  /** Age at which a message expires, in milliseconds. 1 or more. @default no limit */
  readonly maxAgeMs?: number
  /**
   * What happens at a limit. `drop-oldest`: the oldest messages are evicted. `drop-newest`: new messages are rejected.
   * @default 'drop-oldest'
   */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
  /** Number of outcomes in the journal. 0 to 1,000,000. @default 10000 */
  readonly maxOutcomes?: number
}

const storeLimits = {
  maxMessages: v.optional(integer(1, 1_000_000_000), 1_000_000),
  maxBytes: v.optional(integer(1, Number.MAX_SAFE_INTEGER), 67_108_864),
  maxAgeMs: v.optional(integer(1, Number.MAX_SAFE_INTEGER)),
  overflow: v.optional(oneOf(['drop-oldest', 'drop-newest']), 'drop-oldest'),
  maxOutcomes: v.optional(integer(0, 1_000_000), 10_000),
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveStoreOptions(owner: string, options: StoreOptions): StoreLimits {
  const { maxAgeMs, ...others } = parseOptions(owner, strictObject(storeLimits), options)
  return { ...others, maxAgeMs }
}

/** Options of `sqliteInbox`. */
export interface SqliteInboxOptions {
  /**
   * What reads and writes the file: `node:sqlite` needs Node 22.13 or later, `libsql` the package of that name. Both use the
   * same files.
   * @default 'node:sqlite' if Node has it, otherwise 'libsql'
   */
  readonly engine?: 'node:sqlite' | 'libsql'
  /**
   * What happens to a file that is damaged so that nothing can be read. `fail`: it cannot be opened (`STORE_CORRUPT`).
   * `move-aside`: the file is renamed, and the store starts empty.
   * @default 'fail'
   */
  readonly onCorrupt?: 'fail' | 'move-aside'
  /**
   * Time limit for a call, in milliseconds: a call that the disk has not completed by then rejects with `STORE_FAILED`, and
   * `close` gives up. It rejects after one to two times this limit. 1 to 120,000.
   * @default 30000; 10000 for `sqliteInbox`, because a handler waits for it
   */
  readonly timeoutMs?: number
}

/** Options of `sqliteStore`. */
export interface SqliteStoreOptions extends StoreOptions, SqliteInboxOptions {}

/** Options of `sqliteInbox`, with defaults. */
export interface ResolvedInbox {
  readonly file: string
  readonly engine: 'node:sqlite' | 'libsql' | undefined
  readonly onCorrupt: 'fail' | 'move-aside'
  readonly timeoutMs: number
}

/** Options of `sqliteStore`, with defaults. */
export interface ResolvedSqlite extends ResolvedInbox {
  readonly limits: StoreLimits
}

/** A client waits for a call for five minutes. */
const MAX_CALL_MS = 120_000

const place = (timeoutMs: number) => ({
  engine: v.optional(oneOf(['node:sqlite', 'libsql'])),
  onCorrupt: v.optional(oneOf(['fail', 'move-aside']), 'fail'),
  timeoutMs: v.optional(integer(1, MAX_CALL_MS), timeoutMs),
})

const sqlite = strictObject({ ...storeLimits, ...place(30_000) })
const inbox = strictObject(place(10_000))

/** @throws MqttError `INVALID_OPTION` */
export function resolveSqlite(file: string, options: SqliteStoreOptions): ResolvedSqlite {
  assertPath('sqliteStore', file, 'alarms.db')
  const { engine, onCorrupt, timeoutMs, maxAgeMs, ...others } = parseOptions(
    'sqliteStore options',
    sqlite,
    options,
  )
  return { file, limits: { ...others, maxAgeMs }, engine, onCorrupt, timeoutMs }
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveInbox(file: string, options: SqliteInboxOptions): ResolvedInbox {
  assertPath('sqliteInbox', file, 'inbox.db')
  const { engine, onCorrupt, timeoutMs } = parseOptions('sqliteInbox options', inbox, options)
  return { file, engine, onCorrupt, timeoutMs }
}

function assertPath(owner: string, file: unknown, example: string): void {
  // libsql aborts the process for a path with U+0000.
  if (typeof file !== 'string' || file === '' || file.includes('\0'))
    throw invalidOption(owner, `the file must be a path, such as "${example}"`)
}

/** Options of `messages` in addition to those of a handler. */
export const messagesSchema = v.object(
  {
    signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
    limit: v.optional(integer(1, 10_000_000), 1_000),
    overflow: v.optional(oneOf(['drop-oldest', 'drop-newest']), 'drop-oldest'),
  },
  'an object with options',
)

/** Options of an `MqttRecord`. With a type, because TypeScript 5.6 cannot read the inferred one. */
export const recordSchema: v.GenericSchema = v.optional(
  strictObject(
    {
      qos: v.optional(qosSchema),
      retain: v.optional(flag),
      dup: v.optional(flag),
      properties: v.optional(strictObject(messageProperties)),
    },
    'an object with record options',
  ),
  {},
)

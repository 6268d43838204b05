import * as v from 'valibot'
import { MqttError } from '../core/errors.js'
import type { FailurePolicy, InboxStore } from '../core/inbound/inbound-count.js'
import type { PublishProperties } from '../core/protocol/packets.js'
import { assertTopicName, isTopicName } from '../core/topic/topic-filter.js'
import { type CodecOption, isStandardSchema, SCHEMA_ALLOWED, type StandardSchema } from './codec.js'
import type { BackoffOptions } from './options.js'
import {
  codecSchema,
  delaysWithoutFunction,
  integer,
  MAX_DELAY_MS,
  MAX_UINT16,
  oneOf,
  parseOptions,
  sharedGroupSchema,
  strictObject,
} from './schema.js'

/** Options of one handler. Pass them through {@link handle} to `@EventPattern` or `@MessagePattern`. */
export interface HandlerOptions {
  /**
   * Highest QoS at which the broker delivers to this handler (MQTT 5, 3.8.3.1). The publisher can choose a lower one.
   * QoS 1 messages are acknowledged after the handler has finished, QoS 2 messages when they are received. Requests use
   * QoS 0: the timeout of the requester covers a lost message, and requests cannot wait behind events whose handlers
   * wait for them.
   * @default 1; 0 for `@MessagePattern`
   */
  readonly qos?: 0 | 1 | 2
  /** Decodes the payload. @default the codec of the connection */
  readonly codec?: CodecOption
  /**
   * Validates the decoded payload before the handler runs. The handler receives the output of the schema. A message whose
   * payload is not valid fails: `retries` do not apply, `onFailure` does, and a requester receives the reason. Guards, pipes
   * and interceptors of Nest run after it. @default none
   */
  readonly schema?: StandardSchema
  /**
   * Validates every response to a request before it is sent. If a response is not valid, the requester receives the reason as
   * an error. The schema must validate synchronously. @default none
   */
  readonly response?: StandardSchema
  /**
   * Whether the reasons of invalid payloads contain the values that are not valid. They then appear in the log, the dead
   * letter and the response. @default false
   */
  readonly valuesInReasons?: boolean
  /**
   * Number of runs of this handler whose code executes at the same time. A run that waits for a retry, a dead letter or the
   * response to its own request does not count; `order` keeps messages strictly apart. 1 to 65,535.
   * @default `inbound.concurrency`
   */
  readonly concurrency?: number
  /**
   * Which messages are handled in order, one at a time. `topic`: the messages of one topic. `none`: all messages are
   * handled concurrently. A function of the Topic Name: the messages with the same returned key.
   * @default 'topic'; 'none' for `@MessagePattern`
   */
  readonly order?: 'topic' | 'none' | ((topic: string) => string)
  /**
   * Time limit of one attempt to run the handler, in milliseconds. After that the run has failed and the `signal` of
   * its context is aborted; the client does not wait for the run any longer. 1 to 86,400,000. @default no limit
   */
  readonly timeoutMs?: number
  /**
   * Repeats a failed run without giving up the place of the message in the order. Requests are not repeated: the
   * requester receives the error. @default none
   */
  readonly retries?: RetryOptions
  /**
   * What happens to a message whose last run failed. `ack`: the failure is logged and counted, and the message is
   * acknowledged. `deadLetter(topic)`: the message is published to that topic, then acknowledged. `disconnect`: the
   * client closes the connection without the acknowledgement, and the broker delivers the message again (QoS 1 and
   * `clean: false`). When the redelivered message fails again, the client keeps the connection for 1 s first, then for twice
   * as long each time, up to 60 s; other QoS 1 messages run meanwhile, but their acknowledgements wait behind it.
   * @default 'ack'
   */
  readonly onFailure?: FailurePolicy
  /**
   * With `manual`, a QoS 1 message is acknowledged when the handler calls `ack()` of its context, even after the handler
   * has returned. @default 'auto'
   */
  readonly ack?: 'auto' | 'manual'
  /**
   * The handler receives several messages at a time: a list of payloads, and an `MqttBatchContext` with the messages. For events
   * with a decorator only. The messages are acknowledged when the handler has succeeded. If it fails, `retries` repeats the batch, and then
   * `onFailure` applies to each message. A message that cannot be decoded fails alone. Batches run one after the other; with
   * `order: 'none'`, up to `concurrency` of them at the same time.
   * @default none: one message at a time
   */
  readonly batch?: BatchOptions
  /**
   * Remembers which messages this handler has handled, so that a repeat is acknowledged without another run. For events
   * only. @default none: every message that arrives is handled
   */
  readonly dedupe?: DedupeOptions
  /** Share Name: the broker delivers each message to one member of the group (MQTT 5, 4.8.2). @default none */
  readonly sharedGroup?: string
  /** No Local: the broker does not deliver messages that this connection published. MQTT 5 only (3.8.3.1). @default false */
  readonly noLocal?: boolean
  /**
   * Whether the broker sends retained messages on SUBSCRIBE. 0: always. 1: only for a new subscription. 2: never.
   * MQTT 5 only (3.8.3.1). @default 0
   */
  readonly retainHandling?: 0 | 1 | 2
}

/** When a batch of messages is passed to its handler. */
export interface BatchOptions {
  /** Maximum number of messages in a batch. 1 to 65,535, and at most `inbound.maxInFlight` unless `qos` is 0. */
  readonly maxMessages: number
  /**
   * Longest time that a message waits for others, in milliseconds, unless an earlier batch is still running. The batch starts
   * earlier if it is full, or if the client may not receive more. 1 to 60,000. @default 1000
   */
  readonly maxWaitMs?: number
}

/**
 * How a handler recognises repeats. A message is remembered after its handler has succeeded; a message that failed, even if
 * a dead letter was published, runs again when it is repeated. While the handler runs for a message, a copy of it waits.
 */
export interface DedupeOptions {
  /**
   * The key of a message. `message-id`: its topic and its User Property `message-id` (MQTT 5), which stored publishes have.
   * A function: the returned string, of any length; `undefined` for a message without a key. A message without a key
   * always runs, and counts in `stats().inbound.withoutKey`. If the function throws, the run fails.
   */
  readonly by: 'message-id' | ((message: KeyedMessage<never>) => string | undefined)
  /** Keeps the keys. @default in memory: they are lost when the process ends */
  readonly store?: InboxStore
  /** How long a message is remembered, in milliseconds. 1 to 31,536,000,000. @default 86400000, a day */
  readonly maxAgeMs?: number
  /** Number of messages that are remembered for this handler. 1 to 10,000,000. @default 100000 */
  readonly maxEntries?: number
  /**
   * Name of the keys of this handler in `store`. Two handlers of a client must not have the same one in the same store.
   * @default the pattern and the method: `devices/+id/alarm Alarms.onAlarm`; for `subscribe`, the name of the function
   */
  readonly scope?: string
}

/** A message, as passed to the function of `dedupe.by`. Name the type of the payload in its parameter. */
export interface KeyedMessage<T = unknown> {
  readonly topic: string
  /** The decoded payload, before a schema has validated it. */
  readonly payload: T
  /** Values of the named wildcards of the pattern. */
  readonly params: Readonly<Record<string, string>>
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly dup: boolean
  readonly properties: PublishProperties
}

/** How often, and when, a failed run is repeated. */
export interface RetryOptions {
  /** Number of further runs. 1 to 1,000. */
  readonly attempts: number
  /**
   * Delay before each further run, in milliseconds: a list whose last value repeats, or a growing delay.
   * @default { min: 500, max: 30000, jitter: 'full' }
   */
  readonly delayMs?: readonly number[] | BackoffOptions
}

/**
 * A value for `onFailure`: a message whose handler failed is published to `topic` at QoS 1, and acknowledged when the
 * broker has acknowledged the dead letter. On MQTT 5 the dead letter has the original payload and properties, and the User
 * Properties `dead-letter-topic`, `-pattern`, `-reason`, `-attempts` and `-time`. On MQTT 3.1.1 it is a JSON object with the
 * same information. A message that fails on the dead letter topic itself is not published again. A broker with Maximum QoS 0
 * gets dead letters at QoS 0.
 * @throws MqttError `INVALID_TOPIC_NAME`
 */
export function deadLetter(topic: string): { readonly deadLetter: string } {
  assertTopicName(topic)
  return { deadLetter: topic }
}

const MAX_BATCH_WAIT_MS = 60_000

const flag = 'true or false'
const level = 'one of 0, 1, 2'

function isInboxStore(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || !('has' in value) || !('add' in value)) return false
  return typeof value.has === 'function' && typeof value.add === 'function'
}

function isOrder(value: unknown): boolean {
  return value === 'topic' || value === 'none' || typeof value === 'function'
}

function isFailurePolicy(value: unknown): boolean {
  if (value === 'ack' || value === 'disconnect') return true
  if (typeof value !== 'object' || value === null || !('deadLetter' in value)) return false
  return typeof value.deadLetter === 'string' && isTopicName(value.deadLetter)
}

const schema = v.optional(v.custom<StandardSchema>(isStandardSchema, SCHEMA_ALLOWED))

const entries = {
  qos: v.optional(v.picklist([0, 1, 2], level)),
  codec: v.optional(codecSchema),
  schema,
  response: schema,
  valuesInReasons: v.optional(v.boolean(flag)),
  concurrency: v.optional(integer(1, MAX_UINT16)),
  order: v.optional(
    v.custom<NonNullable<HandlerOptions['order']>>(isOrder, '"topic", "none" or a function of the topic'),
  ),
  timeoutMs: v.optional(integer(1, MAX_DELAY_MS)),
  retries: v.optional(
    strictObject(
      { attempts: integer(1, 1_000), delayMs: v.optional(delaysWithoutFunction, {}) },
      'an object with attempts',
    ),
  ),
  onFailure: v.optional(
    v.custom<FailurePolicy>(isFailurePolicy, '"ack", "disconnect" or deadLetter(topic)'),
    'ack',
  ),
  ack: v.optional(oneOf(['auto', 'manual']), 'auto'),
  batch: v.optional(
    strictObject(
      { maxMessages: integer(1, MAX_UINT16), maxWaitMs: v.optional(integer(1, MAX_BATCH_WAIT_MS), 1_000) },
      'an object with maxMessages',
    ),
  ),
  dedupe: v.optional(
    strictObject(
      {
        by: v.custom<DedupeOptions['by']>(
          value => value === 'message-id' || typeof value === 'function',
          '"message-id" or a function of the message',
        ),
        store: v.optional(v.custom<InboxStore>(isInboxStore, 'an object with the functions has and add')),
        maxAgeMs: v.optional(integer(1, 31_536_000_000), 86_400_000),
        maxEntries: v.optional(integer(1, 10_000_000), 100_000),
        scope: v.optional(v.pipe(v.string('a string'), v.nonEmpty('a string that is not empty'))),
      },
      'an object with by',
    ),
  ),
  sharedGroup: v.optional(sharedGroupSchema),
  noLocal: v.optional(v.boolean(flag), false),
  retainHandling: v.optional(v.picklist([0, 1, 2], level), 0),
}

const strict = strictObject(entries, 'an object with handler options')
/** Not strict, because other packages may put their own keys into the extras of a decorator. */
const loose = v.object(entries, 'an object with handler options')

type CheckedHandlerOptions = v.InferOutput<typeof loose>

export interface ResolvedHandlerOptions extends CheckedHandlerOptions {
  readonly qos: 0 | 1 | 2
  readonly order: NonNullable<HandlerOptions['order']>
}

/** Whether a handler has `@EventPattern` or `@MessagePattern`. */
export type HandlerKind = 'events' | 'requests'

const KIND_DEFAULTS = {
  events: { qos: 1, order: 'topic' },
  requests: { qos: 0, order: 'none' },
} as const

/**
 * Validates the options of a handler and returns them: `@EventPattern('devices/+id', handle({ qos: 0 }))`.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function handle(options: HandlerOptions): HandlerOptions {
  return checkedHandlerOptions('handle()', options)
}

/**
 * @param owner what the options belong to, for the error
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function checkedHandlerOptions(owner: string, options: HandlerOptions): HandlerOptions {
  parseOptions(owner, strict, options)
  return options
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveHandlerOptions(
  pattern: string,
  extras: unknown,
  kind: HandlerKind = 'events',
): ResolvedHandlerOptions {
  const checked = parseOptions(`handler of "${pattern}"`, loose, extras ?? {})
  for (const option of ['batch', 'dedupe'] as const) {
    if (kind === 'events' || checked[option] === undefined) continue
    const text = `handler of "${pattern}": ${option} is for events only, because every request needs a response of its own; remove it`
    throw new MqttError('INVALID_OPTION', text)
  }
  const { qos, order } = KIND_DEFAULTS[kind]
  return { ...checked, qos: checked.qos ?? qos, order: checked.order ?? order }
}

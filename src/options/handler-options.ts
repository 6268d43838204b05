import * as v from 'valibot'
import type { FailurePolicy } from '../core/inbound/run-outcome.js'
import { assertTopicName, isTopicName } from '../core/topic/topic-filter.js'
import type { CodecOption } from './codec.js'
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

/** Options of one handler, as the second argument of `@EventPattern` or `@MessagePattern`. */
export interface HandlerOptions {
  /**
   * Highest QoS at which the broker delivers to this handler. 1 leaves the choice to the publisher, up to
   * acknowledged delivery. QoS 2 is acknowledged when it is received, not when the handler ended. Requests are
   * delivered at QoS 0: the timeout of the requester covers a loss, and they do not wait behind events whose
   * handlers wait for them.
   * @default 1; 0 for `@MessagePattern`
   */
  readonly qos?: 0 | 1 | 2
  /** How the payload is decoded. @default the codec of the connection */
  readonly codec?: CodecOption
  /** Messages that this handler works on at the same time. 1 to 65,535. @default `inbound.concurrency` */
  readonly concurrency?: number
  /**
   * Which messages wait for each other: `topic`: those of one topic are handled in order, one at a time; `none`; or a
   * function of the Topic Name: those with the same key are. Requests are independent of each other.
   * @default 'topic'; 'none' for `@MessagePattern`
   */
  readonly order?: 'topic' | 'none' | ((topic: string) => string)
  /**
   * Time for one run, in milliseconds; then it has failed, and the `signal` of its context is aborted. What it does
   * after that is not waited for. 1 to 86,400,000. @default no limit
   */
  readonly timeoutMs?: number
  /** A failed run is repeated, in its place in the order. Not where an answer was asked for: that gets the error. @default none */
  readonly retries?: RetryOptions
  /**
   * What becomes of a message whose last run failed: `ack`: it is logged, counted and acknowledged;
   * `deadLetter(topic)`; `disconnect`: the connection ends without the acknowledgement, and the broker delivers again
   * (QoS 1, `clean: false`). @default 'ack'
   */
  readonly onFailure?: FailurePolicy
  /**
   * `manual`: a QoS 1 message is acknowledged when the handler calls `ack()` of its context, also after it has
   * returned. @default 'auto'
   */
  readonly ack?: 'auto' | 'manual'
  /** ShareName: the broker gives each message to one of the group's members (MQTT 5, 4.8.2). */
  readonly sharedGroup?: string
  /** No Local: what this connection publishes does not come back. MQTT 5 only (3.8.3.1). @default false */
  readonly noLocal?: boolean
  /**
   * Retained messages at subscribing: 0 send them, 1 send them if the subscription is new, 2 do not.
   * MQTT 5 only (3.8.3.1). @default 0
   */
  readonly retainHandling?: 0 | 1 | 2
}

/** When a failed run is repeated. */
export interface RetryOptions {
  /** Runs after the first one. 1 to 1000. */
  readonly attempts: number
  /** Delay before each, in milliseconds: a list whose last value repeats, or a growing delay. @default { min: 500, max: 30000, jitter: 'full' } */
  readonly delayMs?: readonly number[] | BackoffOptions
}

/**
 * For `onFailure`: a message whose handler failed is published to `topic` with QoS 1, and acknowledged when the broker
 * has it. On MQTT 5 with its payload, its properties, and `dead-letter-topic`, `-pattern`, `-reason`, `-attempts` and
 * `-time` as User Properties; on 3.1.1 as JSON that holds them. A message of that topic itself gets no letter.
 * @throws MqttError `INVALID_TOPIC_NAME`
 */
export function deadLetter(topic: string): { readonly deadLetter: string } {
  assertTopicName(topic)
  return { deadLetter: topic }
}

const flag = 'true or false'
const level = 'one of 0, 1, 2'

function isOrder(value: unknown): boolean {
  return value === 'topic' || value === 'none' || typeof value === 'function'
}

function isFailurePolicy(value: unknown): boolean {
  if (value === 'ack' || value === 'disconnect') return true
  if (typeof value !== 'object' || value === null || !('deadLetter' in value)) return false
  return typeof value.deadLetter === 'string' && isTopicName(value.deadLetter)
}

const entries = {
  qos: v.optional(v.picklist([0, 1, 2], level)),
  codec: v.optional(codecSchema),
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
  sharedGroup: v.optional(sharedGroupSchema),
  noLocal: v.optional(v.boolean(flag), false),
  retainHandling: v.optional(v.picklist([0, 1, 2], level), 0),
}

const strict = strictObject(entries, 'an object with handler options')
/** Extras of a decorator may hold keys of others. */
const loose = v.object(entries, 'an object with handler options')

type CheckedHandlerOptions = v.InferOutput<typeof loose>

export interface ResolvedHandlerOptions extends CheckedHandlerOptions {
  readonly qos: 0 | 1 | 2
  readonly order: NonNullable<HandlerOptions['order']>
}

/** What a handler takes. */
export type HandlerKind = 'events' | 'requests'

const KIND_DEFAULTS = {
  events: { qos: 1, order: 'topic' },
  requests: { qos: 0, order: 'none' },
} as const

/**
 * Options for a handler: `@EventPattern('devices/+id', handle({ qos: 0 }))`. Checked where it is written.
 * @throws MqttError `INVALID_OPTION`
 */
export function handle(options: HandlerOptions): HandlerOptions {
  parseOptions('handle()', strict, options)
  return options
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveHandlerOptions(
  pattern: string,
  extras: unknown,
  kind: HandlerKind = 'events',
): ResolvedHandlerOptions {
  const checked = parseOptions(`handler of "${pattern}"`, loose, extras ?? {})
  const { qos, order } = KIND_DEFAULTS[kind]
  return { ...checked, qos: checked.qos ?? qos, order: checked.order ?? order }
}

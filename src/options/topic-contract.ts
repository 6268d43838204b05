import * as v from 'valibot'
import { MqttError } from '../core/errors.js'
import { WHEN_BLOCKED, type WhenBlocked } from '../core/outbound/publish-outcome.js'
import type { PublishProperties } from '../core/protocol/packets.js'
import {
  fillTopic,
  isTopicName,
  matchesTopicFilter,
  parseTopicTemplate,
  readTopicParams,
  type TopicParams,
  type TopicTemplate,
} from '../core/topic/topic-filter.js'
import type { PublishOptions, RequestOptions, TryPublishOptions } from './client-options.js'
import {
  type CodecOption,
  isStandardSchema,
  resolveCodec,
  SCHEMA_ALLOWED,
  type StandardSchema,
} from './codec.js'
import type { HandlerOptions } from './handler-options.js'
import { flag, oneOf, parseOptions, publishEntries, qosSchema, strictObject } from './schema.js'

type Types<S extends StandardSchema> = NonNullable<S['~standard']['types']>

/** What `publish` accepts as the payload for a topic. */
export type PublishPayload<T> =
  T extends TopicAddress<infer C extends TopicContract> ? TopicInput<C> : unknown

/** What applies to every message of a topic. */
export interface TopicPolicy {
  /**
   * Quality of Service of publishes (MQTT 5, 4.3), and highest QoS at which the broker delivers to handlers (MQTT 5,
   * 3.8.3.1). @default the default of each call
   */
  readonly qos?: 0 | 1 | 2
  /**
   * Encodes and decodes the payload. Publishes carry its Content Type, unless `properties` has one.
   * @default the codec of the connection
   */
  readonly codec?: CodecOption
  /** Whether the broker keeps the message as the last value of its topic (MQTT 5, 3.3.1.3). @default false */
  readonly retain?: boolean
  /**
   * What happens to a publish when there is no connection, or the link is slower than the data. Does not apply to requests.
   * @default `outbound.whenBlocked`
   */
  readonly whenBlocked?: WhenBlocked
  /**
   * Properties of publishes (MQTT 5, 3.3.2.3). A property of the same name in the options of a call takes precedence.
   * @default none
   */
  readonly properties?: PublishProperties
}

/** Options of {@link defineTopic}. */
export interface TopicOptions<S extends StandardSchema, R extends StandardSchema> extends TopicPolicy {
  /**
   * Schema of the payload, as the codec decodes it. Publishers validate a payload before they send it, handlers validate it
   * before they run and receive the output of the schema. An asynchronous validation is part of the call: it ends with the
   * `timeoutMs` (a publish without one: after 10 s, a request: after `requests.timeoutMs`), the `signal`, and the close of
   * the client. A publish is then `dropped` (`expired`, `aborted` or `closed`), and a request rejects with `TIMEOUT`,
   * `ABORTED` or `CONNECTION_CLOSED`. @default none: any payload
   */
  readonly schema?: S
  /**
   * Schema of the responses to requests on this topic. An asynchronous validation by the requester has the limits of a
   * request, from the arrival of the response. @default none: any response
   */
  readonly response?: R
  /**
   * Whether the reasons of invalid payloads contain the values that are not valid. They then appear in logs, errors, dead
   * letters and responses. @default false
   */
  readonly valuesInReasons?: boolean
  /** What the messages of this topic mean, for documentation. @default none */
  readonly description?: string
}

/**
 * What publishers and handlers of a topic agree on: its pattern, its parameters, the types of its payload and response, and
 * its policy. Created by {@link defineTopic}.
 */
export interface TopicContract<
  Pattern extends string = string,
  In = unknown,
  Out = unknown,
  ResponseIn = unknown,
  ResponseOut = unknown,
> {
  /** The pattern, such as `devices/+deviceId/telemetry`. */
  readonly pattern: Pattern
  /** The pattern as a Topic Filter, such as `devices/+/telemetry`. */
  readonly filter: string
  /** Schema of the payload. */
  readonly schema: StandardSchema<In, Out> | undefined
  /** Schema of the responses. */
  readonly response: StandardSchema<ResponseIn, ResponseOut> | undefined
  readonly policy: TopicPolicy
  readonly valuesInReasons: boolean
  readonly description: string | undefined
  /**
   * Returns the topic with these parameters: to publish, to request, or to receive only what is sent to this topic.
   * @throws MqttError `INVALID_TOPIC_NAME` if a value is missing or empty or contains `/`, `+` or `#` (a value for `#name` may
   * contain `/`), or if the pattern has a wildcard without a name
   */
  at(
    ...params: TopicArguments<Pattern>
  ): TopicAddress<TopicContract<Pattern, In, Out, ResponseIn, ResponseOut>>
  /** Returns the parameters of a Topic Name that matches the pattern. Undefined for any other value. */
  match(topic: string): TopicParams<Pattern> | undefined
}

/** A pattern without named wildcards has no parameters. */
type TopicArguments<Pattern extends string> = [keyof TopicParams<Pattern>] extends [never]
  ? []
  : [params: TopicParams<Pattern>]

/** One topic of a {@link TopicContract}, returned by its `at()`. */
export interface TopicAddress<Contract = TopicContract> {
  readonly topic: string
  readonly contract: Contract
}

/** The topics of a handler: a pattern, every topic of a contract, or one topic of it. */
export type TopicSource = string | TopicContract | TopicAddress

/** Whether a value is a contract, possibly of another copy of this package. */
export function isContract(value: unknown): value is TopicContract {
  if (typeof value !== 'object' || value === null || !('at' in value) || !('pattern' in value)) return false
  return typeof value.at === 'function' && typeof value.pattern === 'string'
}

export function isAddress(value: unknown): value is TopicAddress {
  if (typeof value !== 'object' || value === null || !('topic' in value) || !('contract' in value))
    return false
  return typeof value.topic === 'string' && isContract(value.contract)
}

/** Returns the code for one topic of a contract: `contract.at({ deviceId })`. */
export function callOfAt({ pattern }: TopicContract): string {
  const names = parseTopicTemplate(pattern).params.map(({ name }) => name)
  return names.length === 0 ? 'contract.at()' : `contract.at({ ${names.join(', ')} })`
}

/** The payload that handlers of a contract receive: the output of its schema. */
export type TopicPayload<C extends TopicContract> =
  C extends TopicContract<string, infer _In, infer Out, infer _ResponseIn, infer _ResponseOut> ? Out : never

/** The payload that publishers of a contract send: the input of its schema. */
export type TopicInput<C extends TopicContract> =
  C extends TopicContract<string, infer In, infer _Out, infer _ResponseIn, infer _ResponseOut> ? In : never

/** The response that a requester receives: the output of the response schema. */
export type TopicResponse<C extends TopicContract> =
  C extends TopicContract<string, infer _In, infer _Out, infer _ResponseIn, infer Out> ? Out : never

/** The response that a responder returns: the input of the response schema. */
export type TopicResponseInput<C extends TopicContract> =
  C extends TopicContract<string, infer _In, infer _Out, infer In, infer _ResponseOut> ? In : never

const schema = v.optional(v.custom<StandardSchema>(isStandardSchema, SCHEMA_ALLOWED))

const topicSchema = strictObject(
  {
    ...publishEntries,
    qos: v.optional(qosSchema),
    whenBlocked: v.optional(oneOf(WHEN_BLOCKED)),
    schema,
    response: schema,
    valuesInReasons: v.optional(flag),
    description: v.optional(v.string('a string')),
  },
  'an object with topic options',
)

/**
 * Defines a topic once for its publishers and its handlers.
 *
 * @param pattern a pattern with named wildcards, such as `devices/+deviceId/telemetry`, without a `$share` prefix and without
 * `${variables}`
 * @throws MqttError `INVALID_TOPIC_FILTER` for an invalid pattern, `INVALID_OPTION` for an unknown or invalid option
 */
export function defineTopic<
  const Pattern extends string,
  S extends StandardSchema = StandardSchema,
  R extends StandardSchema = StandardSchema,
>(
  pattern: Pattern,
  options: TopicOptions<S, R> = {},
): TopicContract<Pattern, Types<S>['input'], Types<S>['output'], Types<R>['input'], Types<R>['output']> {
  parseOptions(`topic "${pattern}"`, topicSchema, options)
  const { schema, response, description, valuesInReasons = false, ...policy } = options
  const template = contractTemplate(pattern)
  const contract: TopicContract<
    Pattern,
    Types<S>['input'],
    Types<S>['output'],
    Types<R>['input'],
    Types<R>['output']
  > = Object.freeze({
    pattern,
    filter: template.topicFilter.filter,
    schema,
    response,
    policy: Object.freeze(policy),
    valuesInReasons,
    description,
    at: (...[params]: TopicArguments<Pattern>) =>
      Object.freeze({ topic: topicOf(template, params ?? {}), contract }),
    match: (topic: string) => matchOf<Pattern>(template, topic),
  })
  return contract
}

function contractTemplate(pattern: string): TopicTemplate {
  const template = parseTopicTemplate(pattern)
  const { sharedGroup } = template.topicFilter
  if (sharedGroup === undefined && !pattern.includes('${')) return template
  const problem =
    sharedGroup === undefined
      ? 'a contract cannot use the option "variables"; insert the value into the pattern in your code'
      : 'a contract is not a subscription; set "sharedGroup" in the options of its handler'
  throw new MqttError('INVALID_TOPIC_FILTER', `"${pattern}" is not a valid pattern of a contract: ${problem}`)
}

function topicOf({ pattern, params }: TopicTemplate, values: Readonly<Record<string, string>>): string {
  const empty = params.find(({ name }) => values[name] === '')
  if (empty === undefined) return fillTopic(pattern, values)
  throw new MqttError('INVALID_TOPIC_NAME', `the parameter "${empty.name}" of "${pattern}" must not be empty`)
}

function matchOf<Pattern extends string>(
  template: TopicTemplate,
  topic: string,
): TopicParams<Pattern> | undefined {
  if (!isTopicName(topic) || !matchesTopicFilter(template.topicFilter, topic)) return undefined
  // Seam: the names come from the pattern, which the compiler reads as well.
  return readTopicParams(template, topic) as TopicParams<Pattern>
}

/** The options of a publish: those of the call, and those of the contract for the others. */
export function publishOptionsOf({ policy }: TopicContract, options: PublishOptions): PublishOptions {
  return merged(policy, options)
}

/** @throws MqttError `INVALID_OPTION` for a contract whose publishes need an acknowledgement */
export function tryPublishOptionsOf(
  { policy, pattern }: TopicContract,
  options: TryPublishOptions,
): TryPublishOptions {
  const { qos = 0, whenBlocked, ...rest } = policy
  if (qos > 0) {
    const text = `tryPublish sends at QoS 0, but the contract of "${pattern}" has QoS ${qos}; use publish`
    throw new MqttError('INVALID_OPTION', text)
  }
  // A caller without a promise cannot wait.
  const mode = whenBlocked === 'wait' || whenBlocked === 'store' ? 'drop' : whenBlocked
  return merged(mode === undefined ? rest : { ...rest, whenBlocked: mode }, options)
}

export function requestOptionsOf({ policy }: TopicContract, options: RequestOptions): RequestOptions {
  const { whenBlocked: _whenBlocked, ...rest } = policy
  return merged(rest, options)
}

/** The options of a handler of a contract: those of the handler, and those of the contract for the others. */
export function handlerOptionsOf<O extends HandlerOptions>(contract: TopicContract, options: O): O {
  const { qos, codec } = contract.policy
  const { schema, response, valuesInReasons } = contract
  return { ...defined({ qos, codec, schema, response, valuesInReasons }), ...defined(options) }
}

interface WithProperties {
  readonly codec?: CodecOption
  readonly properties?: PublishProperties
}

function merged<O extends WithProperties>(policy: O & WithProperties, options: O): O {
  const own = defined(options)
  const all = { ...policy, ...own }
  const contentType = all.codec === undefined ? undefined : resolveCodec(all.codec).contentType
  if (contentType === undefined && policy.properties === undefined) return all
  const properties = {
    ...(contentType === undefined ? {} : { contentType }),
    ...policy.properties,
    ...own.properties,
  }
  return { ...all, properties }
}

/** Without the options that are undefined, which do not replace others. */
function defined<T extends object>(options: T): T {
  // Seam: what is left out is optional.
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T
}

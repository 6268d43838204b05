import { reconnectDelayMs } from '../../core/connection/reconnect-rules.js'
import { MqttError } from '../../core/errors.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import { fillVariables, parseTopicTemplate, type TopicTemplate } from '../../core/topic/topic-filter.js'
import {
  type Codec,
  InvalidMessage,
  type PayloadCheck,
  resolveCodec,
  type StandardSchema,
} from '../../options/codec.js'
import type { BatchOptions, ResolvedHandlerOptions } from '../../options/handler-options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { describeInput } from '../../options/schema.js'
import { isAddress, isContract, type TopicContract } from '../../options/topic-contract.js'
import type { InboundHandler } from './delivery.js'

/** @throws MqttError `INVALID_TOPIC_FILTER` for anything but a pattern, a contract and one topic of a contract */
export function sourceOf(source: unknown): {
  pattern: string
  contract?: TopicContract
  isAddress: boolean
} {
  if (typeof source === 'string') return { pattern: source, isAddress: false }
  if (isAddress(source)) return { pattern: source.topic, contract: source.contract, isAddress: true }
  if (isContract(source)) return { pattern: source.pattern, contract: source, isAddress: false }
  const text = `the pattern must be a string, a contract or one topic of a contract, but is ${describeInput('', source)}`
  throw new MqttError('INVALID_TOPIC_FILTER', text)
}

/** @throws MqttError `INVALID_OPTION` */
export function assertHandler(call: string, { template }: HandlerRules, handler: unknown): void {
  if (typeof handler === 'function') return
  const text = `handler of "${template.pattern}": the handler must be a function, but is ${describeInput('', handler)}; write ${call}(pattern, handler, options)`
  throw new MqttError('INVALID_OPTION', text)
}

type Defaults = Pick<ResolvedOptions, 'codec' | 'variables' | 'sharedGroup' | 'inbound' | 'keepsSession'>

/** What applies to every message of a handler. */
export interface HandlerRules {
  readonly template: TopicTemplate
  readonly codec: Codec
  /** Validates payloads. */
  readonly payload: PayloadCheck | undefined
  /** Validates the responses of the handler. */
  readonly response: PayloadCheck | undefined
  readonly subscription: SubscriptionOptions
  /** Set if the handler receives batches. */
  readonly batch: Required<BatchOptions> | undefined
  /** Set if the handler does not handle repeats. */
  readonly dedupe: ResolvedHandlerOptions['dedupe']
  /** The handler limits its concurrent runs itself. */
  readonly hasOwnLimits: boolean
  readonly runRules: Pick<
    InboundHandler,
    | 'name'
    | 'isOpenEnded'
    | 'concurrency'
    | 'orderKey'
    | 'timeoutMs'
    | 'retries'
    | 'onFailure'
    | 'acknowledges'
  >
}

/**
 * @param isLiteral the pattern is a Topic Name without variables and without wildcards
 * @throws MqttError `INVALID_TOPIC_FILTER`, or `INVALID_OPTION` for options that cannot work on this connection
 */
export function handlerRules(
  pattern: string,
  options: ResolvedHandlerOptions,
  defaults: Defaults,
  isLiteral = false,
): HandlerRules {
  const { qos, noLocal, retainHandling, onFailure, batch, dedupe } = options
  if (onFailure === 'disconnect' && !defaults.keepsSession) {
    const text = `handler of "${pattern}": onFailure "disconnect" needs a persistent session, because otherwise the broker does not deliver the message again; set clean: false and a clientId for the connection`
    throw new MqttError('INVALID_OPTION', text)
  }
  if (dedupe !== undefined && options.ack === 'manual') {
    const text = `handler of "${pattern}": dedupe cannot be combined with ack: "manual", because a message is remembered when the handler has succeeded, which may be before ack(); remove one of them`
    throw new MqttError('INVALID_OPTION', text)
  }
  assertBatch(pattern, options, defaults)
  const template = templateOf(
    isLiteral ? pattern : fillVariables(pattern, defaults.variables),
    options,
    defaults,
  )
  return {
    template,
    codec: resolveCodec(options.codec ?? defaults.codec),
    payload: checkOf(options.schema, options),
    response: checkOf(options.response, options),
    subscription: { qos, noLocal, retainHandling },
    batch,
    dedupe,
    hasOwnLimits: options.concurrency !== undefined || options.order !== 'none',
    runRules: {
      name: pattern,
      isOpenEnded: ['#', '+'].includes(template.topicFilter.levels.at(-1) ?? ''),
      concurrency: options.concurrency ?? defaults.inbound.concurrency,
      orderKey: orderKeyOf(options.order),
      timeoutMs: options.timeoutMs,
      retries: options.retries,
      onFailure,
      acknowledges: options.ack === 'manual' ? 'manually' : 'at-end',
    },
  }
}

/** The rules for one topic of a contract. It has no wildcards, so the contract says which of its levels are parameters. */
export function withParamsOf({ pattern }: { readonly pattern: string }, rules: HandlerRules): HandlerRules {
  return { ...rules, template: { ...rules.template, params: parseTopicTemplate(pattern).params } }
}

/** @throws MqttError `INVALID_OPTION` if a batch could never be full, or not be acknowledged as a whole */
function assertBatch(
  pattern: string,
  { batch, qos, ack }: ResolvedHandlerOptions,
  { inbound }: Defaults,
): void {
  if (batch === undefined) return
  const problem = (text: string) => new MqttError('INVALID_OPTION', `handler of "${pattern}": ${text}`)
  if (ack === 'manual')
    throw problem(
      'batch cannot be combined with ack: "manual", because a batch is acknowledged as a whole when the handler has succeeded; remove one of them',
    )
  if (qos > 0 && batch.maxMessages > inbound.maxInFlight)
    throw problem(
      `batch.maxMessages ${batch.maxMessages} is more than inbound.maxInFlight ${inbound.maxInFlight}, the number of messages that the broker sends without an acknowledgement, so that no batch could be full; lower batch.maxMessages, or raise inbound.maxInFlight of the connection`,
    )
}

function checkOf(
  schema: StandardSchema | undefined,
  { valuesInReasons = false }: ResolvedHandlerOptions,
): PayloadCheck | undefined {
  return schema === undefined ? undefined : { schema, showsValues: valuesInReasons }
}

function orderKeyOf(order: ResolvedHandlerOptions['order']): InboundHandler['orderKey'] {
  if (order === 'none' || order === 'topic') return order
  return topic => {
    // An error in a function of the application must not end the connection.
    try {
      return String(order(topic))
    } catch {
      return topic
    }
  }
}

function templateOf(
  filled: string,
  { sharedGroup }: ResolvedHandlerOptions,
  defaults: Defaults,
): TopicTemplate {
  const group = sharedGroup ?? defaults.sharedGroup
  if (group === undefined || filled.startsWith('$share/')) return parseTopicTemplate(filled)
  return parseTopicTemplate(`$share/${group}/${filled}`)
}

/** Number of attempts to run the handler, if this error is the last. */
export function mostAttempts({ retries }: InboundHandler, error: unknown): number {
  return error instanceof InvalidMessage ? 1 : 1 + (retries?.attempts ?? 0)
}

export function retryDelayMs({ retries }: InboundHandler, failures: number): number {
  if (retries === undefined) return 0
  const cause = new MqttError('TIMEOUT', 'a handler failed')
  return reconnectDelayMs(retries.delayMs, failures, cause, 0, Math.random())
}

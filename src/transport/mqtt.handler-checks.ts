import { inspect } from 'node:util'
import { type ArgumentsHost, Logger } from '@nestjs/common'
import type { ApplicationConfig } from '@nestjs/core'
import { BaseRpcExceptionFilter, type MsObjectPattern, RpcException } from '@nestjs/microservices'
import { throwError } from 'rxjs'
import { isMqttError, MqttError, publicErrorOf } from '../core/errors.js'
import { withOriginal } from '../core/log-lines.js'
import { isTopicName } from '../core/topic/topic-filter.js'
import type { HandlerKind } from '../options/handler-options.js'
import { callOfAt, isAddress, isContract } from '../options/topic-contract.js'
import { MqttBatchContext, MqttContext } from './mqtt.context.js'

/** A pattern that Nest can convert to a string: a string, a number or an object. */
type RoutablePattern = string | number | MsObjectPattern

/** Beyond these limits Nest replaces values by a constant, so that different patterns become equal. */
const MAX_DEPTH = 5
const MAX_KEYS = 20

export function isRoutable(pattern: unknown): pattern is RoutablePattern {
  return typeof pattern === 'string' || typeof pattern === 'number' || problemOf(pattern, 0) === undefined
}

/**
 * Checks the topic of an object or number pattern. A "+" or "#" in a value would be a wildcard for the broker, and no
 * client could publish to it.
 * @throws MqttError `INVALID_TOPIC_FILTER`
 */
export function assertLiteral(route: string): void {
  if (isTopicName(route)) return
  const text = `the pattern ${route} is not a valid Topic Name: it must not contain "+", "#" or NUL, and must have at most 65,535 bytes (MQTT 5, 4.7); use a string pattern for wildcards`
  throw new MqttError('INVALID_TOPIC_FILTER', text)
}

/** A name with a colon is a wildcard in HTTP routes only. */
export function warnOfColon(
  route: string,
  levels: readonly string[],
  log: { warn(text: string): void },
): void {
  const colon = levels.find(level => /^:\w/.test(level))
  if (colon === undefined) return
  log.warn(
    `the pattern "${route}" matches "${colon}" literally; write "+${colon.slice(1)}" for a named wildcard`,
  )
}

/**
 * Rejects patterns that Nest converts to a string that is not unique.
 * @throws MqttError with `code`
 */
export function assertRoutable(
  pattern: unknown,
  code: 'INVALID_TOPIC_FILTER' | 'INVALID_TOPIC_NAME',
): asserts pattern is RoutablePattern {
  if (isRoutable(pattern)) return
  assertNoContract(pattern, code)
  const problem = problemOf(pattern, 0)
  const text = `the pattern ${inspect(pattern, { breakLength: Number.POSITIVE_INFINITY })} cannot be a topic: ${problem}; use a string, a number or an object of those`
  throw new MqttError(code, text)
}

function assertNoContract(pattern: unknown, code: 'INVALID_TOPIC_FILTER' | 'INVALID_TOPIC_NAME'): void {
  const contract = isAddress(pattern) ? pattern.contract : pattern
  if (!isContract(contract)) return
  const instead =
    code === 'INVALID_TOPIC_NAME'
      ? `pass its topic to send() and emit(): ${callOfAt(contract)}.topic`
      : 'pass the contract itself to @OnMqttEvent or @OnMqttRequest'
  throw new MqttError(code, `the contract of "${contract.pattern}" cannot be a pattern; ${instead}`)
}

function problemOf(value: unknown, depth: number): string | undefined {
  if (value instanceof RegExp) return 'it is a RegExp, which a broker cannot match'
  if (typeof value !== 'object' || value === null)
    return depth > 0 && isJsonScalar(value) ? undefined : `it contains ${nameOf(value)}`
  const entries = Object.entries(value)
  if (depth > MAX_DEPTH) return `it is nested more than ${MAX_DEPTH} levels deep`
  if (entries.length > MAX_KEYS) return `it has an object with more than ${MAX_KEYS} keys`
  for (const [, inner] of entries) {
    const problem = problemOf(inner, depth + 1)
    if (problem !== undefined) return problem
  }
  return undefined
}

function isJsonScalar(value: unknown): boolean {
  return value === null || ['string', 'number', 'boolean'].includes(typeof value)
}

function nameOf(value: unknown): string {
  return value === null || value === undefined ? String(value) : `a ${typeof value}`
}

/** A parameter decorator of this package, noted for the checks at start. */
export interface Parameter {
  /** As it is written, such as `@MqttTopic()`. */
  readonly decorator: string
  /** Name of the wildcard of a `@TopicParam`. */
  readonly topicParam?: string
  readonly isOfBatch?: true
}

/** A method with `@EventPattern` or `@MessagePattern`. */
export interface PatternHandler {
  /** Name in the form `Class.method`. */
  readonly name: string
  readonly patterns: readonly unknown[]
  readonly method: object
  readonly kind: HandlerKind
  /** Options of `handle()`, and keys of other packages. */
  readonly extras: { readonly batch?: unknown } | undefined
  /** Its parameter decorators of this package. */
  readonly parameters: readonly Parameter[]
  readonly isForUnmatched: boolean
}

/** What can check the pattern and the options of a handler. */
interface HandlerCheck {
  rulesOf(pattern: unknown, extras: unknown, kind: HandlerKind): unknown
}

/**
 * Checks patterns and options before Nest adds the handlers, because only here the error can name the method.
 * @throws MqttError
 */
export function assertHandlerOptions(handlers: readonly PatternHandler[], check: HandlerCheck): void {
  for (const { name, patterns, extras, kind } of handlers) {
    if (extras !== undefined) methods.set(extras, name)
    for (const pattern of patterns) {
      try {
        check.rulesOf(pattern, extras, kind)
      } catch (error) {
        throw isMqttError(error) ? new MqttError(error.code, `${name}: ${error.message}`) : error
      }
    }
  }
}

/** Nest passes the same object to the transport, but not the name of the method. */
const methods = new WeakMap<object, string>()

/** The method with these options, in the form `Class.method`. Empty for a handler that Nest has not found in a class. */
export function methodOf(extras: object): string {
  return methods.get(extras) ?? ''
}

/**
 * Checks what the compiler cannot: that every `@TopicParam` names a wildcard of its pattern and every other parameter fits its
 * handler, because it would be undefined for every message; and that there is one handler of unmatched messages.
 * @param wildcardsOf returns the wildcards of a pattern, or undefined if the pattern cannot be checked
 * @throws MqttError `INVALID_OPTION`
 */
export function assertHandlers(
  handlers: readonly PatternHandler[],
  wildcardsOf: (pattern: unknown) => readonly string[] | undefined,
): void {
  const [first, second] = handlers.filter(({ isForUnmatched }) => isForUnmatched)
  if (second !== undefined)
    throw new MqttError(
      'INVALID_OPTION',
      `${first?.name} and ${second.name}: a connection can have one handler with @OnMqttUnmatched; remove the others`,
    )
  for (const handler of handlers) {
    assertBatch(handler)
    assertTopicParams(handler, wildcardsOf)
  }
}

function assertBatch({ name, parameters, extras }: PatternHandler): void {
  const hasBatch = extras?.batch !== undefined
  const wrong = parameters.find(({ isOfBatch = false }) => isOfBatch !== hasBatch)
  if (wrong === undefined) return
  const problem = hasBatch
    ? 'has no single value for a batch, because each of its messages has its own; use @MqttBatch() messages: readonly MqttMessage[]'
    : 'needs the option batch in the decorator of the method, as in { batch: { maxMessages: 100 } }'
  throw new MqttError('INVALID_OPTION', `${name}: ${wrong.decorator} ${problem}`)
}

function assertTopicParams(
  { name, patterns, parameters }: PatternHandler,
  wildcardsOf: (pattern: unknown) => readonly string[] | undefined,
): void {
  const wildcards = patterns.map(wildcardsOf)
  if (wildcards.includes(undefined)) return
  const known = new Set(wildcards.flatMap(names => names ?? []))
  const unknown = parameters.flatMap(({ topicParam = [] }) => topicParam).find(param => !known.has(param))
  if (unknown === undefined) return
  const list = [...known].map(param => `"${param}"`).join(', ')
  throw new MqttError(
    'INVALID_OPTION',
    `${name}: @TopicParam('${unknown}') is not a named wildcard of ${patterns.map(pattern => JSON.stringify(pattern)).join(', ')}; ${known.size === 0 ? `add a named wildcard to the pattern, such as "+${unknown}"` : `use one of ${list}`}`,
  )
}

const KINDS = ['Pipes', 'Guards', 'Interceptors', 'Filters'] as const
type Enhancers = Record<(typeof KINDS)[number], readonly object[]>

/**
 * Warns about global pipes, guards, interceptors and filters that are registered after the handlers. Nest silently does not
 * apply them to these handlers.
 */
export class GlobalEnhancers {
  /** Private, so that `util.inspect` does not show the objects of the application. */
  readonly #config: ApplicationConfig
  #ofHandlers: Enhancers | undefined

  constructor(config: ApplicationConfig) {
    this.#config = config
  }

  handlerAdded(): void {
    this.#ofHandlers = this.present()
  }

  /** Warns once about each enhancer that was registered too late. */
  check(): void {
    const before = this.#ofHandlers
    if (before === undefined) return
    const now = this.present()
    const late = KINDS.flatMap(kind =>
      now[kind]
        .filter(enhancer => !before[kind].includes(enhancer))
        .map(enhancer => `useGlobal${kind}(${enhancer.constructor.name})`),
    )
    if (late.length === 0) return
    this.#ofHandlers = now
    new Logger('MqttModule').warn(
      `MQTT handlers run without app.${late.join(', app.')}, because it was called after app.connectMicroservice(). Use this order: app.useGlobalPipes(…) and similar calls; app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true }); await app.startAllMicroservices()`,
    )
  }

  private present(): Enhancers {
    const config = this.#config
    return {
      Pipes: config.getGlobalPipes(),
      Guards: config.getGlobalGuards(),
      Interceptors: config.getGlobalInterceptors(),
      Filters: config.getGlobalFilters(),
    }
  }
}

const IS_SET = Symbol.for('nestjs-mqtt.exposes-reasons')
const HIDDEN = { status: 'error', message: 'Internal server error' } as const

/**
 * Makes Nest's default RPC exception filter pass on the reason of errors that are meant for the sender, such as those of
 * pipes. Applies to handlers of this package only. Exception filters of the application still run first.
 */
export function exposeReasons(): void {
  const { prototype } = BaseRpcExceptionFilter
  if (Object.hasOwn(prototype, IS_SET)) return
  const plain = prototype.catch
  Object.defineProperty(prototype, IS_SET, { value: true })
  prototype.catch = function (exception: unknown, host: ArgumentsHost) {
    if (exception instanceof RpcException || !isOurs(host)) return plain.call(this, exception, host)
    const known = publicErrorOf(exception)
    // Nest's filter logs the error with its stack.
    if (known === undefined) plain.call(this, exception, host)
    const failure = withOriginal({ ...(known ?? HIDDEN) }, exception)
    return throwError(() => failure)
  }
}

function isOurs(host: ArgumentsHost): boolean {
  if (host.getType() !== 'rpc') return false
  const context: unknown = host.switchToRpc().getContext()
  return context instanceof MqttContext || context instanceof MqttBatchContext
}

import type { MqttErrorCode } from './error-codes.js'
import type { PublishOutcome } from './outbound/publish-outcome.js'

export { MQTT_ERROR_CODES, type MqttErrorCode } from './error-codes.js'

const BRAND = Symbol.for('nestjs-mqtt.error')

/** One thing that is wrong with a payload. */
export interface PayloadIssue {
  /** Where it is, with dots between the keys: `readings.0.celsius`. Empty for the payload itself. */
  readonly path: string
  /** What is wrong. Does not contain the value, unless `valuesInReasons` is set. */
  readonly message: string
}

/** Optional properties of an {@link MqttError}. */
export interface MqttErrorDetails {
  /** The original error. */
  readonly cause?: unknown
  /** Reason Code (MQTT 5) or return code (MQTT 3.1.1), if the broker reported one. */
  readonly reasonCode?: number
  /** Server to which the broker redirects the client, with Reason Code 0x9C or 0x9D (MQTT 5, 4.11). */
  readonly serverReference?: string
  /** Decoded error of a responder. Not shown when the error is logged. */
  readonly response?: unknown
  /** What is wrong with a payload, if the code is `PAYLOAD_INVALID`: the first 20 issues. */
  readonly issues?: readonly PayloadIssue[]
  /** What became of the event of an `emit()`, if the code is `NOT_SENT`. */
  readonly outcome?: PublishOutcome
}

/**
 * The error class of this package; `code` identifies the error. Use {@link isMqttError} to recognise it, which also works
 * with several installed copies of the package.
 */
export class MqttError extends Error {
  readonly code: MqttErrorCode
  declare readonly reasonCode?: number
  declare readonly serverReference?: string
  declare readonly response?: unknown
  declare readonly issues?: readonly PayloadIssue[]
  declare readonly outcome?: PublishOutcome

  constructor(code: MqttErrorCode, message: string, details: MqttErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined)
    this.name = 'MqttError'
    this.code = code
    if (details.reasonCode !== undefined) this.reasonCode = details.reasonCode
    if (details.serverReference !== undefined) this.serverReference = details.serverReference
    if (details.issues !== undefined) this.issues = details.issues
    if (details.outcome !== undefined) this.outcome = details.outcome
    // Not enumerable, so that loggers do not print data from the network.
    if (details.response !== undefined)
      Object.defineProperty(this, 'response', { value: details.response, enumerable: false })
    Object.defineProperty(this, BRAND, { value: true })
  }

  /**
   * Output of `util.inspect`. Shows only name, code and message of each cause, because errors of other packages may hold
   * URLs and options with secrets, and only the name where the message may quote a payload. `cause` has the complete errors.
   */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const facts = this.reasonCode === undefined ? this.code : `${this.code}, Reason Code ${this.reasonCode}`
    return `${this.stack ?? this.message} {${facts}}${causeLines(this)}`
  }

  /** Output of `JSON.stringify`, which otherwise omits the message of an Error. Does not include the stack. */
  toJSON(): { name: string; code: MqttErrorCode; message: string; reasonCode?: number } {
    const { name, code, message, reasonCode } = this
    return { name, code, message, ...(reasonCode === undefined ? {} : { reasonCode }) }
  }
}

/** This application has closed the connection. */
export function closedError(): MqttError {
  return new MqttError('CONNECTION_CLOSED', 'the connection was closed by this application')
}

/** Whether `value` is an {@link MqttError}, and has `code` if one is passed. Never throws. */
export function isMqttError(value: unknown, code?: MqttErrorCode): value is MqttError {
  return readSafely(
    () =>
      value instanceof Error &&
      BRAND in value &&
      (code === undefined || ('code' in value && value.code === code)),
    false,
  )
}

/** Reads a value that may be anything, such as a revoked proxy or an object whose getter throws. */
export function readSafely<T>(read: () => T, otherwise: T): T {
  try {
    return read()
  } catch {
    return otherwise
  }
}

/** Also true for an error of another realm: under Jest, the errors of Node are not instances of the `Error` of the tests. */
export const isError = (value: unknown): value is Error =>
  value instanceof Error || Object.prototype.toString.call(value) === '[object Error]'

function causeLines(error: MqttError): string {
  const chain = chainOf(error.cause)
  const first = [error, ...chain].findIndex(quotesPayload)
  return chain
    .map((cause, index) =>
      first === -1 || index < first ? causeLine(cause) : `\n  [cause]: ${kindOf(cause)}`,
    )
    .join('')
}

/** Whether the causes of this error may quote the payload, which must not appear in a log. */
const quotesPayload = (error: unknown): boolean =>
  isMqttError(error, 'PAYLOAD_NOT_DECODABLE') || isMqttError(error, 'PAYLOAD_INVALID')

const kindOf = (cause: unknown): string => (isError(cause) ? textOf(cause.name) : typeof cause)

function causeLine(cause: unknown): string {
  if (!isError(cause)) return `\n  [cause]: ${messageOf(cause) || typeof cause}`
  const code = 'code' in cause ? ` {${textOf(cause.code)}}` : ''
  return `\n  [cause]: ${textOf(cause.name)}: ${messageOf(cause)}${code}`
}

/** Returns the innermost message of a chain of causes, for one log line. Never throws. */
export function describeCause(cause: unknown): string {
  return readSafely(() => {
    const readable = chainOf(cause)
      .map(messageOf)
      .findLast(message => message !== '')
    return readable ?? (isError(cause) ? textOf(cause.name) : 'unknown cause')
  }, UNREADABLE)
}

/** Describes why a handler failed. Nest's exception filters may turn errors into plain objects. Never throws. */
export function describeFailure(error: unknown): string {
  return readSafely(() => {
    if (isError(error) && quotesPayload(error)) return error.message
    // Says which store, and what it could not do; the cause alone does not.
    if (isMqttError(error, 'STORE_FAILED')) return error.message
    const known = publicErrorOf(error)
    if (known !== undefined) return known.message
    const isPlain = !isError(error) && typeof error === 'object' && error !== null
    return isPlain && 'message' in error ? textOf(error.message) : describeCause(error)
  }, UNREADABLE)
}

/** Returns what a handler has thrown, or an error in its place if it cannot be read, such as a revoked proxy. */
export function asFailure(thrown: unknown): unknown {
  const canBeRead = readSafely(() => !isError(thrown) || 'message' in thrown, false)
  return canBeRead ? thrown : new Error(UNREADABLE)
}

const UNREADABLE = 'an error without a readable message'

/** A value from outside may not be convertible to a string. */
function textOf(value: unknown): string {
  return readSafely(() => String(value), UNREADABLE)
}

/** A chain of causes may be circular. */
const MAX_CHAIN = 10

function chainOf(cause: unknown): unknown[] {
  const chain: unknown[] = []
  for (let link = cause; link !== undefined && chain.length < MAX_CHAIN; ) {
    chain.push(link)
    link = isError(link) ? link.cause : undefined
  }
  return chain
}

function messageOf(cause: unknown): string {
  if (typeof cause === 'string') return cause
  if (!isError(cause)) return ''
  const list: unknown = cause.message === '' && 'errors' in cause ? cause.errors : undefined
  return Array.isArray(list) ? list.map(describeCause).join('; ') : textOf(cause.message)
}

/** What the sender of a message may learn about its failure. */
export interface PublicError {
  readonly status: 'error'
  readonly message: string
  /** Set for an `HttpException`. */
  readonly statusCode?: number
  /** What is wrong with the payload, if its validation failed. */
  readonly issues?: readonly string[]
}

export const MOST_ISSUES = 20
export const LONGEST_ISSUE = 200
/** Some libraries quote the value after this text. It must not appear in a log. */
const QUOTED_VALUE = /(?:,? (?:but )?received | \(was |: Received |,? but the final value was: ).*$/s

/** Returns the message of an issue without the value that it may quote. */
export function withoutValue(message: string): string {
  return message.replace(QUOTED_VALUE, '').slice(0, LONGEST_ISSUE)
}

/**
 * Returns the part of an error that its sender may see: the message of an `HttpException`, which Nest's pipes throw, or the
 * issues of a schema library with paths and messages, but without values. Undefined for any other error. Never throws.
 */
export function publicErrorOf(error: unknown): PublicError | undefined {
  return readSafely(() => readPublicError(error), undefined)
}

function readPublicError(error: unknown): PublicError | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  if (isMqttError(error, 'PAYLOAD_INVALID')) return invalidPayload(error)
  if ('issues' in error) return failedValidation(schemaIssues(error.issues)?.map(withoutValue))
  if (!isHttpException(error)) return undefined
  const statusCode = error.getStatus()
  const response: unknown = error.getResponse()
  const text =
    typeof response === 'object' && response !== null && 'message' in response ? response.message : response
  const failed = failedValidation(
    Array.isArray(text) ? text.filter(item => typeof item === 'string').map(withoutValue) : undefined,
  )
  if (failed !== undefined) return { ...failed, statusCode }
  return { status: 'error', message: typeof text === 'string' ? text : error.message, statusCode }
}

/** Its issues contain values only if the application asked for them. */
function invalidPayload({ message, issues = [] }: MqttError): PublicError {
  const texts = issues.map(issue => textOfIssue(issue.path, issue.message))
  return failedValidation(texts) ?? { status: 'error', message }
}

/** One line for an issue. */
export function textOfIssue(path: string, message: string): string {
  return path === '' ? message : `${path}: ${message}`
}

function failedValidation(issues: readonly string[] | undefined): PublicError | undefined {
  if (issues === undefined || issues.length === 0) return undefined
  const shown = issues.slice(0, MOST_ISSUES)
  return { status: 'error', message: `Validation failed: ${shown.join('; ')}`, issues: shown }
}

function schemaIssues(issues: unknown): string[] | undefined {
  if (!Array.isArray(issues)) return undefined
  const texts = issues.map(schemaIssue)
  return texts.every(text => text !== undefined) ? texts : undefined
}

function schemaIssue(issue: unknown): string | undefined {
  if (typeof issue !== 'object' || issue === null || !('message' in issue)) return undefined
  if (typeof issue.message !== 'string') return undefined
  const { message } = issue
  const path = 'path' in issue && Array.isArray(issue.path) ? issue.path : []
  return textOfIssue(path.map(keyOf).join('.'), message)
}

/** Zod has keys, valibot has objects with a key. */
export function keyOf(part: unknown): string {
  return typeof part === 'object' && part !== null && 'key' in part ? String(part.key) : String(part)
}

interface HttpExceptionLike {
  readonly message: string
  getStatus(): number
  getResponse(): unknown
}

function isHttpException(error: object): error is HttpExceptionLike {
  return (
    isError(error) &&
    'getStatus' in error &&
    typeof error.getStatus === 'function' &&
    'getResponse' in error &&
    typeof error.getResponse === 'function'
  )
}

/** How many letters to add, remove or replace (Levenshtein). */
export function editDistance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index)
  for (const [line, letter] of [...one].entries()) {
    const next = [line + 1]
    for (const [index, otherLetter] of [...other].entries()) {
      const replaced = (row[index] ?? 0) + (letter === otherLetter ? 0 : 1)
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}

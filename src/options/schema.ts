import * as v from 'valibot'
import { describeCause, editDistance, MqttError } from '../core/errors.js'
import { printable } from '../core/log-lines.js'
import { WHEN_BLOCKED } from '../core/outbound/publish-outcome.js'
import { isTopicName } from '../core/topic/topic-filter.js'
import type { CodecOption } from './codec.js'

export const MAX_DELAY_MS = 86_400_000
export const MAX_TIMEOUT_MS = 3_600_000
export const MAX_UINT16 = 65_535
export const integer = (min: number, max: number) => {
  const allowed = `an integer from ${min} to ${max}`
  return v.pipe(v.number(allowed), v.integer(allowed), v.minValue(min, allowed), v.maxValue(max, allowed))
}
export const oneOf = <const T extends readonly (string | number)[]>(values: T) =>
  v.picklist(values, `one of ${values.map(value => JSON.stringify(value)).join(', ')}`)
/** Like `v.strictObject`, but reports every unknown key as a separate issue, whose message lists the known keys. */
export const strictObject = <const E extends v.ObjectEntries>(
  entries: E,
  allowed = 'an object with options',
) => v.objectWithRest(entries, v.never(namesOf(entries).join()), allowed)

/** The names of these options, and of those in their groups, such as `outbound.maxDelayMs`. A group has a default. */
function namesOf(entries: v.ObjectEntries): string[] {
  return Object.entries(entries).flatMap(([name, schema]) => {
    const isGroup = 'default' in schema && schema.default !== undefined && 'wrapped' in schema
    const inner = isGroup && 'entries' in schema.wrapped ? Object.keys(schema.wrapped.entries ?? {}) : []
    return [name, ...inner.map(key => `${name}.${key}`)]
  })
}

export const text = (allowed = 'a non-empty string') => v.pipe(v.string(allowed), v.nonEmpty(allowed))

export const aFunction = <F>(allowed: string) => v.custom<F>(value => typeof value === 'function', allowed)

const delayAllowed = 'a list of delays, a function of (attempt, cause), or { min, max, jitter }'
const backoff = v.pipe(
  strictObject(
    {
      min: v.optional(integer(1, MAX_DELAY_MS), 500),
      max: v.optional(integer(1, MAX_DELAY_MS), 30_000),
      jitter: v.optional(oneOf(['full', 'decorrelated', 'none']), 'full'),
    },
    delayAllowed,
  ),
  v.check(value => value.min <= value.max, 'an object whose "min" is at most "max"'),
)
const delayList = v.pipe(
  v.array(integer(0, MAX_DELAY_MS), delayAllowed),
  v.minLength(1, 'a list with at least one delay'),
)
const delayFunction = v.custom<(attempt: number, cause: MqttError) => number>(
  value => typeof value === 'function',
  delayAllowed,
)
/** `reconnect.delayMs`. */
export const delays = v.lazy(input => {
  if (Array.isArray(input)) return delayList
  if (typeof input === 'function') return delayFunction
  return backoff
})

/** `retries.delayMs`. */
export const delaysWithoutFunction = v.lazy(input => (Array.isArray(input) ? delayList : backoff))

const codecAllowed =
  '"json", "text", "bytes", "content-type", or an object with the functions encode and decode'
const groupAllowed = 'a non-empty name without "/", "+" and "#"'

/** A codec option: a name, or an object with `encode` and `decode`. */
export const codecSchema = v.custom<CodecOption>(value => {
  if (typeof value === 'string') return ['json', 'text', 'bytes', 'content-type'].includes(value)
  if (typeof value !== 'object' || value === null || !('encode' in value) || !('decode' in value))
    return false
  return typeof value.encode === 'function' && typeof value.decode === 'function'
}, codecAllowed)

/** A ShareName (MQTT 5, 4.8.2). */
export const sharedGroupSchema = v.pipe(v.string(groupAllowed), v.regex(/^[^/+#]+$/, groupAllowed))

export const MAX_UINT32 = 0xffff_ffff
export const uint16 = integer(0, MAX_UINT16)
export const uint32 = integer(0, MAX_UINT32)
export const flag = v.boolean('true or false')
const utf8Allowed = 'a string of at most 65,535 bytes of UTF-8 without U+0000'
export const utf8String = v.pipe(
  v.string(utf8Allowed),
  v.check(
    value => value.isWellFormed() && !value.includes('\0') && Buffer.byteLength(value) <= MAX_UINT16,
    utf8Allowed,
  ),
)
const binaryAllowed = 'a Buffer of at most 65,535 bytes'
const binaryData = v.custom<Buffer>(
  value => Buffer.isBuffer(value) && value.length <= MAX_UINT16,
  binaryAllowed,
)
export const userProperties = v.record(
  utf8String,
  v.union([utf8String, v.array(utf8String)], utf8Allowed),
  'an object with string values',
)
export const topicName = v.pipe(utf8String, v.check(isTopicName, 'a valid Topic Name'))

/** Properties of both PUBLISH and the will (MQTT 5, 3.3.2.3 and 3.1.3.2). */
export const messageProperties = {
  payloadFormatIndicator: v.optional(flag),
  messageExpiryInterval: v.optional(uint32),
  contentType: v.optional(utf8String),
  responseTopic: v.optional(topicName),
  correlationData: v.optional(binaryData),
  userProperties: v.optional(userProperties),
}
export const qosSchema = oneOf([0, 1, 2])
export function isTextOrBuffer(value: unknown): value is string | Buffer {
  return typeof value === 'string' || Buffer.isBuffer(value)
}

export const publishEntries = {
  retain: v.optional(flag),
  codec: v.optional(codecSchema),
  properties: v.optional(strictObject(messageProperties)),
}

/** Options of `tryPublish`. */
export const tryPublishSchema = strictObject(
  { ...publishEntries, whenBlocked: v.optional(oneOf(['drop', 'latest', 'queue'])) },
  'an object with publish options',
)

/** Options of `publish`. */
export const publishSchema = strictObject(
  {
    ...publishEntries,
    qos: v.optional(qosSchema),
    whenBlocked: v.optional(oneOf(WHEN_BLOCKED)),
    timeoutMs: v.optional(integer(1, MAX_TIMEOUT_MS)),
    signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
  },
  'an object with publish options',
)

/** Options of `request` and `requestStream`. */
export const requestSchema = strictObject(
  {
    ...publishEntries,
    qos: v.optional(qosSchema),
    timeoutMs: v.optional(integer(1, MAX_TIMEOUT_MS)),
    signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
    protocol: v.optional(oneOf(['mqtt5', 'nest'])),
  },
  'an object with request options',
)

function hasPattern(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || !('pattern' in value)) return typeof value === 'string'
  return typeof value.pattern === 'string'
}
const observedTopic = v.custom<string | { readonly pattern: string }>(hasPattern, 'a pattern or a contract')

/** Options of `MqttInstrumentation`. */
export const instrumentationSchema = strictObject({
  enabled: v.optional(flag, true),
  traces: v.optional(flag, true),
  metrics: v.optional(flag, true),
  topics: v.optional(v.array(observedTopic, 'a list of patterns and contracts'), []),
  recordTopic: v.optional(flag, false),
  recordClientId: v.optional(flag, false),
  recordErrorMessages: v.optional(flag, false),
  continueTraces: v.optional(flag, true),
})

const SECRET = /pass|credential|key|^cert$|^ca$|wsOptions|username|properties|will/i

/** Describes a value briefly, without anything that may be a secret. */
export function describeInput(path: string, input: unknown): string {
  if (SECRET.test(path)) return `a value of type ${input === null ? 'null' : typeof input} (not shown)`
  if (typeof input === 'string') {
    // Any option may hold a URL with credentials or a token.
    return printable(/[@?]/.test(input) ? `${/^[a-z+]+:\/\//i.exec(input)?.[0] ?? ''}…` : input)
  }
  if (typeof input === 'function') return 'a function'
  if (Array.isArray(input)) return `a list of length ${input.length}`
  if (typeof input === 'object' && input !== null) return 'an object'
  return String(input)
}

function describeIssue(issue: v.BaseIssue<unknown>, replacements: Replacements): string {
  const path = pathOf(issue)
  if (issue.type === 'never') {
    const hint = Object.hasOwn(replacements, path) ? replacements[path] : didYouMean(path, issue.message)
    return `unknown option ${printable(path)}${hint === undefined ? '' : `; ${hint}`}`
  }
  const given = issue.input === undefined ? 'missing' : describeInput(path, issue.input)
  if (path === '') return `the options must be ${issue.message}, but are ${given}`
  return `${printable(path)} must be ${issue.message}, but is ${given}`
}

/** What to use in place of options of other packages. */
export type Replacements = Readonly<Record<string, string>>

/**
 * Validates `input` against a schema.
 * @param owner what the options belong to, for the error
 * @throws MqttError `INVALID_OPTION` that lists every invalid option with its value and what is allowed
 */
export function parseOptions<S extends v.GenericSchema>(
  owner: string,
  checked: S,
  input: unknown,
  replacements: Replacements = {},
): v.InferOutput<S> {
  const result = parsed(owner, checked, input)
  if (result.success) return result.output
  throw invalidOption(owner, describeIssues(result.issues, replacements))
}

function parsed<S extends v.GenericSchema>(owner: string, checked: S, input: unknown) {
  try {
    return v.safeParse(checked, input)
  } catch (cause) {
    throw unreadable(owner, 'a value in the options', cause)
  }
}

export const isObject = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const anObject = v.custom<object>(isObject, 'an object with options')

/**
 * Checks that the options of a caller are an object and that each can be read: one may be a getter.
 * @throws MqttError `INVALID_OPTION`
 */
export function assertReadable(owner: string, options: unknown): void {
  const given = parseOptions(owner, anObject, options)
  let what = 'the object with the options'
  try {
    for (const name of Object.keys(given)) {
      what = printable(name)
      Reflect.get(given, name)
    }
  } catch (cause) {
    throw unreadable(owner, what, cause)
  }
}

const unreadable = (owner: string, what: string, cause: unknown): MqttError =>
  invalidOption(owner, `${what} cannot be read: ${describeCause(cause)}`)

/** Describes what is wrong with `input`; undefined if nothing is. */
export function problemsOf(checked: v.GenericSchema, input: unknown): string | undefined {
  const { issues } = v.safeParse(checked, input)
  return issues && describeIssues(issues)
}

const MAX_ISSUES = 20

function describeIssues(issues: readonly v.BaseIssue<unknown>[], replacements: Replacements = {}): string {
  const telling = mostTelling(issues)
  const described = telling.slice(0, MAX_ISSUES).map(issue => describeIssue(issue, replacements))
  if (telling.length > MAX_ISSUES) described.push(`and ${telling.length - MAX_ISSUES} more`)
  return described.join('; ')
}

const pathOf = (issue: v.BaseIssue<unknown>): string => v.getDotPath(issue) ?? ''

/** Keeps one issue per option, and drops that of a group if one of its options has an issue. */
function mostTelling(issues: readonly v.BaseIssue<unknown>[]): v.BaseIssue<unknown>[] {
  const first = new Map([...issues].reverse().map(issue => [pathOf(issue), issue]))
  const groups = new Set<string>()
  // `a.b.c` is in the groups `a.b` and `a`.
  for (const path of first.keys())
    for (let at = path.lastIndexOf('.'); at > 0; at = path.lastIndexOf('.', at - 1))
      groups.add(path.slice(0, at))
  return issues.filter(issue => first.get(pathOf(issue)) === issue && !groups.has(pathOf(issue)))
}

export function invalidOption(owner: string, problem: string): MqttError {
  return new MqttError('INVALID_OPTION', `${owner}: ${problem}`)
}

/**
 * Finds the option that was probably meant: one whose name differs in a few letters, or that belongs to a group.
 * @param known the options at this place, separated by commas
 */
function didYouMean(path: string, known: string): string | undefined {
  const group = path.slice(0, path.lastIndexOf('.') + 1)
  const name = plain(path.slice(group.length))
  const ranked = known
    .split(',')
    // The comparison takes as long as the product of the lengths.
    .filter(option => name.length <= option.length + 2)
    .map(option => ({ option, typos: editDistance(name, plain(option.slice(option.lastIndexOf('.') + 1))) }))
    .sort((one, other) => one.typos - other.typos)
  const [nearest] = ranked
  if (nearest === undefined || nearest.typos > Math.min(2, name.length / 3)) return undefined
  return `did you mean "${group}${nearest.option}"?`
}

const plain = (name: string): string => name.replace(/[-_]/g, '').toLowerCase()

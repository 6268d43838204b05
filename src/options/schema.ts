import * as v from 'valibot'
import { MqttError } from '../core/errors.js'
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

/** Options of an `MqttRecord`. */
export const recordSchema = v.optional(
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

/** Options of `messages` in addition to those of a handler. */
export const messagesSchema = v.object(
  {
    signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
    limit: v.optional(integer(1, 10_000_000), 1_000),
    overflow: v.optional(oneOf(['drop-oldest', 'drop-newest']), 'drop-oldest'),
  },
  'an object with options',
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
    return JSON.stringify(/[@?]/.test(input) ? `${/^[a-z+]+:\/\//i.exec(input)?.[0] ?? ''}…` : input)
  }
  if (typeof input === 'function') return 'a function'
  if (Array.isArray(input)) return `a list of length ${input.length}`
  if (typeof input === 'object' && input !== null) return 'an object'
  return String(input)
}

function describeIssue(issue: v.BaseIssue<unknown>, replacements: Replacements): string {
  const path = pathOf(issue)
  if (issue.type === 'never') {
    const replacement = Object.hasOwn(replacements, path)
      ? replacements[path]
      : didYouMean(path, issue.message)
    return `unknown option "${path}"${replacement === undefined ? '' : `; ${replacement}`}`
  }
  const given = issue.input === undefined ? 'missing' : describeInput(path, issue.input)
  const name = path === '' ? 'the options' : `"${path}"`
  return `${name} must be ${issue.message}, but is ${given}`
}

/** What to use in place of options of other MQTT packages. */
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
  const result = v.safeParse(checked, input)
  if (result.success) return result.output
  throw invalidOption(owner, describeIssues(result.issues, replacements))
}

/** Describes what is wrong with `input`; undefined if nothing is. */
export function problemsOf(checked: v.GenericSchema, input: unknown): string | undefined {
  const { issues } = v.safeParse(checked, input)
  return issues && describeIssues(issues)
}

function describeIssues(issues: readonly v.BaseIssue<unknown>[], replacements: Replacements = {}): string {
  return mostTelling(issues)
    .map(issue => describeIssue(issue, replacements))
    .join('; ')
}

const pathOf = (issue: v.BaseIssue<unknown>): string => v.getDotPath(issue) ?? ''

/** Keeps one issue per option, and drops the issue of a group if one of its options has an issue. */
function mostTelling(issues: readonly v.BaseIssue<unknown>[]): v.BaseIssue<unknown>[] {
  const paths = issues.map(pathOf)
  return issues.filter((_issue, index) => {
    const path = paths[index] ?? ''
    return paths.indexOf(path) === index && !paths.some(other => other.startsWith(`${path}.`))
  })
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
    .map(option => ({ option, typos: editDistance(name, plain(option.slice(option.lastIndexOf('.') + 1))) }))
    .sort((one, other) => one.typos - other.typos)
  const [nearest] = ranked
  if (nearest === undefined || nearest.typos > Math.min(2, name.length / 3)) return undefined
  return `did you mean "${group}${nearest.option}"?`
}

const plain = (name: string): string => name.replace(/[-_]/g, '').toLowerCase()

/** How many letters to add, remove or replace (Levenshtein). */
function editDistance(one: string, other: string): number {
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

import { MqttError } from '../errors.js'

/** Maximum length of a UTF-8 Encoded String (MQTT 5, 1.5.4). */
export const MAX_TOPIC_BYTES = 65_535

/** A valid Topic Filter. Only `parseTopicFilter` creates one. */
export interface TopicFilter {
  /** The filter in SUBSCRIBE, with its `$share/group/` prefix if it has one. */
  readonly subscription: string
  /** The filter without its share prefix, for matching Topic Names. */
  readonly filter: string
  readonly levels: readonly string[]
  /** Share Name of a Shared Subscription (MQTT 5, 4.8.2). */
  readonly sharedGroup?: string
}

function encodingProblem(text: string): string | undefined {
  if (text === '') return 'it is empty'
  if (text.includes('\u0000')) return 'it contains a NUL character'
  if (!text.isWellFormed()) return 'it contains an unpaired surrogate, which UTF-8 cannot encode'
  const bytes = Buffer.byteLength(text)
  return bytes > MAX_TOPIC_BYTES
    ? `it has ${bytes} bytes, but at most ${MAX_TOPIC_BYTES} are allowed`
    : undefined
}

function wildcardProblem(levels: readonly string[]): string | undefined {
  for (const [index, level] of levels.entries()) {
    if (level.includes('#') && (level !== '#' || index !== levels.length - 1)) {
      return '"#" must be a whole level, and the last one'
    }
    if (level.includes('+') && level !== '+') return '"+" must be a whole level'
  }
  return undefined
}

function invalidFilter(subscription: string, problem: string): MqttError {
  return new MqttError(
    'INVALID_TOPIC_FILTER',
    `"${subscription}" is not a valid Topic Filter: ${problem} (MQTT 5, 4.7)`,
  )
}

/**
 * Parses a Topic Filter, with or without a share prefix.
 * @throws MqttError `INVALID_TOPIC_FILTER` that names the violated rule
 */
export function parseTopicFilter(subscription: string): TopicFilter {
  const problem = encodingProblem(subscription)
  if (problem !== undefined) throw invalidFilter(subscription, problem)
  const share = splitShare(subscription)
  const levels = share.filter.split('/')
  const wildcard = wildcardProblem(levels)
  if (wildcard !== undefined) throw invalidFilter(subscription, wildcard)
  return { subscription, levels, ...share }
}

function splitShare(subscription: string): { filter: string; sharedGroup?: string } {
  if (subscription !== '$share' && !subscription.startsWith('$share/')) return { filter: subscription }
  const [, group = '', ...rest] = subscription.split('/')
  if (group === '' || /[+#]/.test(group)) {
    throw invalidFilter(subscription, 'the name after "$share/" must not be empty or contain a wildcard')
  }
  const filter = rest.join('/')
  if (filter === '') throw invalidFilter(subscription, `a Topic Filter must follow "$share/${group}/"`)
  return { filter, sharedGroup: group }
}

/** A text without one of these, and not longer than `USUAL_TOPIC_LENGTH`, is a valid Topic Name unless it is empty. */
export const UNUSUAL_IN_TOPIC_NAME = /[+#\0\ud800-\udfff]/
/** A string of this length has at most `MAX_TOPIC_BYTES`: a UTF-16 code unit takes at most three bytes of UTF-8. */
export const USUAL_TOPIC_LENGTH = MAX_TOPIC_BYTES / 3

/**
 * Checks a Topic Name (MQTT 5, 4.7.3): not empty, no wildcard, no NUL, at most 65,535 bytes of UTF-8.
 * @throws MqttError `INVALID_TOPIC_NAME`
 */
export function assertTopicName(topic: unknown): asserts topic is string {
  if (typeof topic !== 'string') {
    const type = topic === null ? 'null' : `of type ${typeof topic}`
    throw new MqttError('INVALID_TOPIC_NAME', `the topic must be a string, but is ${type}`)
  }
  const problem = topicNameProblem(topic)
  if (problem !== undefined) {
    throw new MqttError(
      'INVALID_TOPIC_NAME',
      `"${topic}" is not a valid Topic Name: ${problem} (MQTT 5, 4.7)`,
    )
  }
}

export function isTopicName(topic: string): boolean {
  return topicNameProblem(topic) === undefined
}

function topicNameProblem(topic: string): string | undefined {
  return encodingProblem(topic) ?? (/[+#]/.test(topic) ? 'it contains a wildcard' : undefined)
}

/**
 * Whether a Topic Name matches a Topic Filter (MQTT 5, 4.7). This is a direct implementation of the rules; the tests
 * compare the trie with it.
 */
export function matchesTopicFilter(filter: TopicFilter, topic: string): boolean {
  const names = topic.split('/')
  const { levels } = filter
  // A leading wildcard never matches a Topic Name that starts with "$" [MQTT-4.7.2-1].
  if (topic.startsWith('$') && (levels[0] === '#' || levels[0] === '+')) return false
  for (let index = 0; index < levels.length; index += 1) {
    const level = levels[index]
    if (level === '#') return true
    const name = names[index]
    if (name === undefined || (level !== '+' && level !== name)) return false
  }
  return names.length === levels.length
}

type LevelParams<L extends string> = L extends `+${infer Name}`
  ? Name extends ''
    ? never
    : Name
  : L extends `#${infer Name}`
    ? Name extends ''
      ? never
      : Name
    : never

type ParamNames<T extends string> = T extends `${infer Head}/${infer Rest}`
  ? LevelParams<Head> | ParamNames<Rest>
  : LevelParams<T>

/** The values of the named wildcards of a pattern: `TopicParams<'a/+b/#c'>` is `{ b: string; c: string }`. */
export type TopicParams<T extends string> = string extends T
  ? Record<string, string>
  : { readonly [K in ParamNames<T>]: string }

/** A parsed pattern: a Topic Filter whose wildcards may have names. */
export interface TopicTemplate {
  readonly pattern: string
  readonly topicFilter: TopicFilter
  /** The named wildcards, with their level. `rest` is true for `#name`. */
  readonly params: readonly { readonly name: string; readonly level: number; readonly rest: boolean }[]
}

const PARAM_NAME = /^[A-Za-z_]\w*$/
const SHARE_LEVELS = 2

function invalidPattern(pattern: string, problem: string): MqttError {
  return new MqttError('INVALID_TOPIC_FILTER', `"${pattern}" is not a valid pattern: ${problem}`)
}

/**
 * Replaces each `${name}` in a pattern by its value.
 * @throws MqttError `INVALID_TOPIC_FILTER` for a name without a value
 */
export function fillVariables(pattern: string, variables: Readonly<Record<string, string>>): string {
  return pattern.replace(/\$\{([^}]*)\}/g, (_whole, name: string) => {
    const value = Object.hasOwn(variables, name) ? variables[name] : undefined
    if (value !== undefined) return value
    throw invalidPattern(pattern, `\${${name}} has no value; set it in the option "variables"`)
  })
}

/**
 * Parses a pattern: `+name` and `#name` are the wildcards `+` and `#` with a name.
 * @throws MqttError `INVALID_TOPIC_FILTER`
 */
export function parseTopicTemplate(pattern: string): TopicTemplate {
  const written = pattern.split('/')
  const params: { name: string; level: number; rest: boolean }[] = []
  const offset = written[0] === '$share' ? SHARE_LEVELS : 0
  const levels = written.map((level, index) => {
    const wildcard = level[0]
    if ((wildcard !== '+' && wildcard !== '#') || level.length === 1 || index < offset) return level
    const name = level.slice(1)
    if (!PARAM_NAME.test(name)) {
      throw invalidPattern(
        pattern,
        `"${name}" is not a valid parameter name; use letters, digits and "_", and do not start with a digit`,
      )
    }
    if (params.some(param => param.name === name))
      throw invalidPattern(pattern, `it has two parameters named "${name}"`)
    params.push({ name, level: index - offset, rest: wildcard === '#' })
    return wildcard
  })
  return { pattern, topicFilter: parseTopicFilter(levels.join('/')), params }
}

/** Returns the values of the named wildcards in a matching Topic Name. `#name` is '' if the parent level matched. */
export function readTopicParams(template: TopicTemplate, topic: string): Record<string, string> {
  const names = topic.split('/')
  const values: [string, string][] = template.params.map(param => [
    param.name,
    param.rest ? names.slice(param.level).join('/') : (names[param.level] ?? ''),
  ])
  return Object.fromEntries(values)
}

/**
 * Builds a Topic Name from a pattern and the values of its named wildcards. A `$share/group/` prefix is removed.
 * @throws MqttError `INVALID_TOPIC_NAME` if a value is missing or contains `/`, `+`, `#` or NUL (a value for `#name` may
 * contain `/`), or if the pattern has a wildcard without a name
 */
export function fillTopic<T extends string>(pattern: T, params: TopicParams<T>): string {
  const values: Readonly<Record<string, string>> = params
  const levels = pattern.split('/')
  const topic = levels
    .slice(levels[0] === '$share' ? SHARE_LEVELS : 0)
    .map(level => {
      const wildcard = level[0]
      if (wildcard !== '+' && wildcard !== '#') return level
      return paramValue(pattern, level.slice(1), wildcard === '#', values)
    })
    .join('/')
  assertTopicName(topic)
  return topic
}

function paramValue(
  pattern: string,
  name: string,
  rest: boolean,
  values: Readonly<Record<string, string>>,
): string {
  if (name === '') {
    throw new MqttError(
      'INVALID_TOPIC_NAME',
      `"${pattern}" has a wildcard without a name; name it, as in "+deviceId"`,
    )
  }
  const value = Object.hasOwn(values, name) ? values[name] : undefined
  if (typeof value !== 'string') {
    throw new MqttError(
      'INVALID_TOPIC_NAME',
      `the parameter "${name}" of "${pattern}" must be a string, but is ${value === undefined ? 'missing' : `of type ${typeof value}`}`,
    )
  }
  const forbidden = rest ? /[+#]/ : /[/+#]/
  if (forbidden.test(value)) {
    throw new MqttError(
      'INVALID_TOPIC_NAME',
      `the value "${value}" of the parameter "${name}" of "${pattern}" must not contain ${rest ? '"+" or "#"' : '"/", "+" or "#"'}`,
    )
  }
  return value
}

import { MqttError } from '../errors.js'
import { assertTopicName, parseTopicFilter, type TopicFilter } from './topic-filter.js'

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

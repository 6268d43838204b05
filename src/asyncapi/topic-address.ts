import { parseTopicTemplate } from '../core/topic/topic-filter.js'
import type { AsyncApiParameter } from './document.js'

/** How a pattern appears in a document. */
export interface TopicDescription {
  readonly address: string
  readonly parameters: Readonly<Record<string, AsyncApiParameter>>
  /** The Topic Filter, without a share prefix. It contains `${name}` for each variable without a value. */
  readonly filter: string
  readonly sharedGroup: string | undefined
}

/** Stands for a variable without a value. A topic should not contain control characters (MQTT 5, 1.5.4). */
const OPEN = '\u0001'
const CLOSE = '\u0002'
const VARIABLE = new RegExp(`${OPEN}([^${CLOSE}]*)${CLOSE}`, 'g')

/**
 * Describes a pattern. A wildcard without a name gets one: `{level2}` for a `+` in the second level, `{rest}` for `#`. A variable
 * without a value is a parameter as well.
 * @param isLiteral the pattern is a Topic Name
 * @throws MqttError `INVALID_TOPIC_FILTER`
 */
export function describeTopic(
  pattern: string,
  variables: Readonly<Record<string, string>>,
  isLiteral = false,
): TopicDescription {
  if (isLiteral) return { address: encoded(pattern), parameters: {}, filter: pattern, sharedGroup: undefined }
  const filled = pattern.replace(/\$\{([^}]*)\}/g, (_whole, name: string) =>
    Object.hasOwn(variables, name) ? (variables[name] ?? '') : `${OPEN}${name}${CLOSE}`,
  )
  const { topicFilter, params } = parseTopicTemplate(filled)
  const parameters = new Map<string, AsyncApiParameter>()
  for (const { name, rest } of params) parameters.set(name, { description: rest ? MANY : ONE })
  const add = (wanted: string, description: string): string => {
    let name = wanted
    while (parameters.has(name)) name = `${name}_`
    parameters.set(name, { description })
    return `{${name}}`
  }
  const variableNames = new Map<string, string>()
  const variable = (name: string): string => {
    const known = variableNames.get(name) ?? add(name.replaceAll(/\W+/g, '_') || 'variable', OF_APPLICATION)
    variableNames.set(name, known)
    return known
  }
  const address = topicFilter.levels.map((level, index) => {
    if (level !== '+' && level !== '#')
      return encoded(level).replace(VARIABLE, (_whole, name: string) => variable(decodeURIComponent(name)))
    const named = params.find(param => param.level === index)
    if (named !== undefined) return `{${named.name}}`
    return level === '+' ? add(`level${index + 1}`, ONE) : add('rest', MANY)
  })
  return {
    address: address.join('/'),
    parameters: Object.fromEntries(parameters),
    filter: topicFilter.filter.replace(VARIABLE, (_whole, name: string) => `\${${name}}`),
    sharedGroup: topicFilter.sharedGroup,
  }
}

const ONE = 'One topic level, matched by "+".'
const MANY = 'Any number of topic levels, including none, matched by "#".'
const OF_APPLICATION = 'A value that the application sets with the option "variables".'

/** Encodes what has a meaning in an address, or is not allowed in one. */
function encoded(topic: string): string {
  return topic.replaceAll(/[{}?#%]/g, character => encodeURIComponent(character))
}

import { MqttError } from '../errors.js'

/** Maximum length of a UTF-8 Encoded String (MQTT 5, 1.5.4). */
const MAX_TOPIC_BYTES = 65_535
/** A character has at most three bytes, or four for two. */
const SURELY_SHORT = MAX_TOPIC_BYTES / 3

/** A valid Topic Filter. Only `parseTopicFilter` creates one, so it need not be checked again. */
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

/**
 * Checks a Topic Name (MQTT 5, 4.7.3): not empty, no wildcard, no NUL, at most 65,535 bytes of UTF-8.
 * @throws MqttError `INVALID_TOPIC_NAME`
 */
export function assertTopicName(topic: string): void {
  // Most Topic Names are short, and need no count of their bytes.
  const isShort = topic !== '' && topic.length <= SURELY_SHORT
  if (isShort && !/[+#]/.test(topic) && !topic.includes('\u0000') && topic.isWellFormed()) return
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

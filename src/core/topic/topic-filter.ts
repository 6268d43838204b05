import { MqttError } from '../errors.js'

/** The longest UTF-8 Encoded String of MQTT (MQTT 5, 1.5.4). */
const MAX_TOPIC_BYTES = 65_535

/** A Topic Filter that was checked once; holding one is proof that it is valid. */
export interface TopicFilter {
  /** As it goes into SUBSCRIBE, with `$share/group/` where there is one. */
  readonly subscription: string
  /** What a Topic Name is matched against: the subscription without its share prefix. */
  readonly filter: string
  readonly levels: readonly string[]
  /** ShareName of a Shared Subscription (MQTT 5, 4.8.2). */
  readonly sharedGroup?: string
}

function encodingProblem(text: string): string | undefined {
  if (text === '') return 'it is empty'
  if (text.includes('\u0000')) return 'it holds a NUL character'
  if (!text.isWellFormed()) return 'it holds half of a surrogate pair, which UTF-8 cannot encode'
  const bytes = Buffer.byteLength(text)
  return bytes > MAX_TOPIC_BYTES ? `it has ${bytes} bytes, at most ${MAX_TOPIC_BYTES} are allowed` : undefined
}

function wildcardProblem(levels: readonly string[]): string | undefined {
  for (const [index, level] of levels.entries()) {
    if (level.includes('#') && (level !== '#' || index !== levels.length - 1)) {
      return '"#" must be a whole level and the last one'
    }
    if (level.includes('+') && level !== '+') return '"+" must be a whole level'
  }
  return undefined
}

function invalidFilter(subscription: string, problem: string): MqttError {
  return new MqttError(
    'INVALID_TOPIC_FILTER',
    `"${subscription}" is no Topic Filter: ${problem} (MQTT 5, 4.7)`,
  )
}

/**
 * Checks a Topic Filter, Shared Subscriptions included.
 * @throws MqttError `INVALID_TOPIC_FILTER`, with the rule that is broken
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
    throw invalidFilter(
      subscription,
      'the name after "$share/" must be at least one character and hold no wildcard',
    )
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
  const problem = topicNameProblem(topic)
  if (problem !== undefined) {
    throw new MqttError('INVALID_TOPIC_NAME', `"${topic}" is no Topic Name: ${problem} (MQTT 5, 4.7)`)
  }
}

export function isTopicName(topic: string): boolean {
  return topicNameProblem(topic) === undefined
}

function topicNameProblem(topic: string): string | undefined {
  return encodingProblem(topic) ?? (/[+#]/.test(topic) ? 'it holds a wildcard' : undefined)
}

/**
 * Whether a Topic Name matches a Topic Filter (MQTT 5, 4.7). Level by level, without a prepared structure:
 * the plain statement of the rules, against which the trie is checked.
 */
export function matchesTopicFilter(filter: TopicFilter, topic: string): boolean {
  const names = topic.split('/')
  const { levels } = filter
  // A wildcard at the start never matches a Topic Name that begins with "$" [MQTT-4.7.2-1].
  if (topic.startsWith('$') && (levels[0] === '#' || levels[0] === '+')) return false
  for (let index = 0; index < levels.length; index += 1) {
    const level = levels[index]
    if (level === '#') return true
    const name = names[index]
    if (name === undefined || (level !== '+' && level !== name)) return false
  }
  return names.length === levels.length
}

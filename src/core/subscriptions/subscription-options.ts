import { MqttError } from '../errors.js'
import type { BrokerLimits } from '../protocol/broker-limits.js'
import type { AckRules } from '../protocol/oldest-wait.js'
import type { TopicFilter } from '../topic/topic-filter.js'

/** What a filter is subscribed with. */
export interface SubscriptionOptions {
  readonly qos: 0 | 1 | 2
  /** No Local (MQTT 5, 3.8.3.1): the broker does not send back what this connection publishes. */
  readonly noLocal: boolean
  /** Retain Handling (MQTT 5, 3.8.3.1). */
  readonly retainHandling: 0 | 1 | 2
}

/** What several handlers of one filter need together: the most that any of them asks for. */
export function mergeOptions(a: SubscriptionOptions, b: SubscriptionOptions): SubscriptionOptions {
  return {
    qos: higher(a.qos, b.qos),
    noLocal: a.noLocal && b.noLocal,
    retainHandling:
      higher(a.retainHandling, b.retainHandling) === a.retainHandling ? b.retainHandling : a.retainHandling,
  }
}

function higher<T extends number>(a: T, b: T): T {
  return a > b ? a : b
}

export function isSameOptions(a: SubscriptionOptions, b: SubscriptionOptions): boolean {
  return a.qos === b.qos && a.noLocal === b.noLocal && a.retainHandling === b.retainHandling
}

/** A filter that the broker refused, or that it cannot serve. */
interface RefusedSubscription {
  readonly subscription: string
  readonly error: MqttError
}

/** How the subscriptions of a connection are. */
export interface SubscriptionCounters {
  readonly granted: number
  readonly refused: number
  readonly pending: number
  /** Filters that the broker did not remove when it was told to. */
  readonly unsubscribesRefused: number
}

/** What follows a refusal, and what depends on the subscriptions. */
export interface SubscriptionRules extends AckRules {
  /** The broker keeps the session of this client at the end of a connection. */
  readonly keepsSession: boolean
  /** After a connection with more filters than fit at once: every SUBSCRIBE has left. */
  readonly onRestored: () => void
  /** Told once when a filter is refused, and again only after it was granted in between. */
  readonly onRefused: (refused: RefusedSubscription) => void
  /** What an operator should know. */
  readonly onWarning: (text: string) => void
  /** A filter that was refused is granted now. */
  readonly onRecovered: (subscription: string) => void
  /** Delay before refused filters are tried again. @param round refusals in a row, from 1 */
  readonly retryDelayMs: (round: number, cause: MqttError) => number
}

/** The error for a filter that the broker refused. */
export function refusal(subscription: string, why: string, reasonCode?: number): MqttError {
  return new MqttError(
    'SUBSCRIBE_REFUSED',
    `the broker refused the subscription "${subscription}": ${why}. Check the access rules of the broker for this user`,
    reasonCode === undefined ? {} : { reasonCode },
  )
}

/** The error for a filter that nobody wants any more. */
export function unsubscribedError(subscription: string): MqttError {
  return new MqttError('SUBSCRIBE_REFUSED', `the subscription "${subscription}" was removed`)
}

/** MQTT 3.1.1 brokers that do not know Shared Subscriptions grant them like any other topic, and deliver nothing. */
export function uncertainShare({ subscription, sharedGroup, levels }: TopicFilter): string {
  return `MQTT 3.1.1 does not define Shared Subscriptions: a broker that does not support them grants "${subscription}" and delivers nothing. Publish to a topic of "${levels.join('/')}" and check that one client of the group "${sharedGroup}" receives it, or use a broker with MQTT 5`
}

/** Why the broker cannot serve a filter that takes so many bytes in a packet: what it said it has not is not asked of it, which would be a Protocol Error. */
export function unservedError(
  filter: TopicFilter,
  bytes: number,
  limits: BrokerLimits,
): MqttError | undefined {
  const isWildcard = filter.levels.some(level => level === '#' || level === '+')
  if (bytes > limits.maximumPacketSize)
    return unserved(
      filter,
      `its SUBSCRIBE packet of ${bytes} bytes is larger than the Maximum Packet Size of the broker, ${limits.maximumPacketSize}`,
      0x95,
    )
  if (filter.sharedGroup !== undefined && !limits.sharedSubscriptionAvailable)
    return unserved(filter, 'the broker has no Shared Subscriptions', 0x9e)
  if (isWildcard && !limits.wildcardSubscriptionAvailable)
    return unserved(filter, 'the broker has no wildcard subscriptions', 0xa2)
  return undefined
}

function unserved({ subscription }: TopicFilter, why: string, reasonCode: number): MqttError {
  const hex = `0x${reasonCode.toString(16).toUpperCase()}`
  return new MqttError('SUBSCRIBE_REFUSED', `cannot subscribe to "${subscription}": ${why} (${hex})`, {
    reasonCode,
  })
}

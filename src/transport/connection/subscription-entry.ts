import type { MqttError } from '../../errors.js'
import type { TopicFilter } from '../../topic/topic-filter.js'
import type { SubscriptionOptions } from './subscription-options.js'

/** One filter in the table of a connection. */
export interface Subscription {
  readonly filter: TopicFilter
  readonly identifier: number
  options: SubscriptionOptions
  status: 'unsent' | 'sent' | 'granted' | 'refused'
  /** The broker's refusal has been told, and nothing better since. */
  isRefusalTold: boolean
  readonly waiters: ((refused: MqttError | undefined) => void)[]
}

export function newSubscription(
  filter: TopicFilter,
  options: SubscriptionOptions,
  identifier: number,
): Subscription {
  return { filter, options, identifier, status: 'unsent', isRefusalTold: false, waiters: [] }
}

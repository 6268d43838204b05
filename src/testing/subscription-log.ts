import { matchesTopicFilter, parseTopicFilter, type TopicFilter } from '../core/topic/topic-filter.js'

/** QoS 1 and 2 subscriptions by session, so that `deliver` can wait for a matching one. */
export class SubscriptionLog {
  private readonly filters = new Map<unknown, Map<string, TopicFilter>>()
  private readonly waiters = new Map<() => void, string>()

  add(session: unknown, subscriptions: readonly { topic: string; qos: number }[]): void {
    const own = this.filters.get(session) ?? new Map<string, TopicFilter>()
    this.filters.set(session, own)
    for (const { topic, qos } of subscriptions) {
      if (qos === 0 || qos > 2) own.delete(topic)
      else own.set(topic, parseTopicFilter(topic))
    }
    for (const [resolve, topic] of this.waiters) {
      if (!this.has(topic)) continue
      this.waiters.delete(resolve)
      resolve()
    }
  }

  remove(session: unknown, topics: readonly string[]): void {
    for (const topic of topics) this.filters.get(session)?.delete(topic)
  }

  /** Removes the subscriptions of a session that has ended. */
  removeAll(session: unknown): void {
    this.filters.delete(session)
  }

  has(topic: string): boolean {
    return this.matchingFilters(topic).some(({ sharedGroup }) => sharedGroup === undefined)
  }

  /** A Shared Subscription of the topic. aedes grants it, but delivers nothing: it takes `$share/…` for an ordinary topic. */
  sharedOf(topic: string): string | undefined {
    return this.matchingFilters(topic).find(({ sharedGroup }) => sharedGroup !== undefined)?.subscription
  }

  private matchingFilters(topic: string): TopicFilter[] {
    return [...this.filters.values()].flatMap(own =>
      [...own.values()].filter(filter => matchesTopicFilter(filter, topic)),
    )
  }

  /** Resolves when a subscription matches the topic. */
  matching(topic: string): Promise<void> {
    return new Promise(resolve => {
      if (this.has(topic)) resolve()
      else this.waiters.set(resolve, topic)
    })
  }
}

import { matchesTopicFilter, type TopicFilter } from '../topic/topic-filter.js'

/** Which filter a Subscription Identifier stands for (MQTT 5, 3.8.2.1.2). */
export class SubscriptionIdentifiers {
  private readonly filters = new Map<number, TopicFilter>()

  /** Gives a filter its identifier: the hash of it, or the next one that is free. */
  assign(filter: TopicFilter): number {
    let identifier = hashOf(filter.subscription)
    while (this.filters.has(identifier)) identifier = (identifier % MAX_IDENTIFIER) + 1
    this.filters.set(identifier, filter)
    return identifier
  }

  /** The filter is not subscribed any more. */
  release(identifier: number): void {
    this.filters.delete(identifier)
  }

  /**
   * The subscriptions that a message was sent for, by the Subscription Identifiers it carries (MQTT 5, 3.3.4).
   * Undefined when it carries none that is known: a kept session may hold messages with identifiers of another
   * process, and these must find their handlers by the topic. For the same reason each one must match the topic.
   */
  identify(topic: string, identifiers: number | readonly number[] | undefined): string[] | undefined {
    if (identifiers === undefined) return undefined
    if (typeof identifiers === 'number') {
      const filter = this.filters.get(identifiers)
      return filter !== undefined && matchesTopicFilter(filter, topic) ? [filter.subscription] : undefined
    }
    const named = identifiers
      .map(identifier => this.filters.get(identifier))
      .filter(filter => filter !== undefined && matchesTopicFilter(filter, topic))
      .flatMap(filter => filter?.subscription ?? [])
    return named.length === 0 ? undefined : named
  }
}

/** Largest Subscription Identifier (MQTT 5, 3.8.2.1.2). */
const MAX_IDENTIFIER = 268_435_455

/**
 * The identifier of a filter is a hash of it (FNV-1a), so that a message which a kept session stored before a
 * restart of this process still names the same filter after it.
 */
function hashOf(subscription: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(subscription)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0
  return (hash % MAX_IDENTIFIER) + 1
}

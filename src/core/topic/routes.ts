import type { TopicFilter } from './topic-filter.js'
import { TopicTrie } from './topic-trie.js'

/** Selects the handlers of a message. */
export class Routes<H> {
  private readonly bySubscription = new Map<string, H[]>()
  private readonly trie = new TopicTrie<H>()

  add(filter: TopicFilter, handler: H): void {
    const handlers = this.bySubscription.get(filter.subscription) ?? []
    handlers.push(handler)
    this.bySubscription.set(filter.subscription, handlers)
    this.trie.add(filter, handler)
  }

  /** Returns the handlers of one filter. */
  of(subscription: string): readonly H[] {
    return this.bySubscription.get(subscription) ?? []
  }

  /** @returns whether the filter has no more handlers */
  remove(filter: TopicFilter, handler: H): boolean {
    this.trie.remove(filter, handler)
    const left = (this.bySubscription.get(filter.subscription) ?? []).filter(other => other !== handler)
    if (left.length > 0) this.bySubscription.set(filter.subscription, left)
    else this.bySubscription.delete(filter.subscription)
    return left.length === 0
  }

  /**
   * Returns the handlers of a message, each once.
   * @param subscriptions the subscriptions for which the broker sent this copy; undefined if it has no Subscription
   * Identifiers. A broker may send one copy per subscription, so a copy goes only to the handlers of its subscriptions.
   */
  select(topic: string, subscriptions: readonly string[] | undefined): readonly H[] {
    if (subscriptions === undefined) return eachOnce(this.trie.match(topic))
    const [only] = subscriptions
    if (subscriptions.length === 1 && only !== undefined) return eachOnce(this.bySubscription.get(only) ?? [])
    return eachOnce(subscriptions.flatMap(subscription => this.bySubscription.get(subscription) ?? []))
  }
}

function eachOnce<H>(handlers: H[]): H[] {
  return handlers.length > 1 ? [...new Set(handlers)] : handlers
}

import type { TopicFilter } from './topic-filter.js'
import { TopicTrie } from './topic-trie.js'

/** Which handlers take a message. */
export class Routes<H> {
  private readonly bySubscription = new Map<string, H[]>()
  private readonly trie = new TopicTrie<H>()

  add(filter: TopicFilter, handler: H): void {
    const handlers = this.bySubscription.get(filter.subscription) ?? []
    handlers.push(handler)
    this.bySubscription.set(filter.subscription, handlers)
    this.trie.add(filter, handler)
  }

  /** Handlers of one filter. */
  of(subscription: string): readonly H[] {
    return this.bySubscription.get(subscription) ?? []
  }

  /** @returns whether no handler of this filter is left */
  remove(filter: TopicFilter, handler: H): boolean {
    this.trie.remove(filter, handler)
    const left = (this.bySubscription.get(filter.subscription) ?? []).filter(other => other !== handler)
    if (left.length > 0) this.bySubscription.set(filter.subscription, left)
    else this.bySubscription.delete(filter.subscription)
    return left.length === 0
  }

  /**
   * Every handler that takes the message, each once.
   * @param subscriptions those that the broker sent this copy for; undefined when it did not say. A broker that
   * names them may send one copy for each, so a copy is only for the handlers of its own subscriptions.
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

import type { TopicFilter } from './topic-filter.js'

interface Node<T> {
  /** Undefined at the end of most filters. */
  children: Map<string, Node<T>> | undefined
  /** Values of the filter that ends at this node. */
  readonly values: Entry<T>[]
  /** Values of the filter that ends at this node with "#", which matches this level and all levels below it. */
  readonly subtree: Entry<T>[]
}

interface Entry<T> {
  readonly order: number
  readonly value: T
}

const newNode = <T>(): Node<T> => ({ children: undefined, values: [], subtree: [] })

/**
 * Maps Topic Filters to values, as a tree of levels. A lookup visits only the nodes that can match the Topic Name, so
 * its cost depends on the depth of the topic and the number of matches, not on the number of filters.
 */
export class TopicTrie<T> {
  private readonly root: Node<T> = newNode()
  private order = 0

  add(filter: TopicFilter, value: T): void {
    this.slot(filter).push({ order: this.order++, value })
  }

  /** Removes one value of a filter, and the nodes that are then empty. */
  remove(filter: TopicFilter, value: T): void {
    const path: (readonly [Node<T>, string])[] = []
    let node: Node<T> | undefined = this.root
    for (const level of filter.levels) {
      if (level === '#') break
      path.push([node, level])
      node = node.children?.get(level)
      if (node === undefined) return
    }
    const slot = filter.levels.at(-1) === '#' ? node.subtree : node.values
    const index = slot.findIndex(entry => entry.value === value)
    if (index >= 0) slot.splice(index, 1)
    for (const [parent, level] of path.reverse()) {
      const child = parent.children?.get(level)
      if (child === undefined || (child.children?.size ?? 0) + child.values.length + child.subtree.length > 0)
        return
      parent.children?.delete(level)
    }
  }

  /** Returns the values of all matching filters, in the order in which they were added. */
  match(topic: string): T[] {
    const found: Entry<T>[] = []
    const names = topic.split('/')
    let nodes = [this.root]
    for (let depth = 0; depth < names.length; depth += 1) {
      const name = names[depth] ?? ''
      // A leading wildcard never matches a Topic Name that starts with "$" [MQTT-4.7.2-1].
      const wildcards = depth > 0 || !topic.startsWith('$')
      const next: Node<T>[] = []
      for (const node of nodes) {
        if (wildcards && node.subtree.length > 0) found.push(...node.subtree)
        const { children } = node
        if (children === undefined) continue
        const exact = children.get(name)
        const single = wildcards ? children.get('+') : undefined
        if (exact !== undefined) next.push(exact)
        if (single !== undefined && single !== exact) next.push(single)
      }
      nodes = next
      if (next.length === 0) break
    }
    for (const node of nodes) found.push(...node.values, ...node.subtree)
    const [only] = found
    if (found.length === 1 && only !== undefined) return [only.value]
    return found.sort((a, b) => a.order - b.order).map(entry => entry.value)
  }

  private slot(filter: TopicFilter): Entry<T>[] {
    let node = this.root
    for (const level of filter.levels) {
      if (level === '#') return node.subtree
      node.children ??= new Map()
      const next: Node<T> = node.children.get(level) ?? newNode()
      node.children.set(level, next)
      node = next
    }
    return node.values
  }
}

/** Selects the handlers of a message. */
export class Routes<H> {
  private readonly bySubscription = new Map<string, H[]>()
  private readonly trie = new TopicTrie<H>()
  /** Handlers of messages that no filter matches. */
  private readonly fallback: H[] = []

  add(filter: TopicFilter, handler: H): void {
    const handlers = this.bySubscription.get(filter.subscription) ?? []
    handlers.push(handler)
    this.bySubscription.set(filter.subscription, handlers)
    this.trie.add(filter, handler)
  }

  /** Adds a handler of messages that no filter matches. */
  addFallback(handler: H): void {
    this.fallback.push(handler)
  }

  /** Adds the handler of messages that are named by a Subscription Identifier only. */
  addNamed(subscription: string, handler: H): void {
    this.bySubscription.set(subscription, [...this.of(subscription), handler])
  }

  removeNamed(subscription: string, handler: H): void {
    this.drop(subscription, handler)
  }

  /** Returns the handlers of one filter. */
  of(subscription: string): readonly H[] {
    return this.bySubscription.get(subscription) ?? []
  }

  /** @returns whether the filter has no more handlers */
  remove(filter: TopicFilter, handler: H): boolean {
    this.trie.remove(filter, handler)
    return this.drop(filter.subscription, handler)
  }

  private drop(subscription: string, handler: H): boolean {
    const left = this.of(subscription).filter(other => other !== handler)
    if (left.length > 0) this.bySubscription.set(subscription, left)
    else this.bySubscription.delete(subscription)
    return left.length === 0
  }

  /**
   * Returns the handlers of a message, each once.
   * @param subscriptions the subscriptions for which the broker sent this copy; undefined if it has no Subscription
   * Identifiers. A broker may send one copy per subscription, so a copy goes only to the handlers of its subscriptions.
   */
  select(topic: string, subscriptions: readonly string[] | undefined): readonly H[] {
    let handlers: readonly H[]
    if (subscriptions === undefined) handlers = this.trie.match(topic)
    else if (subscriptions.length === 1) handlers = this.bySubscription.get(subscriptions[0] ?? '') ?? []
    else handlers = subscriptions.flatMap(subscription => this.bySubscription.get(subscription) ?? [])
    if (handlers.length > 1) return [...new Set(handlers)]
    return handlers.length === 0 && this.fallback.length > 0 ? this.unmatched(topic) : handlers
  }

  /** A copy for a subscription without handlers is not unmatched if another filter matches its topic. */
  private unmatched(topic: string): readonly H[] {
    return this.trie.match(topic).length > 0 ? [] : this.fallback
  }
}

import type { TopicFilter } from './topic-filter.js'

interface Node<T> {
  readonly children: Map<string, Node<T>>
  /** Values of the filter that ends here. */
  readonly values: Entry<T>[]
  /** Values of the filter that ends here with "#": the parent level and everything below it. */
  readonly subtree: Entry<T>[]
}

interface Entry<T> {
  readonly order: number
  readonly value: T
}

const newNode = <T>(): Node<T> => ({ children: new Map(), values: [], subtree: [] })

/**
 * Topic Filters by level. A lookup visits at most the nodes that the Topic Name can reach, so its cost
 * follows the depth of the topic and the number of matches, and not the number of filters.
 */
export class TopicTrie<T> {
  private readonly root: Node<T> = newNode()
  private order = 0

  add(filter: TopicFilter, value: T): void {
    this.slot(filter).push({ order: this.order++, value })
  }

  /** Every value whose filter matches, in the order in which they were added. */
  match(topic: string): T[] {
    const found: Entry<T>[] = []
    const names = topic.split('/')
    const collect = (node: Node<T>, depth: number): void => {
      const wildcards = depth > 0 || !topic.startsWith('$')
      if (wildcards) found.push(...node.subtree)
      const name = names[depth]
      if (name === undefined) {
        found.push(...node.values)
        return
      }
      const exact = node.children.get(name)
      if (exact !== undefined) collect(exact, depth + 1)
      const single = wildcards ? node.children.get('+') : undefined
      if (single !== undefined && single !== exact) collect(single, depth + 1)
    }
    collect(this.root, 0)
    return found.sort((a, b) => a.order - b.order).map(entry => entry.value)
  }

  private slot(filter: TopicFilter): Entry<T>[] {
    let node = this.root
    for (const level of filter.levels) {
      if (level === '#') return node.subtree
      const next = node.children.get(level) ?? newNode<T>()
      node.children.set(level, next)
      node = next
    }
    return node.values
  }
}

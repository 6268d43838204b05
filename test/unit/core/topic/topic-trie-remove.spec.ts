import { describe, expect, it } from 'vitest'
import {
  matchesTopicFilter,
  parseTopicFilter,
  type TopicFilter,
} from '../../../../src/core/topic/topic-filter.js'
import { TopicTrie } from '../../../../src/core/topic/topic-trie.js'
import { SeededRandom } from '../../../support/seeded-random.js'

const FILTERS = [
  'a',
  'a/b',
  'a/b/c',
  'a/+',
  'a/#',
  '+',
  '+/b',
  '+/+/c',
  '#',
  '/',
  '/+',
  '$SYS/#',
  'b/#',
  'b',
] as const
const TOPICS = ['a', 'b', 'a/b', 'a/c', 'a/b/c', 'x', 'x/b', 'x/y/c', '/', '/x', '$SYS/a', 'b/x/y']

/** Nodes of the tree below its root. */
function nodesOf(node: unknown): number {
  if (typeof node !== 'object' || node === null || !('children' in node)) return 0
  const { children } = node
  if (!(children instanceof Map)) return 0
  return [...children.values()].reduce((sum: number, child) => sum + 1 + nodesOf(child), 0)
}

describe('TopicTrie.remove', () => {
  it('removes one value of a filter, by identity', () => {
    const trie = new TopicTrie<object>()
    const filter = parseTopicFilter('a/+')
    const [first, second] = [{}, {}]
    for (const value of [first, second, first]) trie.add(filter, value)
    trie.remove(filter, first)
    const found = trie.match('a/b')
    expect(found).toHaveLength(2)
    expect(found[0]).toBe(second)
    expect(found[1]).toBe(first)
  })

  it('ignores unknown values and filters', () => {
    const trie = new TopicTrie<number>()
    trie.add(parseTopicFilter('a/b'), 1)
    for (const filter of ['a/b', 'a/#', 'a', 'x/y', '#', 'a/b/c']) trie.remove(parseTopicFilter(filter), 2)
    for (const filter of ['a/#', 'a', 'x/y', '#', 'a/b/c']) trie.remove(parseTopicFilter(filter), 1)
    expect(trie.match('a/b')).toEqual([1])
  })

  it('keeps filters with a common prefix', () => {
    const trie = new TopicTrie<string>()
    for (const filter of FILTERS) trie.add(parseTopicFilter(filter), filter)
    trie.remove(parseTopicFilter('a/b'), 'a/b')
    expect(trie.match('a/b/c')).toEqual(['a/b/c', 'a/#', '+/+/c', '#'])
    expect(trie.match('a/b')).toEqual(['a/+', 'a/#', '+/b', '#'])
  })

  it.each([1, 2, 3, 4, 5])('agrees with a plain list after any additions and removals, seed %i', seed => {
    const random = new SeededRandom(seed)
    const trie = new TopicTrie<number>()
    const list: { readonly filter: TopicFilter; readonly value: number }[] = []
    for (let step = 0; step < 500; step += 1) {
      if (random.chance(0.55)) {
        const entry = { filter: parseTopicFilter(random.pick(FILTERS)), value: random.below(5) }
        list.push(entry)
        trie.add(entry.filter, entry.value)
      } else {
        const { filter, value } = list[random.below(list.length || 1)] ?? {
          filter: parseTopicFilter(random.pick(FILTERS)),
          value: 9,
        }
        trie.remove(filter, value)
        const index = list.findIndex(
          other => other.filter.subscription === filter.subscription && other.value === value,
        )
        if (index >= 0) list.splice(index, 1)
      }
      const topic = TOPICS[step % TOPICS.length] ?? 'a'
      const expected = list
        .filter(({ filter }) => matchesTopicFilter(filter, topic))
        .map(({ value }) => value)
      expect(trie.match(topic)).toEqual(expected)
    }
    for (const { filter, value } of list) trie.remove(filter, value)
    for (const topic of TOPICS) expect(trie.match(topic)).toEqual([])
    // Removed filters leave nothing behind.
    expect(Object.values(trie).map(nodesOf)).toEqual([0, 0])
  })
})

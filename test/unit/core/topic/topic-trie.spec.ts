import { describe, expect, it, vi } from 'vitest'
import { parseTopicFilter } from '../../../../src/core/topic/topic-filter.js'
import { TopicTrie } from '../../../../src/core/topic/topic-trie.js'

function trieOf(...filters: string[]): TopicTrie<string> {
  const trie = new TopicTrie<string>()
  for (const filter of filters) trie.add(parseTopicFilter(filter), filter)
  return trie
}

describe('TopicTrie', () => {
  it('finds nothing while it is empty', () => {
    expect(new TopicTrie().match('a/b')).toEqual([])
  })

  it('finds every value of one filter, including equal ones', () => {
    const trie = new TopicTrie<number>()
    const filter = parseTopicFilter('a/+')
    for (const value of [1, 2, 2]) trie.add(filter, value)
    expect(trie.match('a/b')).toEqual([1, 2, 2])
  })

  it('returns the values in the order in which they were added, not in the order of the tree', () => {
    const specificFirst = ['a/b/c', 'a/b/#', 'a/+/c', 'a/#', '+/b/c', '+/+/+', '#']
    expect(trieOf(...specificFirst).match('a/b/c')).toEqual(specificFirst)
    const generalFirst = specificFirst.toReversed()
    expect(trieOf(...generalFirst).match('a/b/c')).toEqual(generalFirst)
  })

  it('distinguishes filters with a common prefix', () => {
    const trie = trieOf('a', 'a/b', 'a/b/c', 'a/+', 'a/#')
    expect(trie.match('a')).toEqual(['a', 'a/#'])
    expect(trie.match('a/b')).toEqual(['a/b', 'a/+', 'a/#'])
    expect(trie.match('a/b/c')).toEqual(['a/b/c', 'a/#'])
    expect(trie.match('a/b/c/d')).toEqual(['a/#'])
  })

  it('finds a Shared Subscription by its filter part', () => {
    const trie = trieOf('$share/g/a/+', '$share/h/a/b', 'a/b')
    expect(trie.match('a/b')).toEqual(['$share/g/a/+', '$share/h/a/b', 'a/b'])
    expect(trie.match('$share/g/a/b')).toEqual([])
  })

  it.each(['__proto__', 'constructor', 'toString'])('treats the level %j like any other name', level => {
    expect(trieOf('a').match(level)).toEqual([])
    expect(trieOf(level).match(level)).toEqual([level])
  })

  it('finds values that are undefined', () => {
    const trie = new TopicTrie<undefined>()
    trie.add(parseTopicFilter('a'), undefined)
    expect(trie.match('a')).toEqual([undefined])
  })

  it('finds a topic with the maximum number of levels', () => {
    const deepest = '/'.repeat(65_535)
    expect(trieOf('#').match(deepest)).toEqual(['#'])
    expect(trieOf(deepest).match(deepest)).toEqual([deepest])
  })

  it('visits no more levels with a thousand times as many filters', () => {
    const lookupsWith = (filters: number): number => {
      const trie = new TopicTrie<number>()
      for (let device = 0; device < filters; device++)
        trie.add(parseTopicFilter(`devices/${device}/+`), device)
      const lookup = vi.spyOn(Map.prototype, 'get')
      try {
        expect(trie.match('devices/7/telemetry')).toEqual([7])
        return lookup.mock.calls.length
      } finally {
        lookup.mockRestore()
      }
    }
    const few = lookupsWith(10)
    expect(few).toBeGreaterThan(0)
    expect(lookupsWith(10_000)).toBe(few)
  })
})

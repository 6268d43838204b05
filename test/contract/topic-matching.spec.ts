import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { matchesTopicFilter, parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { TopicTrie } from '../../src/core/topic/topic-trie.js'
import { describeTopicMatching } from './topic-matching.js'

const naive = (filter: string, topic: string): boolean => matchesTopicFilter(parseTopicFilter(filter), topic)

function trie(filter: string, topic: string): boolean {
  const subject = new TopicTrie<true>()
  subject.add(parseTopicFilter(filter), true)
  return subject.match(topic).length === 1
}

describeTopicMatching('the naive matcher', naive)
describeTopicMatching('the trie', trie)

describe('the naive matcher and the trie', () => {
  const PAIRS = 10_000
  const name = fc.constantFrom('a', 'b', '', '$SYS', '$')
  const level = fc.constantFrom('a', 'b', '', '$SYS', '$', '+', '+')
  const topic = fc
    .array(name, { minLength: 1, maxLength: 4 })
    .map(levels => levels.join('/'))
    .filter(text => text !== '')
  const filter = fc
    .tuple(
      fc.constantFrom('', '', '', '$share/g/'),
      fc.array(level, { maxLength: 4 }),
      fc.constantFrom([], [], ['#']),
    )
    .map(([share, levels, end]) => ({ share, filter: [...levels, ...end].join('/') }))
    .filter(generated => generated.filter !== '')
    .map(generated => `${generated.share}${generated.filter}`)

  it(`agree on ${PAIRS} generated pairs of filter and topic, of which many match and many do not`, () => {
    const seen = { matching: 0, other: 0 }
    fc.assert(
      fc.property(filter, topic, (generatedFilter, generatedTopic) => {
        const expected = naive(generatedFilter, generatedTopic)
        seen[expected ? 'matching' : 'other'] += 1
        expect(trie(generatedFilter, generatedTopic)).toBe(expected)
      }),
      { numRuns: PAIRS },
    )
    expect(seen.matching + seen.other).toBeGreaterThanOrEqual(PAIRS)
    expect(seen.matching).toBeGreaterThan(PAIRS / 20)
    expect(seen.other).toBeGreaterThan(PAIRS / 20)
  })

  it('select the same filters out of many; the trie returns them in the order in which they were added', () => {
    let selectedSeveral = 0
    fc.assert(
      fc.property(fc.array(filter, { minLength: 1, maxLength: 30 }), topic, (filters, generatedTopic) => {
        const subject = new TopicTrie<number>()
        for (const [index, text] of filters.entries()) subject.add(parseTopicFilter(text), index)
        const expected = filters.flatMap((text, index) => (naive(text, generatedTopic) ? [index] : []))
        if (expected.length > 1) selectedSeveral += 1
        expect(subject.match(generatedTopic)).toEqual(expected)
      }),
      { numRuns: 2_000 },
    )
    expect(selectedSeveral).toBeGreaterThan(200)
  })

  it('agree with a third implementation, which turns a filter into a regular expression', () => {
    const escaped = (text: string) => text.replace(/[$.*?()[\]\\^|{}]/g, '\\$&')
    const asPattern = (text: string): RegExp => {
      const plain = text.replace(/^\$share\/g\//, '')
      const levels = plain.split('/')
      const notDollar = levels[0] === '#' || levels[0] === '+' ? '(?!\\$)' : ''
      const body = levels
        .map((part, index) => {
          const separator = index === 0 ? '' : '/'
          if (part === '#') return index === 0 ? '.*' : '(/.*)?'
          return separator + (part === '+' ? '[^/]*' : escaped(part))
        })
        .join('')
      return new RegExp(`^${notDollar}${body}$`, 'su')
    }
    fc.assert(
      fc.property(filter, topic, (generatedFilter, generatedTopic) => {
        expect(naive(generatedFilter, generatedTopic)).toBe(asPattern(generatedFilter).test(generatedTopic))
      }),
      { numRuns: 5_000 },
    )
  })
})

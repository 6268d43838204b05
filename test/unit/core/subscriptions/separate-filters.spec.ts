import { describe, expect, it } from 'vitest'
import { separateFilters } from '../../../../src/core/subscriptions/subscription-rules.js'
import { matchesTopicFilter, parseTopicFilter } from '../../../../src/core/topic/topic-filter.js'

const NAMES = ['', 'a', 'b', '$SYS']
const LEVELS = ['', 'a', '$SYS', '+', '#']

/** All texts of one to `most` levels. */
function texts(levels: readonly string[], most: number): string[] {
  const shorter = most === 1 ? [] : texts(levels, most - 1)
  return [...levels, ...shorter.flatMap(rest => levels.map(level => `${level}/${rest}`))]
}

const TOPICS = [...new Set(texts(NAMES, 4))].filter(topic => topic !== '')
const FILTERS = [...new Set(texts(LEVELS, 3))].filter(filter => filter !== '' && !/#\//.test(filter))

describe('separateFilters', () => {
  it.each(FILTERS)('of "%s" match each of its topics once, and none besides without need', text => {
    const filter = parseTopicFilter(text)
    const { filters, all } = separateFilters(filter)
    const isOpenEnded = text.endsWith('#')
    for (const topic of TOPICS) {
      const matching = filters.filter(separate => matchesTopicFilter(separate, topic))
      if (matchesTopicFilter(filter, topic)) expect(matching, topic).toHaveLength(1)
      else if (isOpenEnded) expect(matching, topic).toEqual([])
      expect(matchesTopicFilter(all, topic), topic).toBe(matching.length > 0)
    }
    expect(filters.map(({ subscription }) => subscription)).not.toContain(text)
  })

  it('are none for a filter of the maximum length', () => {
    expect(separateFilters(parseTopicFilter('a'.repeat(65_534))).filters).toEqual([])
    expect(separateFilters(parseTopicFilter('a'.repeat(65_533))).filters).toHaveLength(1)
  })
})

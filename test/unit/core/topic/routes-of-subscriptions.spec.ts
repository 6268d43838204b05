import { describe, expect, it } from 'vitest'
import { parseTopicFilter } from '../../../../src/core/topic/topic-filter.js'
import { Routes } from '../../../../src/core/topic/topic-trie.js'

const filter = parseTopicFilter

describe('the handlers of one subscription', () => {
  it('are those that were added for its filter, in order, until the last is removed', () => {
    const routes = new Routes<string>()
    expect(routes.of('a/+')).toEqual([])
    routes.add(filter('a/+'), 'one')
    routes.add(filter('a/+'), 'two')
    routes.add(filter('b'), 'other')
    expect(routes.of('a/+')).toEqual(['one', 'two'])
    expect(routes.remove(filter('a/+'), 'one')).toBe(false)
    expect(routes.of('a/+')).toEqual(['two'])
    expect(routes.remove(filter('a/+'), 'two')).toBe(true)
    expect([routes.of('a/+'), routes.of('b')]).toEqual([[], ['other']])
  })

  it('may be named, without a filter that matches topics', () => {
    const routes = new Routes<string>()
    routes.addNamed('a', 'one')
    routes.addNamed('a', 'two')
    expect(routes.of('a')).toEqual(['one', 'two'])
    expect([routes.select('a', ['a']), routes.select('a', undefined)]).toEqual([['one', 'two'], []])
    routes.removeNamed('a', 'one')
    expect(routes.of('a')).toEqual(['two'])
    routes.removeNamed('a', 'two')
    expect(routes.of('a')).toEqual([])
  })

  it('come before the handlers of unmatched messages, which get what no filter matches', () => {
    const routes = new Routes<string>()
    expect(routes.select('x', undefined)).toEqual([])
    routes.addFallback('fallback')
    routes.add(filter('a/+'), 'one')
    expect(routes.select('x', undefined)).toEqual(['fallback'])
    expect(routes.select('a/b', undefined)).toEqual(['one'])
    // The copy is for a subscription that has no handler here, and the topic is matched by another one.
    expect(routes.select('a/b', ['unknown'])).toEqual([])
    expect(routes.select('x', ['unknown'])).toEqual(['fallback'])
  })
})

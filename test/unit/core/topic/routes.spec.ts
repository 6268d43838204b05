import { describe, expect, it } from 'vitest'
import { parseTopicFilter } from '../../../../src/core/topic/topic-filter.js'
import { Routes } from '../../../../src/core/topic/topic-trie.js'

function routesOf(...filters: string[]): Routes<string> {
  const routes = new Routes<string>()
  for (const filter of filters) routes.add(parseTopicFilter(filter), filter)
  return routes
}

describe('Routes, if the broker does not name the subscriptions', () => {
  it('select by the topic, in the order of registration', () => {
    const routes = routesOf('#', 'a/+', 'b', 'a/b', '$share/g/a/b')
    expect(routes.select('a/b', undefined)).toEqual(['#', 'a/+', 'a/b', '$share/g/a/b'])
    expect(routes.select('b', undefined)).toEqual(['#', 'b'])
  })

  it('select nothing for a topic without a handler', () => {
    expect(routesOf('a').select('b', undefined)).toEqual([])
    expect(new Routes<string>().select('b', undefined)).toEqual([])
  })
})

describe('Routes, if the broker names the subscriptions', () => {
  const routes = routesOf('#', 'a/+', 'a/b', '$share/g/a/b')

  it('select only their handlers, because other copies may follow', () => {
    expect(routes.select('a/b', ['a/+'])).toEqual(['a/+'])
    expect(routes.select('a/b', ['$share/g/a/b'])).toEqual(['$share/g/a/b'])
    expect(routes.select('a/b', ['a/b'])).toEqual(['a/b'])
  })

  it('select the handlers of several', () => {
    expect(routes.select('a/b', ['a/+', '#'])).toHaveLength(2)
    expect(new Set(routes.select('a/b', ['a/+', '#']))).toEqual(new Set(['#', 'a/+']))
  })

  it('trust the broker, even if the topic does not match', () => {
    expect(routes.select('z', ['a/+'])).toEqual(['a/+'])
  })

  it('select each handler once when the broker names a subscription twice', () => {
    expect(routes.select('a/b', ['a/+', 'a/+'])).toEqual(['a/+'])
  })

  it.each([[['unknown']], [['unknown', 'other']], [['']], [[]]])('select nothing for %j', subscriptions => {
    expect(routes.select('a/b', subscriptions)).toEqual([])
  })

  it('distinguish a Shared Subscription from the plain one with the same filter', () => {
    const both = routesOf('a/b', '$share/g/a/b', '$share/h/a/b')
    expect(both.select('a/b', ['a/b'])).toEqual(['a/b'])
    expect(both.select('a/b', ['$share/h/a/b'])).toEqual(['$share/h/a/b'])
  })
})

describe('Routes with several handlers on one filter', () => {
  const routes = new Routes<number>()
  for (const handler of [1, 2, 3]) routes.add(parseTopicFilter('a/+'), handler)

  it.each([[undefined], [['a/+']], [['a/+', 'other']]])(
    'select all of them in order for the subscriptions %j',
    named => {
      expect(routes.select('a/b', named)).toEqual([1, 2, 3])
    },
  )
})

describe('Routes with one handler on several filters', () => {
  const handler = () => {}
  const routes = new Routes<() => void>()
  for (const filter of ['a/+', 'a/#', 'a/b', 'a/b']) routes.add(parseTopicFilter(filter), handler)

  it.each([[undefined], [['a/b']], [['a/+', 'a/#']]])('select it once for the subscriptions %j', named => {
    expect(routes.select('a/b', named)).toEqual([handler])
  })
})

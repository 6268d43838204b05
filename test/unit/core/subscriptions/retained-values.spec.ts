import { describe, expect, it } from 'vitest'
import {
  PendingChanges,
  Refresh,
  Refreshes,
  RetainedValues,
} from '../../../../src/core/subscriptions/retained-values.js'

const LIMITS = { maxTopics: 3, maxBytes: 100, overflow: 'drop-oldest' } as const

function valuesOf(limits: Partial<ConstructorParameters<typeof RetainedValues>[0]> = {}) {
  return new RetainedValues<number>({ ...LIMITS, ...limits })
}

describe('RetainedValues', () => {
  it('keeps the last value of each topic, in order of the last update', () => {
    const values = valuesOf()
    values.set('a', 1, 10)
    values.set('b', 2, 10)
    expect(values.set('a', 3, 20)).toEqual([{ type: 'set', topic: 'a', value: 3 }])
    expect([...values]).toEqual([
      ['b', 2],
      ['a', 3],
    ])
    expect({ size: values.size, bytes: values.bytes }).toEqual({ size: 2, bytes: 30 })
  })

  it('removes a value, and reports nothing for a topic without one', () => {
    const values = valuesOf()
    values.set('a', 1, 10)
    expect(values.remove('a', 'cleared')).toEqual([{ type: 'removed', topic: 'a', reason: 'cleared' }])
    expect(values.remove('a', 'cleared')).toEqual([])
    expect({ size: values.size, bytes: values.bytes, has: values.has('a') }).toEqual({
      size: 0,
      bytes: 0,
      has: false,
    })
  })

  it('removes at the end of a synchronisation what was not seen in it', () => {
    const values = valuesOf()
    values.begin()
    values.set('a', 1, 10)
    values.set('b', 1, 10)
    expect(values.end()).toEqual([])
    values.begin()
    values.set('b', 1, 10)
    expect(values.end()).toEqual([{ type: 'removed', topic: 'a', reason: 'gone' }])
    expect([...values]).toEqual([['b', 1]])
  })

  it('counts each topic of a synchronisation once', () => {
    const values = valuesOf()
    values.begin()
    for (const topic of ['a', 'b', 'a']) values.set(topic, 1, 10)
    expect(values.found).toBe(2)
    values.begin()
    expect(values.found).toBe(0)
    values.set('a', 1, 10)
    expect(values.found).toBe(1)
  })

  it('ignores a stored message that arrives after a live one of its topic', () => {
    const values = valuesOf()
    values.begin()
    values.set('a', 2, 10, false)
    expect(values.found).toBe(0)
    expect(values.isNewCopy('a')).toBe(false)
    expect({ found: values.found, a: values.get('a') }).toEqual({ found: 1, a: 2 })
    expect(values.isNewCopy('a')).toBe(false)
    values.set('a', 3, 10, false)
    expect(values.isNewCopy('a')).toBe(false)
    expect(values.found).toBe(1)
    expect(values.isNewCopy('b')).toBe(true)
    values.begin()
    expect(values.isNewCopy('a')).toBe(true)
  })

  it.each([
    ['topics', { maxTopics: 2 }],
    ['bytes', { maxBytes: 25 }],
  ])('drops the topic that was updated longest ago at the limit of %s', (_what, limits) => {
    const values = valuesOf(limits)
    values.begin()
    values.set('a', 1, 10)
    values.set('b', 2, 10)
    values.set('a', 3, 10)
    expect(values.set('c', 4, 10)).toEqual([
      { type: 'removed', topic: 'b', reason: 'dropped' },
      { type: 'set', topic: 'c', value: 4 },
    ])
    expect({ dropped: values.dropped, found: values.found }).toEqual({ dropped: 1, found: 2 })
  })

  it('keeps the topics that it has with drop-newest', () => {
    const values = valuesOf({ maxTopics: 1, overflow: 'drop-newest' })
    values.set('a', 1, 10)
    expect(values.set('b', 2, 10)).toEqual([])
    expect(values.set('a', 3, 10)).toEqual([{ type: 'set', topic: 'a', value: 3 }])
    expect([...values]).toEqual([['a', 3]])
    expect(values.dropped).toBe(1)
  })

  it('drops a value that is larger than the limit, and the one before it, which is out of date', () => {
    const values = valuesOf()
    values.set('a', 1, 10)
    values.set('b', 1, 10)
    expect(values.set('a', 2, 101)).toEqual([{ type: 'removed', topic: 'a', reason: 'dropped' }])
    expect([...values]).toEqual([['b', 1]])
    expect(values.bytes).toBe(10)
  })
})

describe('PendingChanges', () => {
  it('keeps the last change of each topic', () => {
    const pending = new PendingChanges<{ topic: string; value: number }>(2)
    for (const [topic, value] of [
      ['a', 1],
      ['b', 2],
      ['a', 3],
    ] as const)
      pending.add({ topic, value })
    expect(pending.take()).toEqual({ topic: 'b', value: 2 })
    expect(pending.take()).toEqual({ topic: 'a', value: 3 })
    expect(pending.take()).toBeUndefined()
  })

  it('drops the oldest change at the limit, and counts it', () => {
    const pending = new PendingChanges<{ topic: string }>(2)
    for (const topic of ['a', 'b', 'c']) pending.add({ topic })
    expect(pending.take()).toEqual({ topic: 'b' })
    expect(pending.dropped).toBe(1)
  })
})

describe('Refreshes', () => {
  const old = { id: 1 }
  const cache = { id: 2 }
  const newer = { id: 3 }
  const all = [old, cache, newer]

  it('keep messages that were sent again from the handlers that had them', () => {
    const refreshes = new Refreshes<{ readonly id: number }>()
    refreshes.addReceiver(cache)
    const refresh = new Refresh(topic => topic.startsWith('a/'), 2)
    refreshes.add(refresh)
    expect(refreshes.receiversOf(all, 'a/1')).toEqual([cache, newer])
    expect(refreshes.receiversOf(all, 'b/1')).toEqual(all)
    refreshes.delete(refresh)
    expect(refreshes.receiversOf(all, 'a/1')).toEqual(all)
  })
})

import { describe, expect, it } from 'vitest'
import { HandledKeys, InboundCount, type RunOutcome } from '../../../../src/core/inbound/inbound-count.js'

const ZERO = new InboundCount().counts
const store = () => new HandledKeys({ maxAgeMs: 1, maxEntries: 1 }, () => 0)

describe('the counters of incoming messages', () => {
  it.each([
    ['handled', { handled: 1 }],
    ['failed', { handled: 1, failed: 1 }],
    ['deadLettered', { deadLettered: 1 }],
    ['dropped', { dropped: 1 }],
    ['givenBack', { givenBack: 1 }],
    ['duplicate', { duplicates: 1 }],
  ] satisfies readonly [RunOutcome, object][])('count a message that was %s as %j', (outcome, counted) => {
    const count = new InboundCount()
    count.done(outcome)
    expect(count.counts).toEqual({ ...ZERO, ...counted })
  })

  it('count a QoS 2 message that was not stored as received, and given back or dropped', () => {
    const count = new InboundCount()
    count.leftUnreleased(true)
    count.leftUnreleased(false)
    expect(count.counts).toEqual({ ...ZERO, received: 2, givenBack: 1, dropped: 1 })
  })

  it('count a message that loops drop as dropped instead of handled, once for all loops', () => {
    const count = new InboundCount()
    const [first, second] = [{}, {}]
    count.done('handled')
    count.done('handled')
    count.done('handled')
    for (const packet of [first, second, first]) count.droppedByLoop(packet)
    expect(count.counts).toEqual({ ...ZERO, handled: 1, dropped: 2 })
  })
})

describe('the scope of an inbox', () => {
  it('has one handler at a time', () => {
    const { scopes } = new InboundCount()
    const one = store()
    expect([scopes.take(one, 'a'), scopes.take(one, 'a')]).toEqual([true, false])
    scopes.release(one, 'a')
    expect(scopes.take(one, 'a')).toBe(true)
  })

  it('is separate for each name and each store', () => {
    const { scopes } = new InboundCount()
    const [one, other] = [store(), store()]
    expect([scopes.take(one, 'a'), scopes.take(one, 'b'), scopes.take(other, 'a')]).toEqual([
      true,
      true,
      true,
    ])
    scopes.release(one, 'a')
    expect([scopes.take(one, 'b'), scopes.take(other, 'a')]).toEqual([false, false])
  })

  it('may be released without having been taken', () => {
    const { scopes } = new InboundCount()
    expect(() => scopes.release(store(), 'a')).not.toThrow()
  })

  it('leaves no memory of a store without scopes', () => {
    const { scopes } = new InboundCount()
    const one = store()
    scopes.take(one, 'a')
    scopes.take(one, 'b')
    scopes.release(one, 'a')
    scopes.release(one, 'b')
    const [used] = Object.values(scopes)
    expect(used).toEqual(new Map())
  })
})

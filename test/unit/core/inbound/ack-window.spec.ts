import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type AckSlot, AckWindow } from '../../../../src/core/inbound/ack-window.js'

function released(window: AckWindow<undefined>, slot: AckSlot<undefined>): number[] {
  return window.complete(slot).map(({ messageId }) => messageId)
}

describe('AckWindow', () => {
  it('releases a message as soon as it is done, when nothing is before it', () => {
    const window = new AckWindow<undefined>()
    const slot = window.add(7, undefined)
    expect(window.size).toBe(1)
    expect(released(window, slot)).toEqual([7])
    expect(window.size).toBe(0)
  })

  it('keeps what is done until everything before it is done [MQTT-4.6.0-2]', () => {
    const window = new AckWindow<undefined>()
    const [first, second, third] = [
      window.add(1, undefined),
      window.add(2, undefined),
      window.add(3, undefined),
    ]
    expect(released(window, third)).toEqual([])
    expect(released(window, second)).toEqual([])
    expect(window.size).toBe(3)
    expect(released(window, first)).toEqual([1, 2, 3])
    expect(window.size).toBe(0)
  })

  it('releases up to the first that is open, and no further', () => {
    const window = new AckWindow<undefined>()
    const [first, second, , fourth] = [
      window.add(1, undefined),
      window.add(2, undefined),
      window.add(3, undefined),
      window.add(4, undefined),
    ]
    window.complete(second)
    window.complete(fourth)
    expect(released(window, first)).toEqual([1, 2])
    expect(window.size).toBe(2)
  })

  it('releases nothing of an earlier connection, and owes nothing to it', () => {
    const window = new AckWindow<undefined>()
    const before = window.add(1, undefined)
    expect(window.owes(before)).toBe(true)
    expect(window.renew()).toEqual([before])
    const after = window.add(1, undefined)
    expect(released(window, before)).toEqual([])
    expect([window.owes(before), window.owes(after), window.owes(undefined)]).toEqual([false, true, false])
    expect([window.positionOf(before), window.positionOf(after)]).toEqual([-1, 0])
    expect(released(window, after)).toEqual([1])
  })

  it('goes by the order of arrival, not by the Packet Identifier', () => {
    const window = new AckWindow<undefined>()
    const [first, second] = [window.add(65_535, undefined), window.add(1, undefined)]
    window.complete(second)
    expect(released(window, first)).toEqual([65_535, 1])
  })

  it('takes a Packet Identifier again that was released before', () => {
    const window = new AckWindow<undefined>()
    window.complete(window.add(1, undefined))
    const [again, other] = [window.add(1, undefined), window.add(2, undefined)]
    window.complete(other)
    expect(released(window, again)).toEqual([1, 2])
  })

  it('acknowledges once, also when a message is completed twice', () => {
    const window = new AckWindow<undefined>()
    const slot = window.add(1, undefined)
    window.add(2, undefined)
    expect(released(window, slot)).toEqual([1])
    expect(released(window, slot)).toEqual([])
    expect(window.size).toBe(1)
  })

  it('is not moved by a message of another window', () => {
    const window = new AckWindow<undefined>()
    const slot = window.add(1, undefined)
    const other = new AckWindow<undefined>()
    other.add(1, undefined)
    expect(released(other, slot)).toEqual([])
    expect(other.size).toBe(1)
  })

  it('releases every message once and in order, in whatever order they are done', () => {
    const orders = fc.integer({ min: 1, max: 30 }).chain(count => {
      const ids = Array.from({ length: count }, (_, index) => index + 1)
      return fc.shuffledSubarray(ids, { minLength: count })
    })
    fc.assert(
      fc.property(orders, order => {
        const window = new AckWindow<undefined>()
        const slots = order.map((_, index) => window.add(index + 1, undefined))
        const all: number[] = []
        const done = new Set<number>()
        for (const id of order) {
          const slot = slots[id - 1]
          if (slot === undefined) throw new Error('no such slot')
          done.add(id)
          all.push(...released(window, slot))
          expect(all.every(one => done.has(one))).toBe(true)
          expect(window.size).toBe(order.length - all.length)
        }
        expect(all).toEqual(slots.map(slot => slot.messageId))
      }),
    )
  })
})

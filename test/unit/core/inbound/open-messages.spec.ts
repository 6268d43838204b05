import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PublishPacket } from '../../../../src/client/connection/link.js'
import type { Delivery } from '../../../../src/client/inbound/delivery.js'
import { HeldBytes, OpenMessages } from '../../../../src/core/inbound/open-messages.js'
import { deliveryTo, namedHandler } from '../../../support/handler-runs.js'
import { message } from '../../../support/session-on-peer.js'

const NOTHING = { count: 0, bytes: 0 }
const HANDLER = [namedHandler('one')]

function opened({ keepsSession = true } = {}) {
  const messages = new OpenMessages<Delivery>(new HeldBytes(1_000_000, NOTHING), keepsSession)
  const add = (messageId: number, fields: Partial<PublishPacket> = {}): Delivery => {
    const delivery = deliveryTo(HANDLER, 'a', { qos: 1, messageId, payload: 'one', ...fields })
    messages.add(delivery)
    return delivery
  }
  /** Identifiers whose PUBACK may leave now. */
  const taken = (): (number | undefined)[] => {
    const ids: (number | undefined)[] = []
    for (let next = messages.take(); next !== undefined; next = messages.take())
      ids.push(next.packet.messageId)
    return ids
  }
  const finish = (delivery: Delivery): (number | undefined)[] => {
    messages.finish(delivery)
    return taken()
  }
  return { messages, add, finish, taken }
}

describe('the acknowledgements of OpenMessages', () => {
  it('are sent as soon as a message is finished, if none is before it', () => {
    const { messages, add, finish } = opened()
    const delivery = add(7)
    expect(messages.unacknowledged).toHaveLength(1)
    expect(finish(delivery)).toEqual([7])
    expect(messages.unacknowledged).toHaveLength(0)
    expect(messages.held.bytes).toBe(0)
  })

  it('wait until all earlier messages are finished [MQTT-4.6.0-2]', () => {
    const { messages, add, finish } = opened()
    const [first, second, third] = [add(1), add(2), add(3)]
    expect(finish(third)).toEqual([])
    expect(finish(second)).toEqual([])
    expect(messages.unacknowledged).toHaveLength(3)
    expect(finish(first)).toEqual([1, 2, 3])
  })

  it('are sent up to the first unfinished message', () => {
    const { messages, add, finish } = opened()
    const [first, second, , fourth] = [add(1), add(2), add(3), add(4)]
    expect([finish(second), finish(fourth)]).toEqual([[], []])
    expect(finish(first)).toEqual([1, 2])
    expect(messages.unacknowledged).toHaveLength(2)
  })

  it('are never sent on a later connection', () => {
    const { messages, add, finish } = opened()
    const before = add(1)
    messages.lost()
    const after = add(1)
    expect(finish(before)).toEqual([])
    expect(finish(after)).toEqual([1])
    expect(messages.held.bytes).toBe(0)
  })

  it('follow the order of arrival, not the Packet Identifier', () => {
    const { add, finish } = opened()
    const [first, second] = [add(65_535), add(1)]
    finish(second)
    expect(finish(first)).toEqual([65_535, 1])
  })

  it('are sent once, even if a message ends twice', () => {
    const { messages, add, finish } = opened()
    const first = add(1)
    add(2)
    expect(finish(first)).toEqual([1])
    expect(finish(first)).toEqual([])
    expect(messages.unacknowledged).toHaveLength(1)
  })

  it('are not sent for a message that is given back, or for later ones', () => {
    const { messages, add, finish } = opened()
    const [first, second] = [add(1), add(2)]
    first.end('givenBack')
    expect([finish(first), finish(second)]).toEqual([[], []])
    expect(messages.count.counts).toMatchObject({ givenBack: 1, handled: 1 })
  })

  it('are sent once per message and in order, in whatever order the messages are finished', () => {
    const orders = fc.integer({ min: 1, max: 30 }).chain(count => {
      const ids = Array.from({ length: count }, (_, index) => index + 1)
      return fc.shuffledSubarray(ids, { minLength: count })
    })
    fc.assert(
      fc.property(orders, order => {
        const { messages, add, finish } = opened()
        const deliveries = order.map((_, index) => add(index + 1))
        const all: (number | undefined)[] = []
        const done = new Set<number | undefined>()
        for (const id of order) {
          const delivery = deliveries[id - 1]
          if (delivery === undefined) throw new Error('no such message')
          done.add(id)
          all.push(...finish(delivery))
          expect(all.every(one => done.has(one))).toBe(true)
          expect(messages.unacknowledged).toHaveLength(order.length - all.length)
        }
        expect(all).toEqual(deliveries.map(({ packet }) => packet.messageId))
      }),
    )
  })
})

describe('a message that the broker resends', () => {
  const again = (fields: Partial<PublishPacket> = {}) =>
    message('a', { qos: 1, messageId: 7, dup: true, payload: 'one', ...fields })

  /** A message whose handler has begun before the connection was lost. */
  function lost(outcome?: 'givenBack', options?: { keepsSession: boolean }) {
    const parts = opened(options)
    const delivery = parts.add(7)
    delivery.started = 1
    if (outcome !== undefined) delivery.end(outcome)
    parts.messages.lost()
    return { ...parts, delivery }
  }

  it('is recognised by its Packet Identifier, DUP, topic and payload, once', () => {
    const { messages, finish, delivery } = lost()
    expect(messages.repeats(again())).toBe(true)
    expect(messages.unacknowledged).toEqual([delivery])
    expect(finish(delivery)).toEqual([7])
    expect(messages.repeats(again())).toBe(false)
    expect(messages.count.counts.repeated).toBe(1)
  })

  it('is acknowledged at once if its handler has ended in the meantime', () => {
    const { messages, taken, delivery } = lost()
    messages.finish(delivery)
    expect(messages.repeats(again())).toBe(true)
    expect(taken()).toEqual([7])
    expect(messages.held.bytes).toBe(0)
  })

  it('is recognised by the bytes of its payload', () => {
    expect(lost().messages.repeats(again({ payload: Buffer.from('one') }))).toBe(true)
  })

  it.each([
    ['without DUP', { dup: false }],
    ['with another payload', { payload: 'two' }],
    ['of another topic', { topic: 'b' }],
  ])('is not recognised %s, and neither is the first one after that', (_how, fields) => {
    const { messages } = lost()
    expect(messages.repeats(again(fields))).toBe(false)
    expect(messages.repeats(again())).toBe(false)
  })

  it('is recognised after packets with other Packet Identifiers, and without one', () => {
    const { messages } = lost()
    const { messageId: _none, ...withoutIdentifier } = again()
    expect(messages.repeats(again({ messageId: 8 }))).toBe(false)
    expect(messages.repeats(withoutIdentifier)).toBe(false)
    expect(messages.repeats(again())).toBe(true)
  })

  it('is handled again if it was given back', () => {
    expect(lost('givenBack').messages.repeats(again())).toBe(false)
  })

  it('is handled again if the session is not kept, or lost', () => {
    expect(lost(undefined, { keepsSession: false }).messages.repeats(again())).toBe(false)
    const { messages } = lost()
    messages.connected(false)
    expect(messages.repeats(again())).toBe(false)
  })

  it('is recognised on the same connection while its acknowledgement has not been sent', () => {
    const { messages, add, finish } = opened()
    const delivery = add(7)
    expect([messages.repeats(again()), messages.repeats(again({ payload: 'two' }))]).toEqual([true, false])
    expect(finish(delivery)).toEqual([7])
    expect(messages.repeats(again())).toBe(false)
  })
})

describe('OpenMessages after a lost connection', () => {
  it('park messages without a started handler, and give them back if the broker has kept the session', () => {
    const { messages, add } = opened()
    messages.withdraw(add(1), undefined)
    messages.lost()
    expect(messages.counters).toMatchObject({ waiting: 1, running: 0 })
    expect(messages.connected(true)).toEqual([])
    expect(messages.counters).toMatchObject({ waiting: 0, givenBack: 1, queuedBytes: 0 })
  })

  it('unpark messages if the broker has lost the session', () => {
    const { messages, add } = opened()
    const delivery = add(1)
    messages.withdraw(delivery, undefined)
    messages.lost()
    expect(messages.connected(false)).toEqual([delivery])
    expect(messages.canGiveBack(delivery)).toBe(false)
    expect([...messages.open]).toEqual([delivery])
  })
})

describe('the counters of OpenMessages', () => {
  it('tell messages whose handlers have started from those that wait', () => {
    const { messages, add } = opened()
    const [first] = [add(1), add(2), add(3)]
    first.started = 1
    expect(messages.counters).toMatchObject({ running: 1, waiting: 2, queuedBytes: messages.held.bytes })
  })

  it('contain the messages that the broker has not released', () => {
    const messages = new OpenMessages(new HeldBytes(1_000, { count: 3, bytes: 7 }), true)
    expect(messages.counters).toMatchObject({ unreleased: 3, queuedBytes: 7 })
  })

  it('count unfinished QoS 2 messages, which need no acknowledgement', () => {
    const { messages, add, finish } = opened()
    const [first, , qos1, qos0] = [add(1, { qos: 2 }), add(2, { qos: 2 }), add(3), add(4, { qos: 0 })]
    expect([messages.qos2, messages.unacknowledged.length, messages.added]).toEqual([2, 1, 1])
    expect(finish(first)).toEqual([])
    expect(finish(first)).toEqual([])
    for (const other of [qos1, qos0]) finish(other)
    expect(messages.qos2).toBe(1)
  })

  it('count QoS 1 messages of all connections, including those that the broker resends', () => {
    const { messages, add } = opened()
    add(1)
    add(2).started = 1
    messages.lost()
    messages.repeats(message('a', { qos: 1, messageId: 2, dup: true, payload: 'one' }))
    expect(messages.added).toBe(3)
  })

  it.each([
    ['handled', { handled: 1 }],
    ['failed', { handled: 1, failed: 1 }],
    ['deadLettered', { deadLettered: 1 }],
    ['givenBack', { givenBack: 1 }],
  ] as const)('count the outcome of a message: %s', (outcome, counts) => {
    const { messages, add } = opened()
    const delivery = add(1)
    delivery.end(outcome)
    messages.finish(delivery)
    expect(messages.count.counts).toMatchObject({ handled: 0, ...counts })
  })

  it('count the outcome of a message that is withdrawn before its handlers start', () => {
    const { messages, add } = opened()
    messages.withdraw(add(1), 'dropped')
    expect(messages.counters).toMatchObject({ dropped: 1, waiting: 0, queuedBytes: 0 })
  })

  it('count a message that would be given back as dropped if the broker does not keep the session', () => {
    const { messages, add } = opened({ keepsSession: false })
    const delivery = add(1)
    delivery.end('givenBack')
    messages.finish(delivery)
    expect(messages.count.counts).toMatchObject({ givenBack: 0, dropped: 1 })
  })
})

describe('OpenMessages', () => {
  it('reports with each message whether more bytes are held than allowed', () => {
    const messages = new OpenMessages<Delivery>(new HeldBytes(1_000, NOTHING), true)
    const next = (messageId: number) => deliveryTo(HANDLER, 'a', { qos: 1, messageId })
    expect([messages.add(next(1)), messages.add(next(2))]).toEqual([false, true])
  })

  it('reports after each message whether an acknowledgement may be due', () => {
    const { messages, add } = opened()
    const [first, given, late, qos0] = [add(1), add(2), add(3), add(4, { qos: 0 })]
    given.end('givenBack')
    expect([messages.finish(first), messages.finish(first), messages.finish(given)]).toEqual([
      true,
      false,
      false,
    ])
    messages.lost()
    expect([messages.finish(late), messages.finish(qos0)]).toEqual([false, false])
  })

  it('holds the bytes of a message until its acknowledgement', () => {
    const { messages, add, taken } = opened()
    const [first, second] = [add(1), add(2)]
    messages.finish(second)
    expect(messages.held.bytes).toBe(first.bytes + second.bytes)
    messages.finish(first)
    taken()
    expect(messages.held.bytes).toBe(0)
  })

  it('releases finished messages when the connection is lost, and holds them again when the broker resends them', () => {
    const { messages, add } = opened()
    const [, second] = [add(1), add(2)]
    messages.finish(second)
    messages.lost()
    expect(messages.held.bytes).toBe(second.bytes)
    messages.repeats(message('a', { qos: 1, messageId: 2, dup: true, payload: 'one' }))
    expect(messages.held.bytes).toBe(2 * second.bytes)
  })

  it('expects a message again only if its handlers have started', () => {
    const { messages, add } = opened()
    const [, started, finished] = [add(1), add(2), add(3)]
    started.started = 1
    messages.finish(finished)
    messages.lost()
    expect([...messages.expected.values()]).toEqual([started, finished])
  })

  it('gives parked messages back without a connection', () => {
    const { messages, add } = opened()
    messages.withdraw(add(1), undefined)
    messages.giveBackParked()
    messages.giveBackParked()
    expect(messages.counters).toMatchObject({ givenBack: 1, waiting: 0 })
  })

  it('handles an identifier that the broker has reused before the acknowledgement', () => {
    const { messages, add } = opened()
    add(7)
    add(8)
    const other = message('a', { qos: 1, messageId: 9, dup: true, payload: 'one' })
    expect(messages.repeats(other)).toBe(false)
  })
})

describe('the messages behind all started ones', () => {
  it('are those of the connection that arrived after the last message with a started handler', () => {
    const { messages, add } = opened()
    const [, second, third, fourth, fifth] = [add(1), add(2), add(3), add(4), add(5)]
    second.started = 1
    third.started = 1
    add(6, { qos: 0 })
    expect(messages.behindStarted()).toEqual([fourth, fifth])
  })

  it('are all if no handler has started', () => {
    const { messages, add } = opened()
    expect(messages.behindStarted()).toEqual([])
    const all = [add(1), add(2)]
    expect(messages.behindStarted()).toEqual(all)
  })

  it('are none of an earlier connection, whose handlers do not count either', () => {
    const { messages, add } = opened()
    add(1)
    add(2).started = 1
    messages.lost()
    const after = add(3)
    expect(messages.behindStarted()).toEqual([after])
  })
})

describe('the last message, for which there is no room', () => {
  it('is not acknowledged, holds no other back, and is given back', () => {
    const { messages, add, finish } = opened()
    const [first, last] = [add(1), add(2)]
    messages.leave(last)
    expect(messages.unacknowledged).toEqual([first])
    expect(finish(first)).toEqual([1])
    expect(messages.counters).toMatchObject({ givenBack: 1, handled: 1, queuedBytes: 0 })
  })

  it('leaves the acknowledgements of the others if it needs none, and is dropped', () => {
    const { messages, add, finish } = opened()
    const first = add(1)
    messages.leave(add(2, { qos: 2 }))
    expect(finish(first)).toEqual([1])
    expect(messages.counters).toMatchObject({ givenBack: 0, dropped: 1, handled: 1 })
  })
})

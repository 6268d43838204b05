import { describe, expect, it } from 'vitest'
import { type BufferLimits, OutboundBuffer } from '../../../../src/core/outbound/outbound-buffer.js'
import { Publication } from '../../../../src/core/outbound/outbound-message.js'
import type { WhenBlocked } from '../../../../src/options/options.js'
import { SeededRandom } from '../../../support/seeded-random.js'
import { waitingPublish } from '../../../support/waiting-publish.js'

const BACKLOG = 1_000
const KEPT = ['latest', 'queue', 'wait'] as const

function bufferWith(limits: Partial<BufferLimits> = {}): OutboundBuffer {
  return new OutboundBuffer({ maxQueued: 100, maxQueuedBytes: 10_000, overflow: 'drop-oldest', ...limits })
}

/** Lets everything wait, and fails where one may not. */
function filledWith(buffer: OutboundBuffer, ...all: readonly Publication[]): OutboundBuffer {
  for (const waiting of all) expect(buffer.add(waiting, BACKLOG)).toEqual({ isAdmitted: true, displaced: [] })
  return buffer
}

/** Takes out what is next, as often as there is one. */
function drained(buffer: OutboundBuffer, mayAcknowledge = true): Publication[] {
  const order: Publication[] = []
  for (let next = buffer.next(mayAcknowledge); next !== undefined; next = buffer.next(mayAcknowledge)) {
    order.push(next)
    expect(buffer.remove(next)).toBe(true)
  }
  return order
}

const several = (mode: WhenBlocked, count: number): Publication[] =>
  Array.from({ length: count }, (_, index) => waitingPublish(mode, { topic: `${mode}/${index}` }))

const FULL = { isAdmitted: false, reason: 'queue-full' }

describe('an empty buffer', () => {
  it('returns nothing', () => {
    const buffer = bufferWith()
    expect([buffer.size, buffer.bytes]).toEqual([0, 0])
    expect(buffer.next(true)).toBeUndefined()
    expect(buffer.oldestMs()).toBeUndefined()
    expect(buffer.nextDeadlineMs).toBe(Number.POSITIVE_INFINITY)
    expect(buffer.takeLate(1_000)).toEqual([])
    expect(buffer.remove(waitingPublish('drop'))).toBe(false)
    for (const qos of [0, 1, 2] as const) expect(buffer.isEmpty(qos)).toBe(true)
  })
})

describe('order', () => {
  it('is the order of arrival, whatever the policy', () => {
    const all = ['wait', 'drop', 'queue', 'latest', 'queue', 'drop', 'wait'] as const
    const waiting = all.map((mode, index) => waitingPublish(mode, { topic: `t/${index}` }))
    expect(drained(filledWith(bufferWith(), ...waiting))).toEqual(waiting)
  })

  it('is the order of arrival, whatever the QoS, while QoS 1 and 2 may be sent', () => {
    const waiting = ([1, 0, 2, 0, 1] as const).map(qos => waitingPublish('queue', { qos }))
    expect(drained(filledWith(bufferWith(), ...waiting))).toEqual(waiting)
  })

  it('lets QoS 0 overtake QoS 1 and 2 only while those may not be sent', () => {
    const waiting = ([1, 0, 2, 0, 1] as const).map(qos => waitingPublish('queue', { qos }))
    const buffer = filledWith(bufferWith(), ...waiting)
    expect(drained(buffer, false)).toEqual([waiting[1], waiting[3]])
    expect(buffer.next(false)).toBeUndefined()
    expect(drained(buffer)).toEqual([waiting[0], waiting[2], waiting[4]])
  })

  it.each(['queue', 'wait'] as const)('shows whether a message of %s would be the first of its QoS', mode => {
    for (const qos of [0, 1] as const) {
      const buffer = filledWith(bufferWith(), waitingPublish(mode, { qos }))
      expect([buffer.isEmpty(0), buffer.isEmpty(1), buffer.isEmpty(2)]).toEqual([
        qos !== 0,
        qos === 0,
        qos === 0,
      ])
    }
  })

  it('shows whether another message of the same kind is before a message', () => {
    const plain = waitingPublish('wait', { qos: 0 })
    const acknowledged = waitingPublish('wait', { qos: 2 })
    const buffer = filledWith(bufferWith(), plain)
    expect([buffer.isEmpty(0), buffer.isEmpty(1), buffer.isEmpty(2)]).toEqual([false, true, true])
    filledWith(buffer, acknowledged)
    buffer.remove(plain)
    expect([buffer.isEmpty(0), buffer.isEmpty(1), buffer.isEmpty(2)]).toEqual([true, false, false])
  })
})

describe('latest', () => {
  const newer = (fields: Parameters<typeof waitingPublish>[1]) =>
    waitingPublish('latest', { bytes: 30, ...fields })

  it('takes the position of the older one of its topic', () => {
    const waiting = several('latest', 3)
    const buffer = filledWith(bufferWith(), ...waiting)
    const next = newer({ topic: 'latest/0' })
    expect(buffer.add(next, 0)).toEqual({ isAdmitted: true, displaced: [[waiting[0], 'superseded']] })
    expect([buffer.size, buffer.bytes]).toEqual([3, 50])
    expect(buffer.remove(waiting[0] ?? next)).toBe(false)
    expect(drained(buffer)).toEqual([next, waiting[1], waiting[2]])
  })

  it('replaces repeatedly, and waits again after it was removed', () => {
    const buffer = filledWith(bufferWith(), newer({}))
    for (let round = 0; round < 5; round += 1)
      expect(buffer.add(newer({}), 0)).toMatchObject({ isAdmitted: true })
    expect(buffer.size).toBe(1)
    expect(drained(buffer)).toHaveLength(1)
    filledWith(buffer, newer({}))
  })

  it('replaces a retained message only by a retained one, and the reverse', () => {
    const retained = newer({ retain: true })
    const plain = newer({ retain: false })
    const buffer = filledWith(bufferWith(), retained, plain)
    const next = newer({ retain: true })
    expect(buffer.add(next, 0)).toEqual({ isAdmitted: true, displaced: [[retained, 'superseded']] })
    expect(drained(buffer)).toEqual([next, plain])
  })

  it('moves to the end if the kind of QoS differs', () => {
    const older = newer({ qos: 0 })
    const between = waitingPublish('queue', { qos: 1 })
    const buffer = filledWith(bufferWith(), older, between)
    const next = newer({ qos: 1 })
    expect(buffer.add(next, 0)).toEqual({ isAdmitted: true, displaced: [[older, 'superseded']] })
    expect(buffer.isEmpty(0)).toBe(true)
    expect(drained(buffer)).toEqual([between, next])
  })

  it('keeps its position if QoS 1 becomes QoS 2', () => {
    const older = newer({ qos: 1 })
    const after = waitingPublish('queue', { qos: 1 })
    const buffer = filledWith(bufferWith(), older, after)
    const next = newer({ qos: 2 })
    buffer.add(next, 0)
    expect(drained(buffer)).toEqual([next, after])
  })

  it.each([
    [
      { topic: '-a', retain: true },
      { topic: 'a', retain: false },
    ],
    [
      { topic: 'a', retain: true },
      { topic: 'ra', retain: false },
    ],
  ])('does not confuse %j with %j', (one, other) => {
    const all = [waitingPublish('latest', one), waitingPublish('latest', other)]
    expect(drained(filledWith(bufferWith(), ...all))).toEqual(all)
  })

  it('replaces at any position', () => {
    for (const at of [0, 1, 2]) {
      const waiting = several('latest', 3)
      const buffer = filledWith(bufferWith(), ...waiting)
      const newer = waitingPublish('latest', { topic: `latest/${at}` })
      const [older] = waiting.splice(at, 1, newer)
      expect(buffer.add(newer, 0)).toEqual({ isAdmitted: true, displaced: [[older, 'superseded']] })
      expect(drained(buffer)).toEqual(waiting)
    }
  })

  it('does not replace messages of other policies', () => {
    const others = (['drop', 'queue', 'wait'] as const).map(mode => waitingPublish(mode))
    const next = newer({})
    expect(drained(filledWith(bufferWith(), ...others, next))).toEqual([...others, next])
  })

  it('uses its own deadline', () => {
    const older = newer({ deadlineMs: 100 })
    const buffer = filledWith(bufferWith(), older)
    const next = newer({ deadlineMs: 50 })
    buffer.add(next, 0)
    expect(buffer.takeLate(49)).toEqual([])
    expect(buffer.takeLate(50)).toEqual([next])
    expect(buffer.size).toBe(0)
  })

  it('is refused if it exceeds the limit, and the older one stays', () => {
    const older = newer({})
    const buffer = filledWith(bufferWith({ maxQueuedBytes: 40 }), older)
    expect(buffer.add(newer({ bytes: 41 }), 0)).toEqual(FULL)
    expect(drained(buffer)).toEqual([older])
  })

  it('also replaces at the limit', () => {
    const buffer = filledWith(bufferWith({ maxQueued: 1, maxQueuedBytes: 30 }), newer({}))
    expect(buffer.add(newer({}), 0)).toMatchObject({ isAdmitted: true })
    expect(buffer.add(newer({ topic: 'other' }), 0)).toEqual(FULL)
  })
})

describe('limits', () => {
  it.each(KEPT)('on messages apply to %s', mode => {
    const buffer = filledWith(bufferWith({ maxQueued: 3, overflow: 'drop-newest' }), ...several(mode, 3))
    expect(buffer.add(waitingPublish(mode, { topic: 'one more' }), 0)).toEqual(FULL)
    expect(buffer.size).toBe(3)
  })

  it.each(KEPT)('on bytes apply to %s', mode => {
    const limits = { maxQueuedBytes: 35, overflow: 'drop-newest' } as const
    const buffer = filledWith(bufferWith(limits), ...several(mode, 3))
    expect(buffer.add(waitingPublish(mode, { topic: 'one more', bytes: 6 }), 0)).toEqual(FULL)
    filledWith(buffer, waitingPublish(mode, { topic: 'short', bytes: 5 }))
    expect([buffer.size, buffer.bytes]).toEqual([4, 35])
  })

  it('apply to the three together, and drop has its own', () => {
    const buffer = filledWith(bufferWith({ maxQueued: 3 }), ...KEPT.map(mode => waitingPublish(mode)))
    expect(buffer.add(waitingPublish('wait'), BACKLOG)).toEqual(FULL)
    filledWith(buffer, ...several('drop', 50))
    expect(buffer.add(waitingPublish('wait'), BACKLOG)).toEqual(FULL)
    expect([buffer.size, buffer.bytes]).toEqual([53, 530])
  })

  it('of drop are the bytes that the link will soon carry; one message is always accepted', () => {
    const buffer = filledWith(bufferWith(), waitingPublish('drop', { bytes: 5_000 }))
    const more = waitingPublish('drop', { bytes: 10 })
    expect(buffer.add(more, 5_009)).toEqual({ isAdmitted: false, reason: 'backlog' })
    expect(buffer.add(more, 5_010)).toEqual({ isAdmitted: true, displaced: [] })
  })
})

describe('overflow of queue', () => {
  it('drops the oldest of queue, and as many as necessary', () => {
    const waiting = several('queue', 3)
    const buffer = filledWith(bufferWith({ maxQueuedBytes: 35 }), ...waiting)
    const next = waitingPublish('queue', { bytes: 20 })
    expect(buffer.add(next, 0)).toEqual({
      isAdmitted: true,
      displaced: waiting.slice(0, 2).map(oldest => [oldest, 'queue-full']),
    })
    expect(drained(buffer)).toEqual([waiting[2], next])
  })

  it('drops the new one if the option says so', () => {
    const waiting = several('queue', 2)
    const buffer = filledWith(bufferWith({ maxQueued: 2, overflow: 'drop-newest' }), ...waiting)
    expect(buffer.add(waitingPublish('queue'), 0)).toEqual(FULL)
    expect(drained(buffer)).toEqual(waiting)
  })

  it('never drops messages of other policies', () => {
    const others = [waitingPublish('latest'), waitingPublish('wait')]
    const buffer = filledWith(bufferWith({ maxQueued: 2 }), ...others)
    expect(buffer.add(waitingPublish('queue'), 0)).toEqual(FULL)
    expect(drained(buffer)).toEqual(others)
  })

  it.each(['latest', 'wait'] as const)('does not apply to %s, which drops no accepted message', mode => {
    const waiting = several('queue', 2)
    const buffer = filledWith(bufferWith({ maxQueued: 2 }), ...waiting)
    expect(buffer.add(waitingPublish(mode), 0)).toEqual(FULL)
    expect(drained(buffer)).toEqual(waiting)
  })

  it('drops all if that makes just enough room', () => {
    const kept = waitingPublish('wait', { bytes: 30 })
    const [first, second] = [waitingPublish('queue', { bytes: 4 }), waitingPublish('queue', { bytes: 6 })]
    const buffer = filledWith(bufferWith({ maxQueuedBytes: 40 }), kept, first, second)
    const last = waitingPublish('queue', { bytes: 10 })
    expect(buffer.add(last, 0)).toEqual({
      isAdmitted: true,
      displaced: [first, second].map(one => [one, 'queue-full']),
    })
    expect(drained(buffer)).toEqual([kept, last])
  })

  it('drops nothing if that would not help', () => {
    const all = [waitingPublish('wait', { bytes: 30 }), waitingPublish('queue')]
    const buffer = filledWith(bufferWith({ maxQueuedBytes: 40 }), ...all)
    expect(buffer.add(waitingPublish('queue', { bytes: 11 }), 0)).toEqual(FULL)
    expect(buffer.add(waitingPublish('queue', { bytes: 41 }), 0)).toEqual(FULL)
    expect(drained(buffer)).toEqual(all)
  })
})

describe('a late message', () => {
  it('is removed at its deadline, in order of deadlines, and no other is', () => {
    const deadlines = [300, 100, 200, 100]
    const waiting = deadlines.map(deadlineMs => waitingPublish('queue', { deadlineMs }))
    const buffer = filledWith(bufferWith(), ...waiting)
    expect(buffer.nextDeadlineMs).toBe(100)
    expect(buffer.takeLate(99)).toEqual([])
    expect(buffer.takeLate(100)).toEqual([waiting[1], waiting[3]])
    expect([buffer.size, buffer.bytes, buffer.nextDeadlineMs]).toEqual([2, 20, 200])
    expect(buffer.takeLate(300)).toEqual([waiting[2], waiting[0]])
    expect(buffer.nextDeadlineMs).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('late messages', () => {
  it.each([1, 2, 3])(
    'are removed in order of their deadlines, whatever the order of arrival, seed %i',
    seed => {
      const random = new SeededRandom(seed)
      const deadlines = Array.from({ length: 80 }, () => random.below(40))
      const waiting = deadlines.map(deadlineMs => waitingPublish('queue', { deadlineMs }))
      const buffer = filledWith(bufferWith(), ...waiting)
      const sorted = [...deadlines].sort((a, b) => a - b)
      for (let nowMs = 0; nowMs < 40; nowMs += 1) {
        const late = buffer.takeLate(nowMs).map(({ deadlineMs }) => deadlineMs)
        expect(late).toEqual(sorted.filter(deadlineMs => deadlineMs === nowMs))
      }
    },
  )

  it('leave those without a deadline', () => {
    const endless = waitingPublish('queue')
    const buffer = filledWith(bufferWith(), endless, waitingPublish('queue', { deadlineMs: 100 }))
    expect(buffer.takeLate(100)).toHaveLength(1)
    expect(buffer.takeLate(Number.MAX_VALUE)).toEqual([])
    expect(drained(buffer)).toEqual([endless])
  })
})

/** Publishes that are kept in memory. */
function keptBy(holder: unknown, seen = new Set<unknown>()): Set<Publication> {
  if (typeof holder !== 'object' || holder === null || seen.has(holder)) return new Set()
  seen.add(holder)
  if (holder instanceof Publication)
    return new Set([holder, ...keptBy(holder.before, seen), ...keptBy(holder.after, seen)])
  const parts = holder instanceof Map ? [...holder.values()] : Object.values(holder)
  return new Set(parts.flatMap(part => [...keptBy(part, seen)]))
}

describe('settled publishes', () => {
  it.each(KEPT)('leave no memory of %s before their deadline', mode => {
    const buffer = bufferWith()
    const waiting = Array.from({ length: 50 }, (_, at) =>
      waitingPublish(mode, { topic: `t/${at}`, deadlineMs: 1e9 }),
    )
    filledWith(buffer, ...waiting)
    expect(keptBy(buffer).size).toBe(50)
    drained(buffer)
    expect(keptBy(buffer).size).toBe(0)
  })

  it('are few next to a publish that keeps waiting, and remove no deadline', () => {
    const buffer = bufferWith()
    const first = waitingPublish('queue', { deadlineMs: 500 })
    filledWith(buffer, first)
    for (let n = 0; n < 1_000; n += 1) {
      const one = waitingPublish('queue', { deadlineMs: 1_000 - n })
      filledWith(buffer, one)
      buffer.remove(one)
      expect(keptBy(buffer).size).toBeLessThanOrEqual(70)
    }
    expect(buffer.takeLate(500)).toEqual([first])
  })
})

describe('removed messages', () => {
  it('are removed once', () => {
    const one = waitingPublish('queue')
    const buffer = filledWith(bufferWith(), one, waitingPublish('queue'))
    expect([buffer.remove(one), buffer.remove(one)]).toEqual([true, false])
  })

  it('are in the order of arrival, whatever their policy and QoS', () => {
    const modes = ['queue', 'wait', 'queue', 'wait', 'drop'] as const
    const waiting = modes.map((mode, at) => waitingPublish(mode, { qos: at % 2 === 0 ? 1 : 0 }))
    const buffer = filledWith(bufferWith(), ...waiting)
    expect(buffer.takeAll(({ mode }) => mode !== 'drop')).toEqual(waiting.slice(0, 4))
    expect(drained(buffer)).toEqual(waiting.slice(4))
  })

  it('leave the others, from whichever position they are removed', () => {
    for (const removed of [0, 1, 2]) {
      const waiting = several('queue', 3)
      const buffer = filledWith(bufferWith(), ...waiting)
      const [one] = waiting.splice(removed, 1)
      if (one !== undefined) buffer.remove(one)
      expect(drained(buffer)).toEqual(waiting)
    }
  })
})

describe('many tiny messages under drop', () => {
  it('are also limited in number', () => {
    const buffer = bufferWith()
    const waiting = Array.from({ length: 20_000 }, (_, at) =>
      waitingPublish('drop', { bytes: 1, deadlineMs: at }),
    )
    for (const one of waiting) expect(buffer.add(one, 1e9).isAdmitted).toBe(true)
    expect(buffer.add(waitingPublish('drop', { bytes: 1 }), 1e9)).toEqual({
      isAdmitted: false,
      reason: 'backlog',
    })
    expect(buffer.takeLate(9_999)).toHaveLength(10_000)
    expect(buffer.nextDeadlineMs).toBe(10_000)
  })
})

describe('the oldest', () => {
  it('is the first waiting message', () => {
    const waiting = [50, 10, 30].map(enteredMs => waitingPublish('queue', { enteredMs }))
    const buffer = filledWith(bufferWith(), ...waiting)
    expect(buffer.oldestMs()).toBe(10)
    buffer.takeAll(({ enteredMs }) => enteredMs === 10)
    expect(buffer.oldestMs()).toBe(30)
  })
})

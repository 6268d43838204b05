import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TopicLanes } from '../../../../src/transport/inbound/topic-lanes.js'

interface Item {
  readonly topic: string
  readonly n: number
}

/** Items from words such as "a1 a2 b1": the topic and a number. */
const items = (text: string): Item[] =>
  text.split(' ').map(word => ({ topic: word.slice(0, 1), n: Number(word.slice(1)) }))
const name = (item: Item | undefined): string | undefined => item && `${item.topic}${item.n}`

function lanesWith(text: string): TopicLanes<Item> {
  const lanes = new TopicLanes<Item>()
  for (const item of items(text)) lanes.add(item)
  return lanes
}

/** Takes until nothing is free. */
function takeAll(lanes: TopicLanes<Item>): (string | undefined)[] {
  const taken: (string | undefined)[] = []
  for (let item = lanes.take(); item !== undefined; item = lanes.take()) taken.push(name(item))
  return taken
}

describe('TopicLanes', () => {
  it('have nothing to take when they are empty', () => {
    const lanes = new TopicLanes<Item>()
    expect(lanes.take()).toBeUndefined()
    expect(lanes.size).toBe(0)
  })

  it('take one of each topic, and the next of a topic when it is released', () => {
    const lanes = lanesWith('a1 a2 b1 a3 c1 b2')
    expect(takeAll(lanes)).toEqual(['a1', 'b1', 'c1'])
    lanes.release('b')
    expect(takeAll(lanes)).toEqual(['b2'])
    lanes.release('a')
    expect(takeAll(lanes)).toEqual(['a2'])
    lanes.release('a')
    expect(takeAll(lanes)).toEqual(['a3'])
  })

  it('let the topics take turns, so that a busy one does not starve the others', () => {
    const lanes = lanesWith('a1 a2 a3 b1 c1')
    const order: (string | undefined)[] = []
    for (let item = lanes.take(); item !== undefined; item = lanes.take()) {
      order.push(name(item))
      lanes.release(item.topic)
    }
    expect(order).toEqual(['a1', 'b1', 'c1', 'a2', 'a3'])
  })

  it('keep a topic busy for what comes while it is', () => {
    const lanes = lanesWith('a1')
    expect(name(lanes.take())).toBe('a1')
    lanes.add({ topic: 'a', n: 2 })
    expect(lanes.take()).toBeUndefined()
    expect(lanes.size).toBe(1)
    lanes.release('a')
    expect(name(lanes.take())).toBe('a2')
  })

  it('count what waits, and not what was taken', () => {
    const lanes = lanesWith('a1 a2 b1')
    expect(lanes.size).toBe(3)
    lanes.take()
    expect(lanes.size).toBe(2)
    lanes.release('a')
    expect(lanes.size).toBe(2)
  })

  it('take no harm from the release of a topic that they do not know', () => {
    const lanes = lanesWith('a1')
    lanes.release('z')
    expect(takeAll(lanes)).toEqual(['a1'])
  })

  it('begin anew with a topic that was released when nothing waited', () => {
    const lanes = lanesWith('a1')
    lanes.take()
    lanes.release('a')
    lanes.add({ topic: 'a', n: 2 })
    expect(takeAll(lanes)).toEqual(['a2'])
  })

  it('keep no memory of topics that are done', () => {
    const lanes = new TopicLanes<Item>()
    for (let n = 0; n < 100; n++) {
      lanes.add({ topic: `taken ${n}`, n })
      lanes.take()
      lanes.release(`taken ${n}`)
      const removed = { topic: `removed ${n}`, n }
      lanes.add(removed)
      lanes.remove(removed)
    }
    const held = Object.values(lanes).flatMap(value =>
      value instanceof Map || value instanceof Set ? [value.size] : [],
    )
    expect(held).toEqual([0, 0])
  })

  it.each(['__proto__', 'constructor', ''])('take the topic %j for one like any other', topic => {
    const lanes = new TopicLanes<Item>()
    lanes.add({ topic, n: 1 })
    expect(lanes.take()).toEqual({ topic, n: 1 })
  })
})

describe('TopicLanes.remove', () => {
  it('takes out one that waits, wherever it stands', () => {
    const all = items('a1 a2 a3 b1')
    const lanes = new TopicLanes<Item>()
    for (const item of all) lanes.add(item)
    const [, second] = all
    if (second !== undefined) lanes.remove(second)
    expect(lanes.size).toBe(3)
    expect(takeAll(lanes)).toEqual(['a1', 'b1'])
    lanes.release('a')
    expect(takeAll(lanes)).toEqual(['a3'])
  })

  it('leaves an empty topic behind that is not taken', () => {
    const lanes = new TopicLanes<Item>()
    const item = { topic: 'a', n: 1 }
    lanes.add(item)
    lanes.remove(item)
    expect(lanes.size).toBe(0)
    expect(lanes.take()).toBeUndefined()
    lanes.add(item)
    expect(lanes.take()).toBe(item)
  })

  it('keeps a busy topic busy', () => {
    const lanes = lanesWith('a1')
    lanes.take()
    const waiting = { topic: 'a', n: 2 }
    lanes.add(waiting)
    lanes.remove(waiting)
    lanes.add({ topic: 'a', n: 3 })
    expect(lanes.take()).toBeUndefined()
    lanes.release('a')
    expect(takeAll(lanes)).toEqual(['a3'])
  })

  it('goes by identity, and ignores what does not wait', () => {
    const lanes = lanesWith('a1 b1')
    lanes.remove({ topic: 'a', n: 1 })
    lanes.remove({ topic: 'z', n: 1 })
    const taken = lanes.take()
    if (taken !== undefined) lanes.remove(taken)
    expect(lanes.size).toBe(1)
  })
})

describe('TopicLanes.removeAll', () => {
  it('takes out all that fulfil the condition, in the order of each topic', () => {
    const lanes = lanesWith('a1 b1 a2 b2 a3')
    expect(lanes.removeAll(item => item.n !== 2).map(name)).toEqual(['a1', 'a3', 'b1'])
    expect(lanes.size).toBe(2)
    expect(takeAll(lanes)).toEqual(['a2', 'b2'])
  })

  it('does not reach what was taken', () => {
    const lanes = lanesWith('a1 a2')
    lanes.take()
    expect(lanes.removeAll(() => true).map(name)).toEqual(['a2'])
    expect(lanes.size).toBe(0)
    lanes.release('a')
    expect(lanes.take()).toBeUndefined()
  })

  it('takes nothing when nothing fits', () => {
    const lanes = lanesWith('a1 b1')
    expect(lanes.removeAll(() => false)).toEqual([])
    expect(lanes.size).toBe(2)
  })
})

describe('any use of TopicLanes', () => {
  it('keeps each topic in order and one at a time, loses nothing and counts right', () => {
    const step = fc.oneof(
      { arbitrary: fc.record({ add: fc.constantFrom('a', 'b', 'c') }), weight: 3 },
      { arbitrary: fc.constant('take' as const), weight: 3 },
      { arbitrary: fc.constant('release' as const), weight: 2 },
      fc.record({ remove: fc.nat(5) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), steps => {
        const lanes = new TopicLanes<Item>()
        const waiting: Item[] = []
        const busy: string[] = []
        let n = 0
        for (const current of steps) {
          if (current === 'take') {
            const item = lanes.take()
            const free = waiting.filter(one => !busy.includes(one.topic))
            if (item === undefined) {
              expect(free).toEqual([])
            } else {
              expect(busy).not.toContain(item.topic)
              expect(waiting.find(one => one.topic === item.topic)).toBe(item)
              waiting.splice(waiting.indexOf(item), 1)
              busy.push(item.topic)
            }
          } else if (current === 'release') {
            const topic = busy.shift()
            if (topic !== undefined) lanes.release(topic)
          } else if ('add' in current) {
            const item = { topic: current.add, n: n++ }
            waiting.push(item)
            lanes.add(item)
          } else {
            const [item] = waiting.splice(current.remove, 1)
            if (item !== undefined) lanes.remove(item)
          }
          expect(lanes.size).toBe(waiting.length)
        }
      }),
      { numRuns: 500 },
    )
  })
})

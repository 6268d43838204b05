import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RunScheduler, type ScheduledRun } from '../../../../src/core/inbound/run-scheduler.js'

interface Item {
  readonly key: string
  readonly n: number
}

interface Handler {
  readonly concurrency: number
  readonly isPassive: boolean
}

/** The runs of one handler without limits: what remains are the lanes of its keys. */
class Lanes {
  private readonly handler: Handler = { concurrency: Number.POSITIVE_INFINITY, isPassive: false }
  private readonly scheduler = new RunScheduler<Handler, ScheduledRun<Handler>>(Number.POSITIVE_INFINITY)
  private readonly runs = new Map<Item, ScheduledRun<Handler>>()
  private readonly busy = new Map<string, ScheduledRun<Handler>>()

  get size(): number {
    return this.scheduler.size
  }

  /** Keys in memory. */
  get keys(): number {
    const queues = Object.values(this.scheduler).find(value => value instanceof WeakMap)
    return queues?.get(this.handler)?.lanes.size ?? 0
  }

  add(item: Item): void {
    const run = this.runs.get(item) ?? newRun(this.handler, item.key)
    this.runs.set(item, run)
    this.scheduler.add(run)
  }

  /** @returns whether it was taken at once */
  begin(item: Item): boolean {
    const run = newRun(this.handler, item.key)
    const hasBegun = this.scheduler.begin(run)
    if (hasBegun) this.busy.set(item.key, run)
    return hasBegun
  }

  take(): Item | undefined {
    const taken = this.scheduler.take()
    if (taken !== undefined) this.busy.set(taken.key ?? '', taken)
    return [...this.runs].find(([, run]) => run === taken)?.[0]
  }

  release({ key }: Item): void {
    this.scheduler.release(this.busy.get(key) ?? newRun(this.handler, key))
    this.busy.delete(key)
  }

  remove(item: Item): void {
    this.scheduler.remove(this.runs.get(item) ?? newRun(this.handler, item.key))
  }
}

const newRun = (handler: Handler, key: string): ScheduledRun<Handler> => ({
  handler,
  key,
  state: 'waiting',
  openRequests: 0,
  holdsLane: false,
  isTracked: false,
})

/** Items from words such as "a1 a2 b1": the topic and a number. */
const items = (text: string): Item[] =>
  text.split(' ').map(word => ({ key: word.slice(0, 1), n: Number(word.slice(1)) }))
const name = (item: Item | undefined): string | undefined => item && `${item.key}${item.n}`

function lanesWith(text: string): Lanes {
  const lanes = new Lanes()
  for (const item of items(text)) lanes.add(item)
  return lanes
}

/** Takes until nothing is free. */
function takeAll(lanes: Lanes): (string | undefined)[] {
  const taken: (string | undefined)[] = []
  for (let item = lanes.take(); item !== undefined; item = lanes.take()) taken.push(name(item))
  return taken
}

describe('the lanes of RunScheduler', () => {
  it('return no run when they are empty', () => {
    const lanes = new Lanes()
    expect(lanes.take()).toBeUndefined()
    expect(lanes.size).toBe(0)
  })

  it('return one run of each topic, and the next of a topic when it is released', () => {
    const lanes = lanesWith('a1 a2 b1 a3 c1 b2')
    expect(takeAll(lanes)).toEqual(['a1', 'b1', 'c1'])
    lanes.release({ key: 'b', n: 0 })
    expect(takeAll(lanes)).toEqual(['b2'])
    lanes.release({ key: 'a', n: 0 })
    expect(takeAll(lanes)).toEqual(['a2'])
    lanes.release({ key: 'a', n: 0 })
    expect(takeAll(lanes)).toEqual(['a3'])
  })

  it('alternate between topics, so that a busy one does not starve the others', () => {
    const lanes = lanesWith('a1 a2 a3 b1 c1')
    const order: (string | undefined)[] = []
    for (let item = lanes.take(); item !== undefined; item = lanes.take()) {
      order.push(name(item))
      lanes.release(item)
    }
    expect(order).toEqual(['a1', 'b1', 'c1', 'a2', 'a3'])
  })

  it('keep a topic busy for later runs', () => {
    const lanes = lanesWith('a1')
    expect(name(lanes.take())).toBe('a1')
    lanes.add({ key: 'a', n: 2 })
    expect(lanes.take()).toBeUndefined()
    expect(lanes.size).toBe(1)
    lanes.release({ key: 'a', n: 0 })
    expect(name(lanes.take())).toBe('a2')
  })

  it('count waiting runs, not taken ones', () => {
    const lanes = lanesWith('a1 a2 b1')
    expect(lanes.size).toBe(3)
    lanes.take()
    expect(lanes.size).toBe(2)
    lanes.release({ key: 'a', n: 0 })
    expect(lanes.size).toBe(2)
  })

  it('let a run start at once only if its lane is free', () => {
    const lanes = new Lanes()
    const [first, second, other] = items('a1 a2 b1')
    if (!first || !second || !other) throw new Error('three items')
    expect([lanes.begin(first), lanes.begin(second), lanes.begin(other)]).toEqual([true, false, true])
    lanes.release(first)
    expect(lanes.begin(second)).toBe(true)
  })

  it('ignore the release of an unknown topic', () => {
    const lanes = lanesWith('a1')
    lanes.release({ key: 'z', n: 0 })
    expect(takeAll(lanes)).toEqual(['a1'])
  })

  it('start again with a topic that was released while nothing waited', () => {
    const lanes = lanesWith('a1')
    lanes.take()
    lanes.release({ key: 'a', n: 0 })
    lanes.add({ key: 'a', n: 2 })
    expect(takeAll(lanes)).toEqual(['a2'])
  })

  it('keep no memory of finished topics', () => {
    const lanes = new Lanes()
    for (let n = 0; n < 100; n++) {
      lanes.add({ key: `taken ${n}`, n })
      lanes.take()
      lanes.release({ key: `taken ${n}`, n })
      const removed = { key: `removed ${n}`, n }
      lanes.add(removed)
      lanes.remove(removed)
    }
    expect(lanes.keys).toBe(0)
  })

  it.each(['__proto__', 'constructor', ''])('treat the key %j like any other', key => {
    const lanes = new Lanes()
    lanes.add({ key, n: 1 })
    expect(lanes.take()).toEqual({ key, n: 1 })
  })
})

describe('RunScheduler.remove', () => {
  it('removes a waiting run at any position', () => {
    const all = items('a1 a2 a3 b1')
    const lanes = new Lanes()
    for (const item of all) lanes.add(item)
    const [, second] = all
    if (second !== undefined) lanes.remove(second)
    expect(lanes.size).toBe(3)
    expect(takeAll(lanes)).toEqual(['a1', 'b1'])
    lanes.release({ key: 'a', n: 0 })
    expect(takeAll(lanes)).toEqual(['a3'])
  })

  it('leaves an empty topic that is not taken', () => {
    const lanes = new Lanes()
    const item = { key: 'a', n: 1 }
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
    const waiting = { key: 'a', n: 2 }
    lanes.add(waiting)
    lanes.remove(waiting)
    lanes.add({ key: 'a', n: 3 })
    expect(lanes.take()).toBeUndefined()
    lanes.release({ key: 'a', n: 0 })
    expect(takeAll(lanes)).toEqual(['a3'])
  })

  it('compares by identity, and ignores runs that do not wait', () => {
    const lanes = lanesWith('a1 b1')
    lanes.remove({ key: 'a', n: 1 })
    lanes.remove({ key: 'z', n: 1 })
    const taken = lanes.take()
    if (taken !== undefined) lanes.remove(taken)
    expect(lanes.size).toBe(1)
  })
})

describe('any use of the lanes', () => {
  it('keeps each topic in order and one at a time, loses nothing and counts correctly', () => {
    const step = fc.oneof(
      { arbitrary: fc.record({ add: fc.constantFrom('a', 'b', 'c') }), weight: 3 },
      { arbitrary: fc.constant('take' as const), weight: 3 },
      { arbitrary: fc.constant('release' as const), weight: 2 },
      fc.record({ remove: fc.nat(5) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), steps => {
        const lanes = new Lanes()
        const waiting: Item[] = []
        const busy: string[] = []
        let n = 0
        for (const current of steps) {
          if (current === 'take') {
            const item = lanes.take()
            const free = waiting.filter(one => !busy.includes(one.key))
            if (item === undefined) {
              expect(free).toEqual([])
            } else {
              expect(busy).not.toContain(item.key)
              expect(waiting.find(one => one.key === item.key)).toBe(item)
              waiting.splice(waiting.indexOf(item), 1)
              busy.push(item.key)
            }
          } else if (current === 'release') {
            const topic = busy.shift()
            if (topic !== undefined) lanes.release({ key: topic, n: 0 })
          } else if ('add' in current) {
            const item = { key: current.add, n: n++ }
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

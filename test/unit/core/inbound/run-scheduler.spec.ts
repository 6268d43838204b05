import { describe, expect, it } from 'vitest'
import { RunScheduler, type ScheduledRun } from '../../../../src/core/inbound/run-scheduler.js'
import { SeededRandom } from '../../../support/seeded-random.js'

interface Handler {
  readonly name: string
  readonly concurrency: number
  readonly isPassive: boolean
}
interface Run extends ScheduledRun<Handler> {
  readonly n: number
}

const handler = (name: string, concurrency = 10, isPassive = false): Handler => ({
  name,
  concurrency,
  isPassive,
})
const run = (of: Handler, key: string | undefined, n: number): Run => ({
  handler: of,
  key,
  n,
  state: 'waiting',
  openRequests: 0,
  holdsLane: false,
  isTracked: false,
})

function takeAll(scheduler: RunScheduler<Handler, Run>): Run[] {
  const taken: Run[] = []
  for (let next = scheduler.take(); next !== undefined; next = scheduler.take()) taken.push(next)
  return taken
}
const numbers = (runs: readonly Run[]) => runs.map(({ n }) => n)

describe('RunScheduler', () => {
  it('alternates between handlers', () => {
    const [a, b] = [handler('a'), handler('b')]
    const scheduler = new RunScheduler<Handler, Run>(10)
    for (const n of [1, 2, 3]) scheduler.add(run(a, undefined, n))
    for (const n of [4, 5]) scheduler.add(run(b, undefined, n))
    expect(numbers(takeAll(scheduler))).toEqual([1, 4, 2, 5, 3])
  })

  it('applies the limit of each handler, and that of all together', () => {
    const [a, b] = [handler('a', 1), handler('b', 5)]
    const scheduler = new RunScheduler<Handler, Run>(3)
    const first = run(a, undefined, 1)
    for (const one of [first, run(a, undefined, 2), ...[3, 4, 5].map(n => run(b, undefined, n))])
      scheduler.add(one)
    expect(numbers(takeAll(scheduler))).toEqual([1, 3, 4])
    expect(scheduler.size).toBe(2)
    scheduler.release(first)
    expect(numbers(takeAll(scheduler))).toEqual([5])
  })

  it('runs passive handlers beyond the limit of all', () => {
    const [a, loop] = [handler('a'), handler('loop', Number.POSITIVE_INFINITY, true)]
    const scheduler = new RunScheduler<Handler, Run>(1)
    for (const n of [1, 2]) scheduler.add(run(a, undefined, n))
    for (const n of [3, 4, 5]) scheduler.add(run(loop, undefined, n))
    expect(numbers(takeAll(scheduler))).toEqual([3, 4, 5, 1])
  })

  it('releases the slot of a paused run, and keeps its lane', () => {
    const a = handler('a')
    const scheduler = new RunScheduler<Handler, Run>(1)
    const first = run(a, 'k', 1)
    for (const one of [first, run(a, 'k', 2), run(a, 'other', 3)]) scheduler.add(one)
    expect(numbers(takeAll(scheduler))).toEqual([1])
    scheduler.pause(first)
    expect(numbers(takeAll(scheduler))).toEqual([3])
  })

  it('gives a paused run a slot before all waiting runs, within the limit', () => {
    const a = handler('a')
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [first, second, third] = [1, 2, 3].map(n => run(a, undefined, n))
    if (!first || !second || !third) throw new Error('three runs')
    for (const one of [first, second, third]) scheduler.add(one)
    scheduler.take()
    scheduler.pause(first)
    scheduler.take()
    scheduler.resume(first)
    expect(takeAll(scheduler)).toEqual([])
    scheduler.release(second)
    expect(numbers(takeAll(scheduler))).toEqual([1])
    scheduler.release(first)
    expect(numbers(takeAll(scheduler))).toEqual([3])
  })

  it('releases the slot of a run that waits for a response, and lets it continue above the limit', () => {
    const a = handler('a', 1)
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [first, second, third] = [1, 2, 3].map(n => run(a, undefined, n))
    if (!first || !second || !third) throw new Error('three runs')
    for (const one of [first, second, third]) scheduler.add(one)
    scheduler.take()
    scheduler.countRequests(first, 1)
    scheduler.countRequests(first, 1)
    expect(numbers(takeAll(scheduler))).toEqual([2])
    scheduler.countRequests(first, -1)
    scheduler.countRequests(first, -1)
    scheduler.release(second)
    expect(takeAll(scheduler)).toEqual([])
    scheduler.release(first)
    expect(numbers(takeAll(scheduler))).toEqual([3])
  })

  it('takes no slot for a response that arrives after the run has returned', () => {
    const a = handler('a', 1)
    const scheduler = new RunScheduler<Handler, Run>(1)
    const first = run(a, undefined, 1)
    for (const one of [first, run(a, undefined, 2)]) scheduler.add(one)
    scheduler.take()
    scheduler.countRequests(first, 1)
    scheduler.release(first)
    scheduler.countRequests(first, -1)
    expect(numbers(takeAll(scheduler))).toEqual([2])
  })

  it('releases a slot of untracked runs for each unknown request', () => {
    const a = handler('a', 2)
    const scheduler = new RunScheduler<Handler, Run>(2)
    const runs = [1, 2, 3, 4, 5].map(n => run(a, undefined, n))
    for (const one of runs) scheduler.add(one)
    const [first, second] = takeAll(scheduler)
    if (!first || !second) throw new Error('two runs')
    scheduler.startTracking()
    scheduler.lendUnknown(3)
    expect(numbers(takeAll(scheduler))).toEqual([3, 4])
    scheduler.release(first)
    scheduler.release(second)
    expect(takeAll(scheduler)).toEqual([])
    expect(scheduler.untrackedRuns).toBe(0)
  })

  it('keeps no memory of idle handlers', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    for (let n = 0; n < 100; n += 1) {
      const one = run(handler(`taken ${n}`, 1), 'k', n)
      scheduler.add(one)
      scheduler.take()
      scheduler.release(one)
      const removed = run(handler(`removed ${n}`), 'k', n)
      scheduler.add(removed)
      scheduler.remove(removed)
    }
    const held = Object.values(scheduler).flatMap(value =>
      value instanceof Map || value instanceof Set ? [value.size] : [],
    )
    expect(held).toEqual([0, 0, 0])
    const weak = Object.values(scheduler).filter(value => value instanceof WeakMap)
    expect(weak).toHaveLength(1)
  })

  it('keeps no memory of runs without a key', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const a = handler('a')
    for (let n = 0; n < 3; n += 1) {
      const one = run(a, undefined, n)
      scheduler.add(one)
      scheduler.take()
      scheduler.release(one)
    }
    const queues = Object.values(scheduler).find(value => value instanceof WeakMap)
    expect(queues?.get(a)?.lanes.size).toBe(0)
  })

  it('ignores the release of an unknown handler', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    scheduler.release(run(handler('unknown'), 'k', 1))
    expect(scheduler.take()).toBeUndefined()
  })
})

/** Runs of one handler that have been added. */
function added(of: Handler, count: number, scheduler: RunScheduler<Handler, Run>): Run[] {
  const runs = Array.from({ length: count }, (_, index) => run(of, undefined, index + 1))
  for (const one of runs) scheduler.add(one)
  return runs
}

describe('a run that starts at once', () => {
  const begun = (concurrency = 10) => {
    const scheduler = new RunScheduler<Handler, Run>(concurrency)
    const begin = (of: Handler, key?: string): boolean => scheduler.begin(run(of, key, 0))
    return { scheduler, begin }
  }

  it('works, and holds its slot and its lane until it is released', () => {
    const { scheduler } = begun(1)
    const a = handler('a')
    const first = run(a, 'k', 1)
    expect(scheduler.begin(first)).toBe(true)
    expect(first).toMatchObject({ state: 'working', holdsLane: true, isTracked: false })
    expect(scheduler.held).toBe(1)
    scheduler.add(run(a, 'k', 2))
    expect(scheduler.take()).toBeUndefined()
    scheduler.release(first)
    expect(first).toMatchObject({ state: 'returned', holdsLane: false })
    expect(scheduler.held).toBe(0)
    expect(numbers(takeAll(scheduler))).toEqual([2])
  })

  it('is within the limit of its handler, and that of all together', () => {
    const { begin } = begun(3)
    const [a, b] = [handler('a', 2), handler('b')]
    expect([begin(a), begin(a), begin(a), begin(b), begin(b)]).toEqual([true, true, false, true, false])
  })

  it('of a passive handler is only within the limit of that handler, and leaves the slots of the others', () => {
    const { scheduler, begin } = begun(1)
    const [a, loop] = [handler('a'), handler('loop', 2, true)]
    expect([begin(loop), begin(loop), begin(loop)]).toEqual([true, true, false])
    expect([scheduler.held, scheduler.untrackedRuns]).toEqual([0, 0])
    expect([begin(a), begin(a)]).toEqual([true, false])
  })

  it('does not overtake a run with the same key, or a waiting run of any handler that could start', () => {
    const { scheduler, begin } = begun(3)
    const [a, b, loop] = [handler('a'), handler('b'), handler('loop', 10, true)]
    expect([begin(a, 'k'), begin(a, 'k'), begin(b, 'k')]).toEqual([true, false, true])
    scheduler.add(run(a, 'k', 3))
    // It waits for its lane, not for a slot.
    expect(begin(b, 'other')).toBe(true)
    scheduler.add(run(a, undefined, 4))
    expect([begin(a), begin(b), begin(loop)]).toEqual([false, false, true])
  })

  it('does not overtake a paused run that waits for its slot', () => {
    const { scheduler, begin } = begun(2)
    const a = handler('a')
    const paused = run(a, 'k', 1)
    scheduler.begin(paused)
    scheduler.pause(paused)
    expect(paused.state).toBe('paused')
    expect(begin(a, 'b')).toBe(true)
    scheduler.resume(paused)
    expect([begin(a, 'c'), begin(handler('b'))]).toEqual([false, false])
    expect(takeAll(scheduler)).toEqual([paused])
  })

  it('does not overtake runs of its own passive handler, waiting or paused', () => {
    const { scheduler, begin } = begun()
    const loop = handler('loop', 10, true)
    const paused = run(loop, undefined, 1)
    scheduler.begin(paused)
    scheduler.pause(paused)
    scheduler.resume(paused)
    scheduler.add(run(loop, undefined, 2))
    expect(begin(loop)).toBe(false)
    expect(numbers(takeAll(scheduler))).toEqual([1, 2])
  })

  it('is tracked once requests are', () => {
    const { scheduler } = begun()
    const a = handler('a')
    const [before, after, taken] = [1, 2, 3].map(n => run(a, undefined, n))
    if (!before || !after || !taken) throw new Error('three runs')
    scheduler.begin(before)
    scheduler.startTracking()
    scheduler.begin(after)
    scheduler.add(taken)
    scheduler.take()
    expect([before.isTracked, after.isTracked, taken.isTracked]).toEqual([false, true, true])
    expect(scheduler.untrackedRuns).toBe(1)
  })

  it('may exceed the limits by the slots that untracked runs have lent', () => {
    const { scheduler, begin } = begun(2)
    const [a, b] = [handler('a', 2), handler('b', 2)]
    expect([begin(a), begin(a)]).toEqual([true, true])
    scheduler.startTracking()
    scheduler.lendUnknown(1)
    expect([begin(a), begin(a), begin(b)]).toEqual([true, false, false])
    scheduler.lendUnknown(9)
    expect([begin(a), begin(a), begin(b)]).toEqual([true, false, false])
  })
})

describe('a run that waits for responses', () => {
  it('lends its slot only while it works', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [first] = added(handler('a'), 3, scheduler)
    scheduler.take()
    if (!first) throw new Error('a run')
    scheduler.countRequests(first, 1)
    expect([scheduler.held, first.openRequests]).toEqual([0, 1])
    scheduler.pause(first)
    scheduler.countRequests(first, -1)
    expect([scheduler.held, first.openRequests]).toEqual([0, 0])
    scheduler.resume(first)
    expect(scheduler.take()).toBe(first)
    expect(scheduler.held).toBe(1)
  })

  it('lends its slot again if it is resumed with open requests', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [first] = added(handler('a'), 1, scheduler)
    scheduler.take()
    if (!first) throw new Error('a run')
    scheduler.pause(first)
    scheduler.countRequests(first, 1)
    scheduler.resume(first)
    scheduler.take()
    expect([first.state, scheduler.held]).toEqual(['working', 0])
  })

  it('holds no slot when it is released', () => {
    const scheduler = new RunScheduler<Handler, Run>(2)
    const [first, second] = added(handler('a'), 2, scheduler)
    takeAll(scheduler)
    if (!first || !second) throw new Error('two runs')
    scheduler.countRequests(first, 1)
    scheduler.release(first)
    expect(scheduler.held).toBe(1)
    scheduler.release(second)
    expect(scheduler.held).toBe(0)
  })
})

describe('a paused run', () => {
  it('is paused only while it works', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [first] = added(handler('a'), 1, scheduler)
    if (!first) throw new Error('a run')
    scheduler.pause(first)
    expect([first.state, scheduler.held]).toEqual(['waiting', 0])
    scheduler.take()
    scheduler.pause(first)
    scheduler.pause(first)
    expect([first.state, scheduler.held, scheduler.untrackedRuns]).toEqual(['paused', 0, 0])
  })

  it('holds no slot when it is released', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [first] = added(handler('a'), 1, scheduler)
    if (!first) throw new Error('a run')
    scheduler.take()
    scheduler.pause(first)
    scheduler.release(first)
    expect([scheduler.held, scheduler.untrackedRuns]).toEqual([0, 0])
  })

  it('that waits for a slot can be taken out, whatever its handler waits for', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [a, limited, loop] = [handler('a'), handler('limited', 1), handler('loop', 1, true)]
    const runs = [a, limited, loop].map((of, n) => run(of, undefined, n))
    for (const one of runs) scheduler.begin(one)
    for (const one of runs) scheduler.pause(one)
    scheduler.begin(run(limited, undefined, 9))
    for (const one of runs) scheduler.resume(one)
    expect(new Set(scheduler.takeResuming())).toEqual(new Set(runs))
    expect(scheduler.takeResuming()).toEqual([])
  })
})

describe('the release of a run', () => {
  it('makes room for its handler, whether runs wait, or paused ones, or both', () => {
    const scheduler = new RunScheduler<Handler, Run>(10)
    const a = handler('a', 1)
    const [paused, second] = [run(a, undefined, 1), run(a, undefined, 2)]
    scheduler.begin(paused)
    scheduler.pause(paused)
    scheduler.begin(second)
    scheduler.resume(paused)
    scheduler.add(run(a, undefined, 3))
    expect(scheduler.take()).toBeUndefined()
    expect(scheduler.release(second)).toBe(true)
    expect(scheduler.take()).toBe(paused)
  })

  it('reports whether another one may be taken', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    const [a, loop] = [handler('a'), handler('loop', 1, true)]
    const [first, second] = [run(a, undefined, 1), run(loop, undefined, 2)]
    for (const one of [first, second]) scheduler.begin(one)
    expect(scheduler.release(run(handler('unknown'), undefined, 0))).toBe(false)
    scheduler.add(run(loop, undefined, 3))
    expect(scheduler.release(first)).toBe(false)
    expect(scheduler.release(second)).toBe(true)
    takeAll(scheduler)
    scheduler.add(run(a, undefined, 4))
    scheduler.add(run(loop, undefined, 5))
    expect(scheduler.release(first)).toBe(true)
  })

  it('leaves the lane to the run that holds it', () => {
    const scheduler = new RunScheduler<Handler, Run>(10)
    const a = handler('a')
    const [first, second] = [run(a, 'k', 1), run(a, 'k', 2)]
    scheduler.begin(first)
    scheduler.release(first)
    scheduler.begin(second)
    scheduler.release(first)
    scheduler.add(run(a, 'k', 3))
    expect(scheduler.ahead(run(a, 'k', 4))).toBe(second)
    expect(scheduler.take()).toBeUndefined()
  })
})

describe('the run ahead of one that has not started', () => {
  it('is the one that holds its lane', () => {
    const scheduler = new RunScheduler<Handler, Run>(10)
    const [a, b] = [handler('a'), handler('b')]
    const first = run(a, 'k', 1)
    expect(scheduler.ahead(first)).toBeUndefined()
    scheduler.begin(first)
    const second = run(a, 'k', 2)
    scheduler.add(second)
    expect(scheduler.ahead(second)).toBe(first)
    scheduler.pause(first)
    expect(scheduler.ahead(second)).toBe(first)
    expect([scheduler.ahead(run(a, 'x', 3)), scheduler.ahead(run(b, 'k', 4))]).toEqual([undefined, undefined])
  })
})

describe('slots that untracked runs lend', () => {
  it('are as many as the untracked runs that work, without paused ones', () => {
    const scheduler = new RunScheduler<Handler, Run>(2)
    const [first, second, , , fifth] = added(handler('a', 2), 6, scheduler)
    if (!first || !second || !fifth) throw new Error('six runs')
    takeAll(scheduler)
    expect(scheduler.untrackedRuns).toBe(2)
    scheduler.startTracking()
    scheduler.pause(first)
    expect(scheduler.untrackedRuns).toBe(1)
    expect(numbers(takeAll(scheduler))).toEqual([3])
    scheduler.lendUnknown(2)
    expect(numbers(takeAll(scheduler))).toEqual([4])
    scheduler.resume(first)
    scheduler.release(second)
    expect(takeAll(scheduler)).toEqual([])
    scheduler.lendUnknown(0)
    expect(scheduler.untrackedRuns).toBe(0)
  })

  it('are given to handlers at their own limit as well as to those that wait for a slot of all', () => {
    const scheduler = new RunScheduler<Handler, Run>(2)
    const [a, b] = [handler('a', 1), handler('b', 1)]
    const runs = [run(a, undefined, 1), run(b, undefined, 2), run(a, undefined, 3), run(b, undefined, 4)]
    for (const one of runs) scheduler.add(one)
    expect(numbers(takeAll(scheduler))).toEqual([1, 2])
    scheduler.startTracking()
    scheduler.lendUnknown(2)
    expect(numbers(takeAll(scheduler))).toEqual([3, 4])
  })

  it('do not include those of released runs', () => {
    const scheduler = new RunScheduler<Handler, Run>(10)
    const of = handler('a', 1)
    const [first] = added(of, 1, scheduler)
    scheduler.take()
    scheduler.startTracking()
    if (first !== undefined) scheduler.release(first)
    scheduler.lendUnknown(5)
    expect([1, 2].map(n => scheduler.begin(run(of, undefined, n)))).toEqual([true, false])
  })

  it('are taken back when their requests have ended', () => {
    const scheduler = new RunScheduler<Handler, Run>(10)
    const of = handler('a', 1)
    added(of, 2, scheduler)
    takeAll(scheduler)
    scheduler.startTracking()
    scheduler.lendUnknown(1)
    scheduler.lendUnknown(0)
    expect(scheduler.take()).toBeUndefined()
    expect(scheduler.begin(run(handler('b'), undefined, 9))).toBe(true)
  })
})

/** The rules, said plainly. */
class Model {
  readonly waiting: Run[] = []
  readonly running: Run[] = []

  constructor(private readonly concurrency: number) {}

  mayRun(one: Run): boolean {
    const { handler: of, key } = one
    const own = this.running.filter(other => other.handler === of)
    const active = this.running.filter(other => !other.handler.isPassive)
    const isFirst = key === undefined || (this.waiting.find(other => isBehind(other, one)) ?? one) === one
    return (
      isFirst &&
      own.length < of.concurrency &&
      (of.isPassive || active.length < this.concurrency) &&
      !own.some(other => isBehind(other, one))
    )
  }
}

/** Whether one must wait for the other. */
function isBehind(other: Run, one: Run): boolean {
  return one.key !== undefined && other.handler === one.handler && other.key === one.key
}

describe.each(Array.from({ length: 20 }, (_, seed) => seed + 1))('any use of RunScheduler, seed %i', seed => {
  it('starts all possible runs in order, within every limit, and loses none', () => {
    const random = new SeededRandom(seed)
    const concurrency = 1 + random.below(5)
    const handlers = Array.from({ length: 1 + random.below(4) }, (_, index) =>
      handler(`h${index}`, 1 + random.below(4), random.chance(0.2)),
    )
    const scheduler = new RunScheduler<Handler, Run>(concurrency)
    const model = new Model(concurrency)
    for (let n = 0; n < 400; n += 1) {
      const of = handlers[random.below(handlers.length)] ?? handler('none')
      const step = random.below(10)
      if (step < 4) {
        const one = run(of, random.pick([undefined, 'a', 'b', 'c']), n)
        if (step < 2 && scheduler.begin(one)) {
          expect(model.mayRun(one)).toBe(true)
          model.running.push(one)
        } else {
          scheduler.add(one)
          model.waiting.push(one)
        }
      } else if (step < 7) {
        const taken = scheduler.take()
        if (taken === undefined) expect(model.waiting.filter(one => model.mayRun(one))).toEqual([])
        else {
          expect(model.mayRun(taken)).toBe(true)
          model.waiting.splice(model.waiting.indexOf(taken), 1)
          model.running.push(taken)
        }
      } else if (step < 9) {
        const [ended] = model.running.splice(random.below(model.running.length || 1), 1)
        if (ended !== undefined) scheduler.release(ended)
      } else {
        const [gone] = model.waiting.splice(random.below(model.waiting.length || 1), 1)
        if (gone !== undefined) {
          expect(scheduler.remove(gone)).toBe(true)
          expect(scheduler.remove(gone)).toBe(false)
        }
      }
      expect(scheduler.size).toBe(model.waiting.length)
    }
  })
})

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
      const one = run(handler(`taken ${n}`), 'k', n)
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

  it('ignores the release of an unknown handler', () => {
    const scheduler = new RunScheduler<Handler, Run>(1)
    scheduler.release(run(handler('unknown'), 'k', 1))
    expect(scheduler.take()).toBeUndefined()
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
    const isFirst = key === undefined || this.waiting.find(other => isBehind(other, one)) === one
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
        scheduler.add(one)
        model.waiting.push(one)
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

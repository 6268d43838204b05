import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nextSrvRecord, type SrvRecord, srvKey } from '../../../../src/core/connection/reconnect-rules.js'

const record = (name: string, priority: number, weight: number): SrvRecord => ({
  name,
  port: 1883,
  priority,
  weight,
})

const STEPS = 10_000

/** How often each record is chosen, over random numbers at equal distances. */
function shares(records: readonly SrvRecord[], tried: ReadonlySet<string> = new Set()): Map<string, number> {
  const counts = new Map<string, number>()
  for (let step = 0; step < STEPS; step += 1) {
    const name = nextSrvRecord(records, tried, step / STEPS)?.name ?? 'none'
    counts.set(name, (counts.get(name) ?? 0) + 1 / STEPS)
  }
  return counts
}

describe('the next SRV record', () => {
  it('is chosen in proportion to its weight', () => {
    const counts = shares([record('a', 1, 60), record('b', 1, 20), record('c', 1, 20)])
    expect(counts.get('a')).toBeCloseTo(0.6, 3)
    expect(counts.get('b')).toBeCloseTo(0.2, 3)
    expect(counts.get('c')).toBeCloseTo(0.2, 3)
  })

  it('with the weight 0 has a very small chance beside records with a weight', () => {
    const counts = shares([record('a', 1, 99), record('zero', 1, 0)])
    expect(counts.get('zero')).toBeCloseTo(0.01, 3)
    expect(counts.get('a')).toBeCloseTo(0.99, 3)
  })

  it('is chosen evenly if no record has a weight', () => {
    const counts = shares([record('a', 1, 0), record('b', 1, 0), record('c', 1, 0), record('d', 1, 0)])
    for (const share of counts.values()) expect(share).toBeCloseTo(0.25, 3)
    expect(counts.size).toBe(4)
  })

  it('is one of a higher priority number only after all of the lower one were tried', () => {
    const records = [record('spare', 2, 100), record('a', 1, 1), record('b', 1, 1)]
    expect([...shares(records).keys()].sort()).toEqual(['a', 'b'])
    expect([...shares(records, new Set(['a:1883'])).keys()]).toEqual(['b'])
    expect([...shares(records, new Set(['a:1883', 'b:1883'])).keys()]).toEqual(['spare'])
  })

  it('is none when all were tried', () => {
    expect(nextSrvRecord([record('a', 1, 1)], new Set(['a:1883']), 0)).toBeUndefined()
    expect(nextSrvRecord([], new Set(), 0.5)).toBeUndefined()
  })

  it('visits every record once, by priority, whatever the random numbers', () => {
    const anyRecord = fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
      port: fc.integer({ min: 1, max: 3 }),
      priority: fc.integer({ min: 0, max: 3 }),
      weight: fc.integer({ min: 0, max: 65_535 }),
    })
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    const records = fc.uniqueArray(anyRecord, { selector: srvKey, minLength: 1 })
    fc.assert(
      fc.property(records, fc.array(random, { minLength: 18, maxLength: 18 }), (given, randoms) => {
        const tried = new Set<string>()
        const order: number[] = []
        for (const value of randoms) {
          const next = nextSrvRecord(given, tried, value)
          if (next === undefined) break
          expect(tried.has(srvKey(next))).toBe(false)
          tried.add(srvKey(next))
          order.push(next.priority)
        }
        expect(tried.size).toBe(given.length)
        expect(order).toEqual(order.toSorted((a, b) => a - b))
      }),
    )
  })
})

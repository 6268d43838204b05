import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import type { ResolvedBackoff } from '../../../../src/core/connection/reconnect-rules.js'
import { reconnectDelayMs } from '../../../../src/core/connection/reconnect-rules.js'
import { MqttError } from '../../../../src/core/errors.js'

const cause = new MqttError('CONNECT_FAILED', 'refused')
const DAY_MS = 86_400_000

describe('a list of delays', () => {
  it.each([
    [1, 100],
    [2, 200],
    [3, 400],
    [4, 400],
    [1_000_000, 400],
  ])('before retry %i is %i ms: the last value repeats', (attempt, delayMs) => {
    expect(reconnectDelayMs([100, 200, 400], attempt, cause, 0, 0.5)).toBe(delayMs)
  })

  it('may contain one delay, and zero', () => {
    expect(reconnectDelayMs([0], 1, cause, 0, 0.9)).toBe(0)
    expect(reconnectDelayMs([0], 7, cause, 0, 0.9)).toBe(0)
  })
})

describe('a growing delay without jitter', () => {
  const rule: ResolvedBackoff = { min: 500, max: 30_000, jitter: 'none' }

  it.each([
    [1, 500],
    [2, 1_000],
    [3, 2_000],
    [6, 16_000],
    [7, 30_000],
    [8, 30_000],
    [1_024, 30_000],
    [5_000, 30_000],
  ])('before retry %i is %i ms', (attempt, delayMs) => {
    for (const random of [0, 0.5, 0.999])
      expect(reconnectDelayMs(rule, attempt, cause, 0, random)).toBe(delayMs)
  })
})

describe('a growing delay with full jitter', () => {
  const rule: ResolvedBackoff = { min: 500, max: 30_000, jitter: 'full' }

  it.each([
    [1, 0, 250],
    [1, 0.5, 375],
    [1, 1, 500],
    [2, 0, 250],
    [2, 0.5, 625],
    [2, 1, 1_000],
    [7, 0, 250],
    [7, 1, 30_000],
    [99, 1, 30_000],
  ])('before retry %i with the random number %d is %d ms', (attempt, random, delayMs) => {
    expect(reconnectDelayMs(rule, attempt, cause, 0, random)).toBe(delayMs)
  })
})

describe('a growing delay with decorrelated jitter', () => {
  const rule: ResolvedBackoff = { min: 500, max: 30_000, jitter: 'decorrelated' }

  it.each([
    [0, 0, 500],
    [0, 1, 500],
    [500, 0, 500],
    [500, 0.5, 1_000],
    [500, 1, 1_500],
    [1_500, 1, 4_500],
    [20_000, 0.5, 30_000],
    [30_000, 0, 500],
    [30_000, 1, 30_000],
  ])('after %i ms with the random number %d is %d ms', (previousMs, random, delayMs) => {
    expect(reconnectDelayMs(rule, 5, cause, previousMs, random)).toBe(delayMs)
  })
})

describe('every growing delay', () => {
  it('is a whole number of milliseconds within the bounds', () => {
    const anyRule = fc
      .tuple(fc.integer({ min: 1, max: DAY_MS }), fc.integer({ min: 1, max: DAY_MS }))
      .chain(([a, b]) =>
        fc.record({
          min: fc.constant(Math.min(a, b)),
          max: fc.constant(Math.max(a, b)),
          jitter: fc.constantFrom('full', 'decorrelated', 'none'),
        }),
      )
    fc.assert(
      fc.property(
        anyRule,
        fc.integer({ min: 1, max: 10_000 }),
        fc.integer({ min: 0, max: DAY_MS }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (rule, attempt, previousMs, random) => {
          const delayMs = reconnectDelayMs(rule, attempt, cause, previousMs, random)
          expect(Number.isInteger(delayMs)).toBe(true)
          expect(delayMs).toBeGreaterThanOrEqual(Math.floor(rule.min / 2))
          expect(delayMs).toBeLessThanOrEqual(rule.max)
        },
      ),
    )
  })
})

describe('a delay by a function of the application', () => {
  it('receives the number of consecutive failures and the last cause', () => {
    const rule = vi.fn(() => 42)
    expect(reconnectDelayMs(rule, 3, cause, 0, 0.5)).toBe(42)
    expect(rule).toHaveBeenCalledExactlyOnceWith(3, cause)
  })

  it.each([
    [-1, 0],
    [0, 0],
    [DAY_MS, DAY_MS],
    [DAY_MS + 1, DAY_MS],
    [1e300, DAY_MS],
  ])('turns %d into %i', (result, delayMs) => {
    expect(reconnectDelayMs(() => result, 1, cause, 0, 0.5)).toBe(delayMs)
  })

  it.each([
    ['is no number', Number.NaN],
    ['never ends', Number.POSITIVE_INFINITY],
    ['is minus infinity', Number.NEGATIVE_INFINITY],
  ])('falls back to the default growing delay if the result %s', (_what, result) => {
    expect(reconnectDelayMs(() => result, 1, cause, 0, 1)).toBe(500)
    expect(reconnectDelayMs(() => result, 3, cause, 0, 1)).toBe(2_000)
    expect(reconnectDelayMs(() => result, 99, cause, 0, 1)).toBe(30_000)
    expect(reconnectDelayMs(() => result, 99, cause, 0, 0)).toBe(250)
  })

  it.each([undefined, null, '500', {}])('falls back if a function without types returns %j', result => {
    const rule = () => result
    expect(Reflect.apply(reconnectDelayMs, undefined, [rule, 1, cause, 0, 1])).toBe(500)
  })

  it('falls back if it throws, so that reconnecting continues', () => {
    const rule = () => {
      throw new Error('bug of the application')
    }
    expect(reconnectDelayMs(rule, 2, cause, 0, 1)).toBe(1_000)
  })
})

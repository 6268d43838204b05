import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isPowerOfTwo } from '../../src/log-thinning.js'

describe('isPowerOfTwo', () => {
  it.each([1, 2, 4, 8, 16, 1_024, 2 ** 31, 2 ** 32, 2 ** 52])('is true at %d', count => {
    expect(isPowerOfTwo(count)).toBe(true)
  })

  it.each([
    0,
    -1,
    -2,
    3,
    5,
    6,
    7,
    9,
    1_023,
    1_025,
    2 ** 31 - 1,
    2 ** 31 + 1,
    2 ** 32 + 1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
  ])('is false at %d', count => {
    expect(isPowerOfTwo(count)).toBe(false)
  })

  it('is true at most 32 times while a counter runs to 2^32, so a log stays short', () => {
    const powers = Array.from({ length: 32 }, (_, exponent) => 2 ** exponent)
    expect(powers.every(isPowerOfTwo)).toBe(true)
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        count => isPowerOfTwo(count) === powers.includes(count),
      ),
    )
  })
})

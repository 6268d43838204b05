import { describe, expect, it } from 'vitest'
import { RecentCount } from '../../../src/core/log-lines.js'

describe('RecentCount', () => {
  it('counts what happened within the period', () => {
    const count = new RecentCount(60_000)
    for (const nowMs of [1_000_000, 1_000_001, 1_030_000]) count.happened(nowMs)
    expect(count.within(1_054_999)).toBe(3)
    expect(count.within(1_060_000)).toBe(1)
    expect(count.within(1_090_000)).toBe(0)
  })

  it('forgets everything after a pause that is longer than the period', () => {
    const count = new RecentCount(60_000)
    for (let second = 0; second < 60; second += 1) count.happened(second * 1_000)
    expect(count.within(59_999)).toBe(60)
    expect(count.within(10_000_000_000)).toBe(0)
    count.happened(10_000_000_000)
    expect(count.within(10_000_000_001)).toBe(1)
  })

  it('agrees with a list of times, to one twelfth of the period', () => {
    const count = new RecentCount(1_200)
    const times: number[] = []
    for (let nowMs = 5_000; nowMs < 20_000; nowMs += 37) {
      if (nowMs % 3 === 0) {
        count.happened(nowMs)
        times.push(nowMs)
      }
      const startOfPart = Math.floor(nowMs / 100) * 100
      expect(count.within(nowMs)).toBe(times.filter(time => time >= startOfPart - 1_100).length)
    }
  })
})

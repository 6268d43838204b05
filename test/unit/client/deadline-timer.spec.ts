import { describe, expect, it, vi } from 'vitest'
import { DeadlineTimer } from '../../../src/client/waits.js'
import { holdClock } from '../../support/held-clock.js'

const LONGEST_MS = 0x7fff_ffff

holdClock()

/** A timer, and when it swept, counted from now. */
function sweeper() {
  const startMs = performance.now()
  const swept: number[] = []
  const timer = new DeadlineTimer(() => swept.push(performance.now() - startMs))
  return { swept, timer, arm: (delayMs: number) => timer.arm(startMs + delayMs) }
}

describe('DeadlineTimer', () => {
  it('sweeps once when the deadline has passed', () => {
    const { swept, arm } = sweeper()
    arm(500)
    vi.advanceTimersByTime(499)
    expect(swept).toEqual([])
    vi.advanceTimersByTime(10_000)
    expect(swept).toEqual([500])
  })

  it('follows the first of several deadlines with one timer', () => {
    const { swept, arm } = sweeper()
    arm(500)
    arm(300)
    arm(400)
    expect(vi.getTimerCount()).toBe(1)
    vi.advanceTimersByTime(10_000)
    expect(swept).toEqual([300])
  })

  it('accepts a later deadline after the sweep', () => {
    const { swept, arm } = sweeper()
    arm(100)
    vi.advanceTimersByTime(100)
    arm(700)
    vi.advanceTimersByTime(10_000)
    expect(swept).toEqual([100, 700])
  })

  it('can be armed by the sweep itself', () => {
    let sweeps = 0
    const timer: DeadlineTimer = new DeadlineTimer(() => {
      sweeps += 1
      if (sweeps < 3) timer.arm(performance.now() + 50)
    })
    timer.arm(performance.now() + 50)
    vi.advanceTimersByTime(10_000)
    expect(sweeps).toBe(3)
  })

  it('makes one sweep for many close deadlines, and for one in the past', () => {
    const { swept, arm } = sweeper()
    for (let delayMs = 5; delayMs >= -5; delayMs -= 1) arm(delayMs)
    vi.advanceTimersByTime(10_000)
    expect(swept).toEqual([10])
  })

  it('has no timer without a deadline', () => {
    const { arm } = sweeper()
    arm(Number.POSITIVE_INFINITY)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('does not fire at once for a deadline beyond the maximum delay of a timer', () => {
    const { swept, arm } = sweeper()
    arm(2 * LONGEST_MS)
    vi.advanceTimersByTime(LONGEST_MS - 1)
    expect(swept).toEqual([])
    vi.advanceTimersByTime(1)
    expect(swept).toEqual([LONGEST_MS])
  })

  it('stops, and can be armed again', () => {
    const { swept, timer, arm } = sweeper()
    arm(100)
    timer.stop()
    expect(vi.getTimerCount()).toBe(0)
    arm(900)
    vi.advanceTimersByTime(10_000)
    expect(swept).toEqual([900])
  })
})

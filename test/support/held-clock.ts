import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, beforeEach, expect, vi } from 'vitest'

/** Streams need the real event loop; only what measures time is held by the test. */
const CLOCK = ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance', 'Date'] as const

/** Holds the clock for every test of a file, and fails a test that leaves a timer behind. */
export function holdClock(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: [...CLOCK] })
  })
  afterEach(() => {
    // The store of `mqtt` announces its end 200 ms late.
    vi.advanceTimersByTime(200)
    const left = vi.getTimerCount()
    vi.useRealTimers()
    expect(left).toBe(0)
  })
}

/** Lets everything happen that would happen without the clock. */
export async function quiet(turns = 10): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await nextTurn()
}

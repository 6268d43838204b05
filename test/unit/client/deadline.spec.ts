import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { settlesWithin } from '../../../src/client/waits.js'

beforeEach(() => {
  vi.useFakeTimers()
})

afterEach(() => {
  vi.useRealTimers()
})

describe('settlesWithin', () => {
  it('returns true if the work resolves in time, and leaves no timer', async () => {
    await expect(settlesWithin(Promise.resolve('whatever'), 1_000)).resolves.toBe(true)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('returns true if the work rejects in time, and handles the rejection', async () => {
    await expect(settlesWithin(Promise.reject(new Error('failed')), 1_000)).resolves.toBe(true)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('returns false exactly at the time limit', async () => {
    const answer = vi.fn<(inTime: boolean) => void>()
    void settlesWithin(new Promise(() => {}), 1_000).then(answer)
    await vi.advanceTimersByTimeAsync(999)
    expect(answer).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1)
    expect(answer).toHaveBeenCalledExactlyOnceWith(false)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('returns true for work that settles one millisecond earlier', async () => {
    let finish = () => {}
    const work = new Promise<void>(resolve => {
      finish = resolve
    })
    const inTime = settlesWithin(work, 1_000)
    await vi.advanceTimersByTimeAsync(999)
    finish()
    await expect(inTime).resolves.toBe(true)
    expect(vi.getTimerCount()).toBe(0)
  })

  it.each(['resolves', 'rejects'])('still returns false if the work %s later', async how => {
    let finish = () => {}
    const late = new Promise((resolve, reject) => {
      finish = () => (how === 'resolves' ? resolve(1) : reject(new Error('late')))
    })
    const inTime = settlesWithin(late, 1_000)
    await vi.advanceTimersByTimeAsync(2_000)
    finish()
    await expect(inTime).resolves.toBe(false)
  })

  it('waits one turn with a limit of zero, so that finished work is in time', async () => {
    await expect(settlesWithin(Promise.resolve(), 0)).resolves.toBe(true)
    const never = settlesWithin(new Promise(() => {}), 0)
    await vi.advanceTimersByTimeAsync(0)
    await expect(never).resolves.toBe(false)
  })
})

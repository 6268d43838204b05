import { afterEach, describe, expect, it, vi } from 'vitest'
import { waitFor } from '../../../src/client/waits.js'

describe('a wait with limits', () => {
  afterEach(() => {
    vi.useRealTimers()
    vi.restoreAllMocks()
  })

  // A timer of Node.js with a longer time fires after 1 ms.
  it.each([Number.POSITIVE_INFINITY, 2 ** 31])(
    'has no time limit with a timeoutMs of %d',
    async timeoutMs => {
      vi.useFakeTimers()
      const ended = vi.fn()
      const wait = waitFor('answer', { timeoutMs }, settle => {
        setTimeout(settle, 1_000)
        return ended
      })
      await vi.advanceTimersByTimeAsync(1_000)
      await expect(wait).resolves.toBeUndefined()
      expect(ended).toHaveBeenCalledOnce()
    },
  )

  it('ends with TIMEOUT after the longest time that a timer has', async () => {
    vi.useFakeTimers()
    const wait = waitFor('answer', { timeoutMs: 2 ** 31 - 1 }, () => () => undefined)
    const failure = expect(wait).rejects.toMatchObject({ code: 'TIMEOUT' })
    await vi.advanceTimersByTimeAsync(2 ** 31 - 1)
    await failure
  })

  it('shares one signal with many others, and Node.js warns of no leak', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const ending = new AbortController()
    const { signal } = ending
    const waits = Array.from({ length: 30 }, () => waitFor('answer', { signal }, () => () => undefined))
    ending.abort()
    const results = await Promise.allSettled(waits)
    expect(results.map(({ status }) => status)).toEqual(waits.map(() => 'rejected'))
    expect(warned).not.toHaveBeenCalled()
  })
})

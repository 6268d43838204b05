import { expect, it, vi } from 'vitest'
import { Pauses } from '../../../src/client/waits.js'
import { holdClock, quiet } from '../../support/held-clock.js'

holdClock()

function waiting(pauses: Pauses, delayMs: number) {
  const state = { isOver: false }
  void pauses.wait(delayMs).then(() => {
    state.isOver = true
  })
  return state
}

it('a pause ends with its delay', async () => {
  const pause = waiting(new Pauses(), 100)
  vi.advanceTimersByTime(99)
  await quiet()
  expect(pause.isOver).toBe(false)
  vi.advanceTimersByTime(1)
  await quiet()
  expect(pause.isOver).toBe(true)
})

it('all of them end early together, and leave no timer', async () => {
  const pauses = new Pauses()
  const both = [waiting(pauses, 100), waiting(pauses, 1_000_000)]
  pauses.end()
  await quiet()
  expect(both.map(pause => pause.isOver)).toEqual([true, true])
  expect(vi.getTimerCount()).toBe(0)
  pauses.end()
})

import { describe, expect, it } from 'vitest'
import { IdleWaiters } from '../../../src/client/waits.js'
import { quiet } from '../../support/held-clock.js'

/** Waiters whose work the test ends, and the names of those that were woken. */
function waiters(isIdleNow = false) {
  const state = { isIdle: isIdleNow }
  const woken: string[] = []
  const idle = new IdleWaiters(() => state.isIdle)
  const wait = (name: string) => void idle.wait().then(() => woken.push(name))
  return { state, idle, wait, woken }
}

describe('IdleWaiters', () => {
  it('resolves at once when no work is left', async () => {
    const { wait, woken } = waiters(true)
    wait('a')
    await quiet()
    expect(woken).toEqual(['a'])
  })

  it('wakes all callers with the first check that finds no work', async () => {
    const { state, idle, wait, woken } = waiters()
    wait('a')
    wait('b')
    idle.check()
    await quiet()
    expect(woken).toEqual([])
    state.isIdle = true
    await quiet()
    expect(woken).toEqual([])
    idle.check()
    await quiet()
    expect(woken).toEqual(['a', 'b'])
  })

  it('accepts new callers afterwards, and wakes no caller twice', async () => {
    const { state, idle, wait, woken } = waiters()
    wait('a')
    state.isIdle = true
    idle.check()
    state.isIdle = false
    wait('b')
    idle.check()
    await quiet()
    expect(woken).toEqual(['a'])
    state.isIdle = true
    idle.check()
    idle.check()
    await quiet()
    expect(woken).toEqual(['a', 'b'])
  })

  it('does not check while no caller waits', async () => {
    let asked = 0
    const idle = new IdleWaiters(() => {
      asked += 1
      return asked > 1
    })
    idle.check()
    expect(asked).toBe(0)
    const woken = idle.wait()
    idle.check()
    await woken
    expect(asked).toBe(2)
    idle.check()
    expect(asked).toBe(2)
  })
})

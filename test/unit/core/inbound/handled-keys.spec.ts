import { expect, it } from 'vitest'
import { HandledKeys } from '../../../../src/core/inbound/inbound-count.js'

function keysUntil(limits: { maxAgeMs: number; maxEntries: number }) {
  const clock = { nowMs: 1_000 }
  return { clock, keys: new HandledKeys(limits, () => clock.nowMs) }
}

it('a handled message is forgotten at maxAgeMs, and removed with the next one', () => {
  const { clock, keys } = keysUntil({ maxAgeMs: 10, maxEntries: 100 })
  keys.add('a')
  clock.nowMs = 1_009
  expect(keys.has('a')).toBe(true)
  clock.nowMs = 1_010
  expect(keys.has('a')).toBe(false)
  keys.add('b')
  expect(keys.size).toBe(1)
})

it('the oldest handled messages are forgotten beyond maxEntries, over any number of messages', () => {
  const { keys } = keysUntil({ maxAgeMs: 10, maxEntries: 3 })
  for (let number = 0; number < 1_000; number += 1) keys.add(`${number}`)
  const known = Array.from({ length: 1_000 }, (_, number) => number).filter(number => keys.has(`${number}`))
  expect(known).toEqual([997, 998, 999])
  expect(keys.size).toBe(3)
})

it('a message that is added again is the newest', () => {
  const { keys } = keysUntil({ maxAgeMs: 10, maxEntries: 2 })
  for (const key of ['a', 'b', 'a', 'c']) keys.add(key)
  expect([keys.has('a'), keys.has('b'), keys.has('c')]).toEqual([true, false, true])
})

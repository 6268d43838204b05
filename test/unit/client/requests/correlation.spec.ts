import { expect, it } from 'vitest'
import { Correlation } from '../../../../src/client/requests/request-messages.js'

it('returns 16 bytes that are unique and do not change', () => {
  const correlation = new Correlation()
  const given = Array.from({ length: 1_000 }, () => correlation.next())
  const copies = given.map(data => data.toString('hex'))
  expect(new Set(copies).size).toBe(1_000)
  expect(given.every(data => data.length === 16)).toBe(true)
  for (let more = 0; more < 1_000; more += 1) correlation.next()
  expect(given.map(data => data.toString('hex'))).toEqual(copies)
})

it('is not the same for two connections', () => {
  expect(new Correlation().next()).not.toEqual(new Correlation().next())
})

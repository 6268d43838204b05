import { expect, it, vi } from 'vitest'
import { SharedGrant } from '../../../../src/client/requests/nest-envelope.js'

const turn = () => new Promise(resolve => setImmediate(resolve))

const SUBSCRIPTIONS = { flush: () => {}, isGranted: () => false }

it('subscribes once for many, and again after it has settled', async () => {
  const whenGranted = vi.fn(() => Promise.resolve())
  const grant = new SharedGrant({ ...SUBSCRIPTIONS, whenGranted }, 'responses')
  const told: unknown[] = []
  for (const name of ['a', 'b']) grant.wait(refused => told.push([name, refused]))
  expect(whenGranted).toHaveBeenCalledTimes(1)
  await turn()
  expect(told).toEqual([
    ['a', undefined],
    ['b', undefined],
  ])
  grant.wait(() => told.push('c'))
  await turn()
  expect(told.at(-1)).toBe('c')
  expect(whenGranted).toHaveBeenCalledTimes(2)
})

it('rejects all waits with the refusal, and keeps nothing of a wait that has ended', async () => {
  let refuse: (error: unknown) => void = () => {}
  const refused = new Promise<void>((_resolve, reject) => {
    refuse = reject
  })
  const grant = new SharedGrant({ ...SUBSCRIPTIONS, whenGranted: () => refused }, 'responses')
  const told: unknown[] = []
  grant.wait(error => told.push(error))
  const leave = grant.wait(() => told.push('left'))
  leave()
  leave()
  refuse('no')
  await turn()
  expect(told).toEqual(['no'])
})

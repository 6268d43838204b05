import { expect, it, vi } from 'vitest'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

it('observers of the status receive every change, and are not called for packets', async () => {
  const parts = await publisherOnPeer()
  const { mqtt, connection } = parts
  const seen: string[] = []
  const visits = vi.spyOn(Set.prototype, Symbol.iterator)
  const subscriptions = Array.from({ length: 100 }, () =>
    mqtt.status$.subscribe(({ status }) => seen.push(status)),
  )
  const early = mqtt.status$.subscribe(() => {})
  early.unsubscribe()
  seen.length = 0
  visits.mockClear()
  for (let count = 0; count < 10; count += 1) {
    const outcome = mqtt.publish('a', 1, { qos: 1 })
    const { messageId } = await connection.expect('publish')
    connection.send({ cmd: 'puback', ...(messageId === undefined ? {} : { messageId }) })
    expect(await outcome).toMatchObject({ status: 'acknowledged' })
  }
  expect(visits.mock.contexts.filter(set => set instanceof Set && set.size >= 100)).toEqual([])
  visits.mockRestore()
  await goOffline(parts)
  await comeBack(parts)
  expect(seen).toHaveLength(3 * 100)
  for (const subscription of subscriptions) subscription.unsubscribe()
  await finish(parts)
})

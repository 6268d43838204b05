import { expect, it } from 'vitest'
import { moment, publishesOf, replyTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

const properties = { userProperties: { status: 'next' }, responseTopic: 'responders/7' }
const sentTo = (topic: string, on: Awaited<ReturnType<typeof publisherOnPeer>>) =>
  publishesOf(on.connection).filter(packet => packet.topic === topic)

it('answers that were under way when the loop was left do not each cost a cancel', async () => {
  const on = await publisherOnPeer()
  const stream = on.mqtt.requestStream('ask', 1)
  await on.connection.grant()
  const request = await on.connection.expect('publish')
  on.connection.send(replyTo(request, { value: 1, properties }))
  for await (const value of stream) {
    expect(value).toBe(1)
    break
  }
  for (let value = 2; value <= 10; value += 1) on.connection.send(replyTo(request, { value, properties }))
  await moment()
  expect(sentTo('responders/7', on)).toHaveLength(1)
  await finish(on)
})

it('an answer that nobody asked for does not make this side publish where it says', async () => {
  const on = await publisherOnPeer()
  void on.mqtt.request('ask', 1).catch(() => {})
  await on.connection.grant()
  const { properties: own } = await on.connection.expect('publish')
  const foreign = { ...own, correlationData: Buffer.alloc(16, 7) }
  on.connection.send(
    replyTo({ properties: foreign }, { value: 1, properties: { responseTopic: 'garage/door/open' } }),
  )
  await moment()
  expect(sentTo('garage/door/open', on)).toEqual([])
  await finish(on)
})

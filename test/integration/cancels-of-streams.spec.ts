import { expect, it } from 'vitest'
import { moment, publishesOf, responseTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

const properties = { userProperties: { status: 'next' }, responseTopic: 'responders/7' }
const sentTo = (topic: string, on: Awaited<ReturnType<typeof publisherOnPeer>>) =>
  publishesOf(on.connection).filter(packet => packet.topic === topic)

it('responses that arrive after the end of the loop do not each cause a cancel', async () => {
  const on = await publisherOnPeer()
  const stream = on.mqtt.requestStream('ask', 1)
  await on.connection.grant()
  const request = await on.connection.expect('publish')
  on.connection.send(responseTo(request, { value: 1, properties }))
  for await (const value of stream) {
    expect(value).toBe(1)
    break
  }
  for (let value = 2; value <= 10; value += 1) on.connection.send(responseTo(request, { value, properties }))
  await moment()
  expect(sentTo('responders/7', on)).toHaveLength(1)
  await finish(on)
})

it('an unexpected response does not make this client publish to the topic that it names', async () => {
  const on = await publisherOnPeer()
  void on.mqtt.request('ask', 1).catch(() => {})
  await on.connection.grant()
  const { properties: own } = await on.connection.expect('publish')
  const foreign = { ...own, correlationData: Buffer.alloc(16, 7) }
  on.connection.send(
    responseTo({ properties: foreign }, { value: 1, properties: { responseTopic: 'garage/door/open' } }),
  )
  await moment()
  expect(sentTo('garage/door/open', on)).toEqual([])
  await finish(on)
})

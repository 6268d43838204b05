import { expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { quiet } from '../support/held-clock.js'
import { json, subscriberOnPeer } from '../support/subscriber-on-peer.js'

it('QoS 2 messages that wait for a loop are limited: nothing is read at the limit', async () => {
  const inbound = { maxQueued: 20, maxInFlight: 4 }
  const { session, mqtt, connection } = await subscriberOnPeer({ inbound, drainTimeoutMs: 10 })
  const loop = mqtt.messages<number>('a', { qos: 2 })
  await connection.grant()
  for (let messageId = 1; messageId <= 500; messageId += 1) {
    connection.send(json('a', messageId, { qos: 2, messageId }))
    connection.send({ cmd: 'pubrel', messageId })
  }
  await eventually(() => mqtt.stats().inbound.running > 20)
  await quiet(100)
  expect(mqtt.stats().inbound.running).toBe(inbound.maxQueued + inbound.maxInFlight + 1)
  for (let expected = 1; expected <= 500; expected += 1) {
    const { value } = await loop.next()
    expect(value?.payload).toBe(expected)
  }
  await loop.return?.()
  await session.close()
})

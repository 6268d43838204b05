import { expect, it } from 'vitest'
import { deadLetter } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { acks, qos1, subscriberOnPeer } from '../support/subscriber-on-peer.js'

const FAILING = { onFailure: deadLetter('dead') }

function fail(): never {
  throw new Error('broken')
}

it('a dead letter without a subscriber is logged', async () => {
  const { session, mqtt, connection, log } = await subscriberOnPeer({ drainTimeoutMs: 10 })
  mqtt.subscribe('a', fail, FAILING)
  await connection.grant()
  connection.send(qos1('a', 1))
  const { messageId = 0 } = await connection.find('publish')
  connection.send({ cmd: 'puback', messageId, reasonCode: 0x10 })
  await eventually(() => acks(connection).length === 1)
  expect(
    log.visible.filter(line => line.includes('nobody subscribes to the dead letter topic')),
  ).toHaveLength(1)
  await session.close()
})

it('a dead letter that is published on MQTT 3.1.1 after an outage contains the failure', async () => {
  const { peer, session, mqtt, connection } = await subscriberOnPeer({
    protocolVersion: 4,
    reconnect: { delayMs: [10] },
    drainTimeoutMs: 10,
  })
  let isLost = () => {}
  const lost = new Promise<void>(resolve => {
    isLost = resolve
  })
  mqtt.subscribe(
    'a',
    async () => {
      await lost
      fail()
    },
    FAILING,
  )
  await connection.grant()
  connection.send(qos1('a', 1))
  await eventually(() => mqtt.stats().inbound.running === 1)
  session.connection.attach({ lost: isLost })
  connection.cut()
  const again = await peer.accept()
  const letter = await again.find('publish')
  expect(JSON.parse(letter.payload.toString())).toMatchObject({ topic: 'a', pattern: 'a', reason: 'broken' })
  again.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
  await eventually(() => mqtt.stats().inbound.deadLettered === 1)
  await session.close()
})

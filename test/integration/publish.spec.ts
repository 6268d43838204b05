import { describe, expect, it } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { sessionOnPeer } from '../support/session-on-peer.js'

async function connected(
  options: Parameters<typeof sessionOnPeer>[0] = {},
  connack: Parameters<ReturnType<typeof sessionOnPeer>['peer']['accept']>[0] = {},
) {
  const { peer, session, log } = sessionOnPeer({ connect: 'background', ...options })
  const mqtt = new MqttService(session)
  await session.start()
  const connection = await peer.accept(connack)
  await session.connection.whenConnected()
  return { peer, session, log, mqtt, connection }
}

/** What the counters of a session must fulfil at any time. */
function addsUp(mqtt: MqttService): boolean {
  const { attempted, sent, acknowledged, refused, lost, inFlight, dropped } = mqtt.stats().outbound
  const sumOfDropped = Object.values(dropped).reduce((sum, count) => sum + count, 0)
  return attempted === sent + acknowledged + refused + lost + inFlight + sumOfDropped
}

const acknowledge = async (connection: PeerConnection, reasonCode: number, reasonString?: string) => {
  const { messageId = 0 } = await connection.expect('publish')
  const properties = reasonString === undefined ? {} : { properties: { reasonString } }
  connection.send({ cmd: 'puback', messageId, reasonCode, ...properties })
}

describe('the outcome of a publish', () => {
  it('QoS 0 is sent, with the payload of the codec', async () => {
    const { mqtt, session, connection } = await connected()
    expect(await mqtt.publish('t/1', { rate: 5 })).toEqual({ status: 'sent' })
    expect(mqtt.tryPublish('t/2', 'text', { codec: 'text', retain: true })).toEqual({ status: 'accepted' })
    expect(await mqtt.publish('t/3', Buffer.from([0xff, 0x00]))).toEqual({ status: 'sent' })
    const packets = [
      await connection.expect('publish'),
      await connection.expect('publish'),
      await connection.expect('publish'),
    ]
    expect(packets.map(packet => [packet.topic, packet.retain, packet.payload])).toEqual([
      ['t/1', false, Buffer.from('{"rate":5}')],
      ['t/2', true, Buffer.from('text')],
      ['t/3', false, Buffer.from([0xff, 0x00])],
    ])
    expect(addsUp(mqtt)).toBe(true)
    await session.close()
  })

  it('QoS 1 is acknowledged, also with 0x10 without a subscriber', async () => {
    const { mqtt, session, connection } = await connected()
    const outcomes = [mqtt.publish('t', 1, { qos: 1 }), mqtt.publish('t', 2, { qos: 1 })]
    await acknowledge(connection, 0)
    await acknowledge(connection, 0x10)
    expect(await Promise.all(outcomes)).toEqual([
      { status: 'acknowledged', reasonCode: 0 },
      { status: 'acknowledged', reasonCode: 0x10 },
    ])
    await session.close()
  })

  it('QoS 1 is refused with the Reason Code and Reason String of the broker', async () => {
    const { mqtt, session, connection } = await connected()
    const outcome = mqtt.publish('t', 1, { qos: 1 })
    await acknowledge(connection, 0x97, 'too much')
    expect(await outcome).toEqual({ status: 'refused', reasonCode: 0x97, reasonString: 'too much' })
    expect(addsUp(mqtt)).toBe(true)
    await session.close()
  })

  it('QoS 2 is acknowledged after PUBREC, PUBREL and PUBCOMP', async () => {
    const { mqtt, session, connection } = await connected()
    const outcome = mqtt.publish('t', 1, { qos: 2 })
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'pubrec', messageId, reasonCode: 0 })
    expect(await connection.expect('pubrel')).toMatchObject({ messageId })
    connection.send({ cmd: 'pubcomp', messageId, reasonCode: 0 })
    expect(await outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await session.close()
  })

  it('QoS 2 is refused by PUBREC', async () => {
    const { mqtt, session, connection } = await connected()
    const outcome = mqtt.publish('t', 1, { qos: 2 })
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'pubrec', messageId, reasonCode: 0x87 })
    expect(await outcome).toEqual({ status: 'refused', reasonCode: 0x87 })
    await session.close()
  })

  it('after a lost connection, sent publishes are lost and later ones are dropped as offline', async () => {
    const { mqtt, session, connection } = await connected()
    const outcomes = [mqtt.publish('t', 1, { qos: 1 }), mqtt.publish('t', 2, { qos: 2 })]
    await connection.expect('publish')
    connection.cut()
    expect(await Promise.all(outcomes)).toMatchObject([
      { status: 'lost', cause: { code: 'CONNECTION_LOST' } },
      { status: 'lost', cause: { code: 'CONNECTION_LOST' } },
    ])
    expect(await mqtt.publish('t', 3, { qos: 1 })).toEqual({ status: 'dropped', reason: 'offline' })
    expect(mqtt.tryPublish('t', 3)).toEqual({ status: 'dropped', reason: 'offline' })
    expect(addsUp(mqtt)).toBe(true)
    await session.close()
    expect(await mqtt.publish('t', 4)).toEqual({ status: 'dropped', reason: 'closed' })
    expect(addsUp(mqtt)).toBe(true)
  })

  it("is in-flight-full beyond the broker's Receive Maximum, and continues when an acknowledgement arrives", async () => {
    const { mqtt, session, connection } = await connected({}, { properties: { receiveMaximum: 2 } })
    const first = [mqtt.publish('t', 1, { qos: 1 }), mqtt.publish('t', 2, { qos: 1 })]
    expect(await mqtt.publish('t', 3, { qos: 1 })).toEqual({ status: 'dropped', reason: 'in-flight-full' })
    await acknowledge(connection, 0)
    await first[0]
    const fourth = mqtt.publish('t', 4, { qos: 1 })
    await acknowledge(connection, 0)
    await acknowledge(connection, 0)
    expect(await fourth).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await Promise.all(first)
    await session.close()
  })

  it('is backlog if the network accepts no bytes, and still settles', async () => {
    const { mqtt, session, connection } = await connected({ drainTimeoutMs: 0 })
    connection.stall()
    const payload = Buffer.alloc(10_000)
    const open = Array.from({ length: 100 }, () => mqtt.publish('t', payload))
    const outcomes = await Promise.all(open)
    const sent = outcomes.filter(outcome => outcome.status === 'sent').length
    expect(outcomes.at(-1)).toEqual({ status: 'dropped', reason: 'backlog' })
    // One message is more than the first window.
    expect(sent).toBe(1)
    expect(addsUp(mqtt)).toBe(true)
    await session.close()
  })
})

describe('an unacknowledged publish in a persistent session', () => {
  const kept = { clean: false, clientId: 'kept', reconnect: { delayMs: [0] } }

  it('is resent when the session is resumed: in order, with DUP and its Packet Identifier', async () => {
    const { mqtt, session, connection, peer } = await connected(kept, { properties: { receiveMaximum: 3 } })
    const outcomes = [
      mqtt.publish('t/1', 1, { qos: 1 }),
      mqtt.publish('t/2', 2, { qos: 2 }),
      mqtt.publish('t/3', 3, { qos: 2 }),
    ]
    const first = await connection.expect('publish')
    const second = await connection.expect('publish')
    const third = await connection.expect('publish')
    connection.send({ cmd: 'pubrec', messageId: third.messageId ?? 0, reasonCode: 0 })
    await connection.expect('pubrel')
    connection.cut()
    const resumed = await peer.accept({ sessionPresent: true, properties: { receiveMaximum: 2 } })
    // The PUBREC of the third message has arrived: it continues with PUBREL, before any PUBLISH.
    expect(await resumed.expect('pubrel')).toMatchObject({ messageId: third.messageId })
    expect(await resumed.expect('publish')).toMatchObject({
      topic: 't/1',
      dup: true,
      messageId: first.messageId,
    })
    resumed.send({ cmd: 'pubcomp', messageId: third.messageId ?? 0, reasonCode: 0 })
    // Now there is room for the second message.
    expect(await resumed.expect('publish')).toMatchObject({
      topic: 't/2',
      dup: true,
      messageId: second.messageId,
    })
    resumed.send({ cmd: 'puback', messageId: first.messageId ?? 0, reasonCode: 0 })
    resumed.send({ cmd: 'pubrec', messageId: second.messageId ?? 0, reasonCode: 0 })
    await resumed.expect('pubrel')
    resumed.send({ cmd: 'pubcomp', messageId: second.messageId ?? 0, reasonCode: 0 })
    expect((await Promise.all(outcomes)).map(outcome => outcome.status)).toEqual(
      Array(3).fill('acknowledged'),
    )
    expect(addsUp(mqtt)).toBe(true)
    await session.close()
  })

  it('is lost if the broker has lost the session, and its identifier is free again', async () => {
    const { mqtt, session, connection, peer } = await connected(kept)
    const outcome = mqtt.publish('t', 1, { qos: 1 })
    await connection.expect('publish')
    connection.cut()
    const fresh = await peer.accept({ sessionPresent: false })
    expect(await outcome).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_LOST' } })
    const next = mqtt.publish('t', 2, { qos: 1 })
    await acknowledge(fresh, 0)
    expect(await next).toMatchObject({ status: 'acknowledged' })
    expect(fresh.received.filter(packet => packet.cmd === 'publish')).toHaveLength(1)
    await session.close()
  })

  it('is lost if the application closes before the broker is available again', async () => {
    const { mqtt, session, connection, peer } = await connected({ ...kept, drainTimeoutMs: 0 })
    const outcome = mqtt.publish('t', 1, { qos: 1 })
    await connection.expect('publish')
    peer.refuse(1_000)
    connection.cut()
    await session.close()
    expect(await outcome).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_CLOSED' } })
    expect(addsUp(mqtt)).toBe(true)
  })
})

describe('an error that is known in advance is thrown', () => {
  const connack = { properties: { maximumQoS: 1, retainAvailable: false, maximumPacketSize: 100 } }
  it.each([
    ['a Topic Name with a wildcard', 'INVALID_TOPIC_NAME', 'a/#', 1, {}],
    ['an empty Topic Name', 'INVALID_TOPIC_NAME', '', 1, {}],
    ['a payload that the codec cannot encode', 'PAYLOAD_NOT_ENCODABLE', 'a', 1n, {}],
    ['QoS above Maximum QoS', 'QOS_NOT_SUPPORTED', 'a', 1, { qos: 2 as const }],
    ['retain where there is none', 'RETAIN_NOT_SUPPORTED', 'a', 1, { retain: true }],
    ['a packet above Maximum Packet Size', 'PACKET_TOO_LARGE', 'a', 'x'.repeat(100), {}],
  ])('%s', async (_name, code, topic, payload, options) => {
    const { mqtt, session, connection } = await connected({}, connack)
    await expect(mqtt.publish(topic, payload, options)).rejects.toMatchObject({ code })
    expect(await mqtt.publish('fine', 1)).toEqual({ status: 'sent' })
    expect((await connection.expect('publish')).topic).toBe('fine')
    expect(addsUp(mqtt)).toBe(true)
    await session.close()
  })

  it('and leaves its Packet Identifier free', async () => {
    const { mqtt, session, connection } = await connected(
      {},
      { properties: { maximumPacketSize: 50, receiveMaximum: 1 } },
    )
    await expect(mqtt.publish('a', 'x'.repeat(100), { qos: 1 })).rejects.toMatchObject({
      code: 'PACKET_TOO_LARGE',
    })
    const outcome = mqtt.publish('a', 1, { qos: 1 })
    await acknowledge(connection, 0)
    expect(await outcome).toMatchObject({ status: 'acknowledged' })
    await session.close()
  })
})

it('a burst in one turn is written together and loses nothing', async () => {
  const { mqtt, session, connection } = await connected()
  const outcomes = Array.from({ length: 200 }, (_, index) => mqtt.tryPublish('t', index))
  expect(outcomes.every(outcome => outcome.status === 'accepted')).toBe(true)
  for (let index = 0; index < 200; index += 1) {
    expect((await connection.expect('publish')).payload.toString()).toBe(String(index))
  }
  await session.close()
})

import { describe, expect, it } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, flow, goOffline, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

const topic = (index: number) => `device/${index}/state`

/** Topic Name and Topic Alias of every PUBLISH that arrived. */
async function heard(connection: PeerConnection): Promise<(readonly [string, number | undefined])[]> {
  await flow()
  return connection.received.flatMap(packet =>
    packet.cmd === 'publish' ? [[packet.topic, packet.properties?.topicAlias] as const] : [],
  )
}

const aliasing = (topicAliasMaximum: number, options: MqttModuleOptions = {}) =>
  publisherOnPeer(options, { properties: { topicAliasMaximum } })

describe('a broker that accepts Topic Aliases', () => {
  it('receives the alias with the topic first, and then with an empty Topic Name', async () => {
    const parts = await aliasing(10)
    for (const index of [1, 1, 2, 1, 2]) await parts.mqtt.publish(topic(index), index)
    expect(await heard(parts.connection)).toEqual([
      [topic(1), 1],
      ['', 1],
      [topic(2), 2],
      ['', 1],
      ['', 2],
    ])
    await finish(parts)
  })

  it('is not served by a second table of aliases in the client of `mqtt`', async () => {
    const parts = await aliasing(10)
    await parts.mqtt.publish(topic(1), 1)
    const client = parts.mqtt.unwrap<object>()
    expect(client).toHaveProperty('connected', true)
    expect(client).not.toHaveProperty('topicAliasSend')
    await finish(parts)
  })

  it('never receives more aliases than it allows: the least recently used one is assigned again', async () => {
    const parts = await aliasing(2)
    for (const index of [1, 2, 1, 3, 1, 2]) await parts.mqtt.publish(topic(index), index)
    expect(await heard(parts.connection)).toEqual([
      [topic(1), 1],
      [topic(2), 2],
      ['', 1],
      [topic(3), 2],
      ['', 1],
      [topic(2), 2],
    ])
    await finish(parts)
  })

  it.each([2, 10])('understands every topic, with up to %i aliases', async maximum => {
    const parts = await aliasing(maximum)
    const names = Array.from({ length: 200 }, (_, round) => topic((round * round) % 13))
    for (const [round, name] of names.entries()) {
      const qos = round % 3 === 0 ? 1 : 0
      const outcome = parts.mqtt.publish(name, round, { qos })
      await flow()
      if (qos === 1) {
        const { messageId = 0 } = await parts.connection.find('publish')
        parts.connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
      } else await parts.connection.find('publish')
      await outcome
    }
    const known = new Map<number, string>()
    const understood = (await heard(parts.connection)).map(([name, alias = 0]) => {
      expect(alias).toBeGreaterThanOrEqual(1)
      expect(alias).toBeLessThanOrEqual(maximum)
      if (name !== '') known.set(alias, name)
      return known.get(alias)
    })
    expect(understood).toEqual(names)
    await finish(parts)
  })

  it('receives them at every QoS, with retain and with properties of the application', async () => {
    const parts = await aliasing(10)
    const { mqtt, connection } = parts
    const properties = { userProperties: { key: 'value' }, contentType: 'text/plain' }
    await mqtt.publish(topic(1), 1, { properties })
    await mqtt.publish(topic(1), 2, { properties, retain: true })
    const outcome = mqtt.publish(topic(1), 3, { properties, qos: 2 })
    await flow()
    const packets = connection.received.filter(packet => packet.cmd === 'publish')
    expect(packets).toMatchObject([
      { topic: topic(1), qos: 0, retain: false },
      { topic: '', qos: 0, retain: true },
      { topic: '', qos: 2, retain: false },
    ])
    for (const packet of packets) {
      expect(packet.properties).toMatchObject({ ...properties, topicAlias: 1 })
      expect(packet.properties?.userProperties).toEqual({ key: 'value' })
    }
    const messageId = packets.at(-1)?.messageId ?? 0
    connection.send({ cmd: 'pubrec', messageId, reasonCode: 0 })
    connection.send({ cmd: 'pubcomp', messageId, reasonCode: 0 })
    expect(await outcome).toMatchObject({ status: 'acknowledged' })
    await finish(parts)
  })

  it('receives all of them again on the next connection', async () => {
    const parts = await aliasing(10)
    await parts.mqtt.publish(topic(1), 1)
    await parts.mqtt.publish(topic(2), 1)
    await goOffline(parts)
    const connection = await comeBack(parts, { properties: { topicAliasMaximum: 1 } })
    for (const index of [2, 2, 1]) await parts.mqtt.publish(topic(index), 1)
    expect(await heard(connection)).toEqual([
      [topic(2), 1],
      ['', 1],
      [topic(1), 1],
    ])
    await finish(parts)
  })

  it('receives the full topic of resent publishes on the next connection', async () => {
    const parts = await aliasing(10, { clean: false, clientId: 'kept' })
    const outcomes = [1, 2].map(value => parts.mqtt.publish(topic(1), value, { qos: 1 }))
    expect(await heard(parts.connection)).toEqual([
      [topic(1), 1],
      ['', 1],
    ])
    await goOffline(parts)
    const connection = await comeBack(parts, { sessionPresent: true, properties: { topicAliasMaximum: 10 } })
    for (const _outcome of outcomes) {
      const packet = await connection.expect('publish')
      expect(packet).toMatchObject({ topic: topic(1), dup: true })
      expect(packet.properties?.topicAlias).toBeUndefined()
      connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 })
    }
    expect(await Promise.all(outcomes)).toMatchObject([
      { status: 'acknowledged' },
      { status: 'acknowledged' },
    ])
    await parts.mqtt.publish(topic(1), 3)
    await parts.mqtt.publish(topic(1), 4)
    expect((await heard(connection)).slice(2)).toEqual([
      [topic(1), 1],
      ['', 1],
    ])
    await finish(parts)
  })

  it('receives no wrong alias after a publish that is refused in advance', async () => {
    const limits = { topicAliasMaximum: 10, maximumPacketSize: 100 }
    const parts = await publisherOnPeer({}, { properties: limits })
    await expect(parts.mqtt.publish(topic(1), 'x'.repeat(200))).rejects.toMatchObject({
      code: 'PACKET_TOO_LARGE',
    })
    await parts.mqtt.publish(topic(1), 1)
    expect(await heard(parts.connection)).toEqual([[topic(1), 1]])
    await finish(parts)
  })
})

describe('there is no Topic Alias', () => {
  it.each([
    ['where the broker takes 0', { properties: { topicAliasMaximum: 0 } }, {}],
    ['where the broker says nothing', {}, {}],
    [
      'where the option says so',
      { properties: { topicAliasMaximum: 10 } },
      { outbound: { topicAlias: false } },
    ],
    ['on MQTT 3.1.1', {}, { protocolVersion: 4 }],
  ] as const)('%s', async (_name, connack, options) => {
    const parts = await publisherOnPeer(options, connack)
    for (const index of [1, 1, 2]) await parts.mqtt.publish(topic(index), index)
    expect(await heard(parts.connection)).toEqual([1, 1, 2].map(index => [topic(index), undefined]))
    await finish(parts)
  })
})

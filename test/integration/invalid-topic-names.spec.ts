import { describe, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { failOnEscapedErrors, listening } from '../support/hostile-session.js'
import { acks, qos1, VERSIONS } from '../support/subscriber-on-peer.js'

failOnEscapedErrors()

interface Publish {
  readonly topic: string
  readonly messageId?: number
  readonly properties?: readonly number[]
}

/** A PUBLISH as no encoder writes it: at QoS 1 if it has a Packet Identifier, and at QoS 0 if not. */
function publishBytes(protocolVersion: 4 | 5, { topic, messageId, properties = [] }: Publish): Buffer {
  const name = Buffer.from(topic)
  const body = Buffer.concat([
    Buffer.from([0, name.length]),
    name,
    Buffer.from(messageId === undefined ? [] : [0, messageId]),
    Buffer.from(protocolVersion === 5 ? [properties.length, ...properties] : []),
    Buffer.from('1'),
  ])
  return Buffer.concat([Buffer.from([messageId === undefined ? 0x30 : 0x32, body.length]), body])
}

const TOPIC_ALIAS_MAXIMUM = { properties: { topicAliasMaximum: 10 } }
const TOPIC_ALIAS_3 = [0x23, 0, 3]

describe.each(VERSIONS)('MQTT %i: a PUBLISH whose Topic Name is not allowed', protocolVersion => {
  const wrong: (readonly [string, Publish, number, string])[] = [
    ['that is empty', { topic: '' }, 0x82, 'an empty Topic Name'],
    ['that is empty at QoS 1', { topic: '', messageId: 7 }, 0x82, 'an empty Topic Name'],
    ['with "+"', { topic: 'a/+/b' }, 0x90, 'the Topic Name "a/+/b", which contains a wildcard'],
    ['with "#"', { topic: 'a/#', messageId: 7 }, 0x90, 'the Topic Name "a/#", which contains a wildcard'],
    ['with U+0000', { topic: 'a\u0000b' }, 0x81, 'the Topic Name "a\\u0000b", which contains U+0000'],
  ]

  it.each(wrong)('%s ends the connection and runs no handler', async (_how, packet, reasonCode, text) => {
    const { connection, causes, peer, session, mqtt, log } = await listening({ protocolVersion })
    let runs = 0
    mqtt.subscribe('#', () => {
      runs += 1
    })
    await connection.grant()
    connection.sendBytes(publishBytes(protocolVersion, packet))
    await connection.closed()
    await eventually(() => causes.length === 1)
    expect(causes[0]).toMatchObject({ code: 'CONNECTION_LOST', reasonCode })
    expect(causes[0]?.message).toBe(`the broker sent PUBLISH with ${text}`)
    expect(log.visible.join('\n')).toContain(text)
    const last = connection.received.at(-1)
    if (protocolVersion === 5) expect(last).toMatchObject({ cmd: 'disconnect', reasonCode })
    else expect(last?.cmd).toBe('subscribe')
    expect({ runs, received: mqtt.stats().inbound.received, acks: acks(connection) }).toEqual({
      runs: 0,
      received: 0,
      acks: [],
    })
    // The client comes back, and works.
    const next = await peer.accept()
    await next.grant()
    next.send(qos1('a', 8))
    await eventually(() => runs === 1 && acks(next).includes(8))
    await session.close()
  })
})

describe('MQTT 5: an empty Topic Name with a Topic Alias', () => {
  it('is resolved to the topic of the alias', async () => {
    const { connection, causes, session, mqtt } = await listening({
      protocolVersion: 5,
      ...TOPIC_ALIAS_MAXIMUM,
    })
    const topics: string[] = []
    mqtt.subscribe('#', ({ topic }) => {
      topics.push(topic)
    })
    await connection.grant()
    for (const topic of ['a/b', ''])
      connection.sendBytes(publishBytes(5, { topic, properties: TOPIC_ALIAS_3 }))
    await eventually(() => topics.length === 2)
    expect({ topics, causes }).toEqual({ topics: ['a/b', 'a/b'], causes: [] })
    await session.close()
  })

  it('that is not assigned to a topic ends the connection', async () => {
    const { connection, causes, session } = await listening({ protocolVersion: 5, ...TOPIC_ALIAS_MAXIMUM })
    connection.sendBytes(publishBytes(5, { topic: '', properties: TOPIC_ALIAS_3 }))
    await connection.closed()
    await eventually(() => causes.length === 1)
    expect(causes[0]).toMatchObject({
      reasonCode: 0x82,
      message: 'the broker sent PUBLISH with an empty Topic Name',
    })
    expect(connection.received.at(-1)).toMatchObject({ cmd: 'disconnect', reasonCode: 0x82 })
    await session.close()
  })
})

describe.each(VERSIONS)('MQTT %i: a packet without its Packet Identifier', protocolVersion => {
  it.each([
    ['PUBLISH at QoS 1', publishBytes(protocolVersion, { topic: 'a', messageId: 0 })],
    ['PUBREL', Buffer.from('62020000', 'hex')],
  ])('ends the connection: %s', async (name, bytes) => {
    const { connection, causes, session } = await listening({ protocolVersion })
    connection.sendBytes(bytes)
    await connection.closed()
    await eventually(() => causes.length === 1)
    const [kind] = name.split(' ')
    expect(causes[0]?.message).toBe(`the broker sent ${kind} without a Packet Identifier`)
    if (protocolVersion === 5)
      expect(connection.received.at(-1)).toMatchObject({ cmd: 'disconnect', reasonCode: 0x82 })
    await session.close()
  })
})

import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../src/client/index.js'
import type { MqttConnectOptions } from '../../src/options/client-options.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { quiet } from '../support/held-clock.js'
import { VERSIONS } from '../support/subscriber-on-peer.js'
import { onWire, reconnected, TYPE, type Wire, wireAt, wireClient } from '../support/wire.js'

const KEPT = { clean: false, clientId: 'kept' } as const

const field = (bytes: Buffer | string): Buffer => {
  const content = Buffer.from(bytes)
  return Buffer.concat([Buffer.from([content.length >> 8, content.length & 0xff]), content])
}

/** A Variable Byte Integer. */
function integer(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  do {
    bytes.push((rest % 128) + (rest < 128 ? 0 : 128))
    rest = Math.floor(rest / 128)
  } while (rest > 0)
  return Buffer.from(bytes)
}

/** A PUBLISH as a broker may write it, well-formed or not. */
function publish(
  version: 4 | 5,
  given: { flags?: number; topic: Buffer | string; id?: number; properties?: Buffer; payload?: string },
): Buffer {
  const { flags = 0, topic, id, properties = Buffer.alloc(0), payload = '1' } = given
  const body = Buffer.concat([
    field(topic),
    Buffer.from(id === undefined ? [] : [id >> 8, id & 0xff]),
    version === 5 ? Buffer.concat([Buffer.from([properties.length]), properties]) : Buffer.alloc(0),
    Buffer.from(payload),
  ])
  return Buffer.concat([Buffer.from([0x30 | flags, body.length]), body])
}

const QOS_1 = 0b0010
const QOS_2 = 0b0100
const DUP = 0b1000

/** A client that is subscribed to everything, and what its handler received. */
async function receiving(options: MqttConnectOptions, handle?: () => Promise<void>) {
  const session = await onWire(options)
  const seen: { topic: string; payload: unknown }[] = []
  session.client.subscribe(
    '#',
    async ({ topic, payload }) => {
      seen.push({ topic, payload })
      await handle?.()
    },
    { qos: 2 },
  )
  const { body } = await session.wire.find(TYPE.subscribe)
  session.connection.send({ cmd: 'suback', messageId: body.readUInt16BE(0), granted: [2] })
  return { ...session, seen }
}

const hexOf = (wire: Wire, type: number): string[] => wire.of(type).map(({ hex }) => hex)

describe.each(VERSIONS)('MQTT %i: the acknowledgement of a message', protocolVersion => {
  it('of QoS 0 is none', async () => {
    const { client, connection, wire, seen } = await receiving({ protocolVersion })
    connection.sendBytes(publish(protocolVersion, { topic: 'a' }))
    await eventually(() => seen.length === 1)
    await quiet()
    for (const type of [TYPE.puback, TYPE.pubrec, TYPE.pubcomp]) expect(hexOf(wire, type)).toEqual([])
    await client.close()
  })

  it('of QoS 1 is PUBACK with its Packet Identifier, without a Reason String or User Properties', async () => {
    const { client, connection, wire } = await receiving({ protocolVersion })
    connection.sendBytes(publish(protocolVersion, { flags: QOS_1, topic: 'a', id: 0x1234 }))
    await wire.find(TYPE.puback)
    expect(hexOf(wire, TYPE.puback)).toEqual(['40021234'])
    await client.close()
  })

  it('of QoS 2 is PUBREC and then PUBCOMP, without a Reason String or User Properties', async () => {
    const { client, connection, wire, seen } = await receiving({ protocolVersion })
    connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: 'a', id: 0x1234 }))
    await wire.find(TYPE.pubrec)
    connection.sendBytes(Buffer.from('62021234', 'hex'))
    await wire.find(TYPE.pubcomp)
    expect(hexOf(wire, TYPE.pubrec)).toEqual([expect.stringMatching(/^50(021234|03123400|0412340000)$/)])
    expect(hexOf(wire, TYPE.pubcomp)).toEqual([expect.stringMatching(/^70(021234|03123400|0412340000)$/)])
    await eventually(() => seen.length === 1)
    await client.close()
  })

  it('is also sent for a topic without a handler, and after a handler that failed', async () => {
    const session = await onWire({ protocolVersion })
    session.client.subscribe('a', () => Promise.reject(new Error('broken')))
    await session.wire.find(TYPE.subscribe)
    for (const [topic, id] of [['a', 1] as const, ['other', 2] as const])
      session.connection.sendBytes(publish(protocolVersion, { flags: QOS_1, topic, id }))
    session.connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: 'other', id: 3 }))
    await session.wire.find(TYPE.puback, 2)
    await session.wire.find(TYPE.pubrec)
    expect(hexOf(session.wire, TYPE.puback)).toEqual(['40020001', '40020002'])
    await session.client.close()
  })

  it('of several messages is in their order of arrival: PUBACK at QoS 1, PUBREC at QoS 2', async () => {
    const { client, connection, wire } = await receiving({ protocolVersion })
    for (const id of [5, 3, 9]) {
      connection.sendBytes(publish(protocolVersion, { flags: QOS_1, topic: `a/${id}`, id }))
      connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: `b/${id}`, id: id + 100 }))
    }
    await wire.find(TYPE.puback, 3)
    await wire.find(TYPE.pubrec, 3)
    expect(wire.of(TYPE.puback).map(({ body }) => body.readUInt16BE(0))).toEqual([5, 3, 9])
    expect(wire.of(TYPE.pubrec).map(({ body }) => body.readUInt16BE(0))).toEqual([105, 103, 109])
    await client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: a QoS 2 message that is repeated', protocolVersion => {
  it('before PUBREL is acknowledged again and handled once', async () => {
    const { client, connection, wire, seen } = await receiving({ protocolVersion })
    const bytes = (flags: number): Buffer =>
      publish(protocolVersion, { flags: QOS_2 | flags, topic: 'a', id: 7 })
    connection.sendBytes(bytes(0))
    await wire.find(TYPE.pubrec)
    connection.sendBytes(bytes(DUP))
    await wire.find(TYPE.pubrec, 2)
    connection.sendBytes(Buffer.from('62020007', 'hex'))
    await wire.find(TYPE.pubcomp)
    await quiet()
    expect(seen).toHaveLength(1)
    await client.close()
  })

  it('before PUBREL on the next connection of the session is acknowledged again and handled once', async () => {
    const session = await receiving({ protocolVersion, ...KEPT })
    session.connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: 'a', id: 7 }))
    await session.wire.find(TYPE.pubrec)
    const { connection, wire } = await reconnected(session, { sessionPresent: true })
    connection.sendBytes(publish(protocolVersion, { flags: QOS_2 | DUP, topic: 'a', id: 7 }))
    await wire.find(TYPE.pubrec)
    connection.sendBytes(Buffer.from('62020007', 'hex'))
    await wire.find(TYPE.pubcomp)
    await quiet()
    expect(session.seen).toHaveLength(1)
    await session.client.close()
  })

  it('before PUBREL on a connection without the session is a new message', async () => {
    const session = await receiving({ protocolVersion, ...KEPT })
    session.connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: 'a', id: 7 }))
    await session.wire.find(TYPE.pubrec)
    const { connection, wire } = await reconnected(session, { sessionPresent: false })
    // Releases nothing: the message of the earlier session is not kept.
    connection.sendBytes(Buffer.from('62020007', 'hex'))
    await wire.find(TYPE.pubcomp)
    connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: 'new', id: 7 }))
    await wire.find(TYPE.pubrec)
    connection.sendBytes(Buffer.from('62020007', 'hex'))
    await wire.find(TYPE.pubcomp, 2)
    await eventually(() => session.seen.length === 1)
    expect(session.seen.map(({ topic }) => topic)).toEqual(['new'])
    await session.client.close()
  })

  it('after PUBCOMP is a new message', async () => {
    const { client, connection, wire, seen } = await receiving({ protocolVersion })
    for (const count of [1, 2]) {
      connection.sendBytes(publish(protocolVersion, { flags: QOS_2, topic: 'a', id: 7 }))
      await wire.find(TYPE.pubrec, count)
      connection.sendBytes(Buffer.from('62020007', 'hex'))
      await wire.find(TYPE.pubcomp, count)
    }
    await eventually(() => seen.length === 2)
    await client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: a message', protocolVersion => {
  it('with U+FEFF in its topic and its text reaches the handler unchanged', async () => {
    const { client, connection, seen } = await receiving({ protocolVersion, codec: 'text' })
    connection.sendBytes(publish(protocolVersion, { topic: '\ufeffa/\ufeff', payload: '\ufeffb' }))
    await eventually(() => seen.length === 1)
    expect(seen).toEqual([{ topic: '\ufeffa/\ufeff', payload: '\ufeffb' }])
    await client.close()
  })

  it('with U+FFFD in its topic, which is a character like any other, reaches the handler', async () => {
    const { client, connection, seen } = await receiving({ protocolVersion })
    connection.sendBytes(publish(protocolVersion, { topic: 'a/\ufffd' }))
    await eventually(() => seen.length === 1)
    expect(seen[0]?.topic).toBe('a/\ufffd')
    await client.close()
  })

  it('that is published again by its handler has DUP 0, although it arrived with DUP 1', async () => {
    const session = await onWire({ protocolVersion })
    session.client.subscribe('in', ({ payload }) =>
      session.client.publish('out', payload, { qos: 1 }).then(() => {}),
    )
    await session.wire.find(TYPE.subscribe)
    session.connection.sendBytes(publish(protocolVersion, { flags: QOS_1 | DUP, topic: 'in', id: 1 }))
    const { flags } = await session.wire.find(TYPE.publish)
    expect(flags).toBe(QOS_1)
    await session.client.close()
  })

  it('is received while 100 others wait for their handlers, and so are all other packets', async () => {
    const gate = new Gate()
    const { client, connection, wire } = await receiving(
      { protocolVersion, inbound: { maxInFlight: 100, concurrency: 1 }, outbound: { flowControl: 'kernel' } },
      () => gate.pass(),
    )
    for (let id = 1; id <= 100; id += 1)
      connection.sendBytes(publish(protocolVersion, { flags: QOS_1, topic: 'a', id }))
    await gate.reached()
    const outcome = client.publish('b', 1, { qos: 1 })
    const { body } = await wire.find(TYPE.publish)
    connection.send({ cmd: 'puback', messageId: body.readUInt16BE(3), reasonCode: 0 })
    expect(await outcome).toMatchObject({ status: 'acknowledged' })
    gate.open()
    await wire.find(TYPE.puback, 100)
    await client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: malformed bytes of the broker', protocolVersion => {
  const ILL_FORMED: (readonly [string, Buffer])[] = [
    ['a stray continuation byte', Buffer.from([0x61, 0x80])],
    ['half of a character', Buffer.from([0x61, 0xc3])],
    ['three bytes of a character of four', Buffer.from([0xf0, 0x9f, 0x98])],
    ['an encoded surrogate', Buffer.from([0xed, 0xa0, 0x80])],
    ['an overlong encoding', Buffer.from([0xc0, 0xaf])],
  ]

  it.each(ILL_FORMED)('end the connection: a Topic Name with %s', async (_what, topic) => {
    const { client, connection, peer, wire, seen } = await receiving({ protocolVersion })
    connection.sendBytes(publish(protocolVersion, { flags: QOS_1, topic, id: 1 }))
    await connection.closed()
    expect({ seen, pubacks: hexOf(wire, TYPE.puback) }).toEqual({ seen: [], pubacks: [] })
    const disconnects = protocolVersion === 5 ? [expect.stringMatching(/^e00[12]81/)] : []
    expect(hexOf(wire, TYPE.disconnect)).toEqual(disconnects)
    await peer.accept()
    await client.whenConnected()
    await client.close()
  })

  it.each([
    ['a PUBLISH with both QoS bits', publish(protocolVersion, { flags: 0b0110, topic: 'a', id: 1 })],
    ['a PUBREL with the flags 0000', Buffer.from('60020001', 'hex')],
    ['a PUBACK with the flags 0001', Buffer.from('41020001', 'hex')],
    ['a SUBACK with the flags 0010', Buffer.from('9203000100', 'hex')],
    ['a PINGRESP with the flags 0001', Buffer.from('d100', 'hex')],
    ['a DISCONNECT with the flags 0001', Buffer.from('e100', 'hex')],
    ['an AUTH with the flags 0001', Buffer.from('f100', 'hex')],
    ['a packet of type 0', Buffer.from('0000', 'hex')],
    ['a second CONNACK', Buffer.from(protocolVersion === 5 ? '2003000000' : '20020000', 'hex')],
    ['an AUTH packet that was not asked for', Buffer.from('f0021800', 'hex')],
  ])('end the connection: %s', async (_what, bytes) => {
    const { client, connection, peer, wire } = await receiving({ protocolVersion })
    connection.sendBytes(bytes)
    await connection.closed()
    expect(hexOf(wire, TYPE.auth)).toEqual([])
    await peer.accept()
    await client.whenConnected()
    await client.close()
  })
})

describe('MQTT 5: reserved flags that are not 0', () => {
  it.each([
    ['DISCONNECT', Buffer.from('e100', 'hex')],
    ['AUTH', Buffer.from('f100', 'hex')],
    ['PINGRESP', Buffer.from('d100', 'hex')],
  ])('of %s end the connection with DISCONNECT and 0x81', async (name, bytes) => {
    const { client, connection, wire } = await receiving({})
    const causes: unknown[] = []
    client.onState(state => {
      if (state.status === 'waiting') causes.push(state.cause)
    })
    connection.sendBytes(bytes)
    await connection.closed()
    expect(hexOf(wire, TYPE.disconnect)).toEqual([expect.stringMatching(/^e00[12]81/)])
    await eventually(() => causes.length === 1)
    expect(causes[0]).toMatchObject({
      code: 'CONNECTION_LOST',
      reasonCode: 0x81,
      message: `the broker sent a malformed packet: Invalid header flag bits, must be 0x0 for ${name.toLowerCase()} packet`,
    })
    await client.close()
  })

  it('of an AUTH that continues an authentication end the attempt without a response', async () => {
    let challenges = 0
    const onChallenge = (): string => {
      challenges += 1
      return 'two'
    }
    const { client, peer, wires } = wireClient({
      authentication: { method: 'SCRAM', start: () => ({ data: 'one', onChallenge }) },
    })
    await client.start()
    const connection = await peer.connection()
    await connection.expect('connect')
    connection.sendBytes(Buffer.from(`f10a180815${field('SCRAM').toString('hex')}`, 'hex'))
    await connection.closed()
    expect({ challenges, auths: hexOf(wireAt(wires, 0), TYPE.auth) }).toEqual({ challenges: 0, auths: [] })
    await client.close()
  })
})

describe('MQTT 5: ill-formed UTF-8 in a property', () => {
  const property = (kind: number, ...fields: (Buffer | string)[]): Buffer =>
    Buffer.concat([Buffer.from([kind]), ...fields.map(field)])
  const BAD = Buffer.from([0x61, 0xff])

  it.each([
    ['Content Type', property(0x03, BAD)],
    ['Response Topic', property(0x08, BAD)],
    ['the name of a User Property', property(0x26, BAD, 'v')],
    ['the value of a User Property', property(0x26, 'k', BAD)],
    ['U+0000 in Content Type', property(0x03, '\u0000')],
    ['U+0000 in Response Topic', property(0x08, 'a\u0000')],
    ['U+0000 in a User Property', property(0x26, 'k', '\u0000')],
  ])('ends the connection with 0x81: %s', async (_what, properties) => {
    const { client, connection, wire, seen } = await receiving({})
    connection.sendBytes(publish(5, { topic: 'a', properties }))
    await connection.closed()
    expect(seen).toEqual([])
    expect(hexOf(wire, TYPE.disconnect)).toEqual([expect.stringMatching(/^e00[12]81/)])
    await client.close()
  })

  /** A PUBLISH with 250 KB of User Properties before its last property. */
  function long(topic: string, last: Buffer): Buffer {
    const filling = Array.from({ length: 5 }, () => property(0x26, 'k', 'ü'.repeat(25_000)))
    const properties = Buffer.concat([...filling, last])
    const body = Buffer.concat([field(topic), integer(properties.length), properties, Buffer.from('1')])
    return Buffer.concat([Buffer.from([0x30]), integer(body.length), body])
  }

  it.each([1_000, 50_000, 131_072, 1_000_000])(
    'ends the connection with 0x81 behind 250 KB of properties that arrive in pieces of %i bytes',
    async size => {
      const { client, connection, wire, seen } = await receiving({})
      const send = async (bytes: Buffer): Promise<void> => {
        for (let at = 0; at < bytes.length; at += size) {
          connection.sendBytes(bytes.subarray(at, at + size))
          await quiet()
        }
      }
      await send(long('fine', property(0x03, 'ü')))
      await eventually(() => seen.length === 1)
      await send(long('bad', property(0x03, BAD)))
      await connection.closed()
      expect(seen.map(({ topic }) => topic)).toEqual(['fine'])
      expect(hexOf(wire, TYPE.disconnect)).toEqual([expect.stringMatching(/^e00[12]81/)])
      await client.close()
    },
  )

  it('ends the connection with 0x81 directly behind CONNACK', async () => {
    const { client, peer, wires } = wireClient()
    const seen: unknown[] = []
    client.subscribe('#', ({ payload }) => void seen.push(payload))
    await client.start()
    const connection = await peer.connection()
    await connection.expect('connect')
    const bytes = publish(5, { topic: 'a', properties: property(0x03, BAD) })
    connection.sendBytes(Buffer.concat([Buffer.from('2003000000', 'hex'), bytes]))
    await connection.closed()
    expect(seen).toEqual([])
    expect(hexOf(wireAt(wires, 0), TYPE.disconnect)).toEqual([expect.stringMatching(/^e00[12]81/)])
    await client.close()
  })

  it('does not concern Correlation Data, which is binary, and well-formed text keeps every character', async () => {
    const { client, connection, wire } = await onWire()
    const received: unknown[] = []
    client.subscribe('#', ({ properties }) => void received.push({ ...properties }))
    await wire.find(TYPE.subscribe)
    const properties = Buffer.concat([
      property(0x09, BAD),
      property(0x03, '\ufffd\ufeff'),
      property(0x08, '\ufeffr'),
      property(0x26, '\ufeff\ufffd', '\ufeffü'),
    ])
    // The parser of `mqtt` decodes the second one, because its topic is not ASCII.
    for (const topic of ['a', 'ü']) connection.sendBytes(publish(5, { topic, properties }))
    await eventually(() => received.length === 2)
    for (const one of received)
      expect(one).toMatchObject({
        correlationData: BAD,
        contentType: '\ufffd\ufeff',
        responseTopic: '\ufeffr',
        userProperties: { '\ufeff\ufffd': '\ufeffü' },
      })
    await client.close()
  })
})

describe('MQTT 5: a dead letter', () => {
  it('has neither the Subscription Identifier nor the Topic Alias of its message', async () => {
    const { client, connection, wire } = await onWire({ properties: { topicAliasMaximum: 10 } })
    client.subscribe('in', () => Promise.reject(new Error('broken')), {
      qos: 1,
      onFailure: deadLetter('dead'),
    })
    const { body } = await wire.find(TYPE.subscribe)
    const identifier = body.subarray(3, 3 + body.readUInt8(2))
    const properties = Buffer.concat([identifier, Buffer.from([0x23, 0, 1])])
    connection.sendBytes(publish(5, { flags: QOS_1, topic: 'in', id: 1, properties }))
    const letter = await connection.find('publish')
    expect(letter.topic).toBe('dead')
    expect(letter.properties).toHaveProperty('userProperties.dead-letter-topic', 'in')
    expect(letter.properties).not.toHaveProperty('subscriptionIdentifier')
    expect(letter.properties).not.toHaveProperty('topicAlias')
    await client.close()
  })
})

describe('MQTT 5: Topic Aliases of the broker', () => {
  const alias = (value: number): Buffer => Buffer.from([0x23, value >> 8, value & 0xff])
  const accepting = { properties: { topicAliasMaximum: 300 } }

  it.each([1, 2, 255, 256, 300])('are accepted up to Topic Alias Maximum: %i', async value => {
    const { client, connection, seen } = await receiving(accepting)
    for (const topic of ['a/b', '']) connection.sendBytes(publish(5, { topic, properties: alias(value) }))
    await eventually(() => seen.length === 2)
    expect(seen.map(({ topic }) => topic)).toEqual(['a/b', 'a/b'])
    await client.close()
  })

  it.each([0, 301, 65_535])('end the connection beyond it: %i', async value => {
    const { client, connection, seen } = await receiving(accepting)
    connection.sendBytes(publish(5, { topic: 'a', properties: alias(value) }))
    await connection.closed()
    expect(seen).toEqual([])
    await client.close()
  })

  it('are forgotten with their connection', async () => {
    const session = await receiving({ ...accepting, ...KEPT })
    session.connection.sendBytes(publish(5, { topic: 'a', properties: alias(1) }))
    await eventually(() => session.seen.length === 1)
    const { connection } = await reconnected(session, { sessionPresent: true })
    connection.sendBytes(publish(5, { topic: '', properties: alias(1) }))
    await connection.closed()
    expect(session.seen).toHaveLength(1)
    await session.client.close()
  })
})

describe('MQTT 5: a packet that ends the connection', () => {
  const wildcard = publish(5, { topic: 'a/+' })
  const valid = publish(5, { flags: QOS_1, topic: 'a', id: 7 })

  it.each([
    ['another such packet', [wildcard, wildcard]],
    ['the acknowledgement of a message before it', [valid, wildcard]],
    ['the acknowledgement of a message behind it', [wildcard, valid]],
    ['PUBCOMP for a PUBREL behind it', [wildcard, Buffer.from('62020007', 'hex')]],
  ])('is followed by one DISCONNECT, and by nothing else: %s', async (_what, packets) => {
    const { client, connection, wire } = await receiving({}, async () => {
      for (let turn = 0; turn < 20; turn += 1) await undefined
    })
    connection.sendBytes(Buffer.concat(packets))
    await connection.closed()
    expect(wire.of(TYPE.disconnect)).toHaveLength(1)
    expect(wire.packets.at(-1)?.type).toBe(TYPE.disconnect)
    await client.close()
  })
})

import { describe, expect, it } from 'vitest'
import { quiet } from '../support/held-clock.js'
import { VERSIONS } from '../support/subscriber-on-peer.js'
import {
  onWire,
  reconnected,
  TYPE,
  type WirePacket,
  type WireSession,
  wireAt,
  wireClient,
} from '../support/wire.js'

const KEPT = { clean: false, clientId: 'kept' } as const

/** The Packet Identifier of a PUBLISH at QoS 1 or 2. */
function publishId({ body }: WirePacket): number {
  return body.readUInt16BE(2 + body.readUInt16BE(0))
}

/** The Packet Identifier of every other packet that has one. */
const idOf = ({ body }: WirePacket): number => body.readUInt16BE(0)
const isDup = ({ flags }: WirePacket): boolean => (flags & 8) !== 0
const qosOf = ({ flags }: WirePacket): number => (flags >> 1) & 3

/** A QoS 2 publish whose PUBREL was sent. */
async function released({ client, connection, wire }: WireSession, topic = 'a', count = 1): Promise<number> {
  void client.publish(topic, 1, { qos: 2 })
  const id = publishId(await wire.find(TYPE.publish, count))
  connection.send({ cmd: 'pubrec', messageId: id, reasonCode: 0 })
  await wire.find(TYPE.pubrel, count)
  return id
}

describe.each(VERSIONS)('MQTT %i: the bytes of PUBLISH', protocolVersion => {
  const noProperties = protocolVersion === 5 ? '00' : ''

  it('at QoS 0 have no Packet Identifier, no DUP, and a Property Length of zero on MQTT 5', async () => {
    const { client, wire } = await onWire({ protocolVersion })
    await client.publish('a/ü', 1)
    const { hex } = await wire.find(TYPE.publish)
    const body = `0004612fc3bc${noProperties}31`
    expect(hex).toBe(`30${(body.length / 2).toString(16).padStart(2, '0')}${body}`)
    await client.close()
  })

  it.each([3, -1])('never have both QoS bits: the QoS %i is refused', async qos => {
    const { client, wire } = await onWire({ protocolVersion })
    // Seam: an untyped application may pass any number.
    const options = { qos } as unknown as { qos: 1 }
    await expect(client.publish('a', 1, options)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await quiet()
    expect(wire.of(TYPE.publish)).toEqual([])
    await client.close()
  })

  it.each([1, 2] as const)('at QoS %i have a Packet Identifier and no DUP', async qos => {
    const { client, wire } = await onWire({ protocolVersion })
    void client.publish('a', 1, { qos, retain: true })
    const packet = await wire.find(TYPE.publish)
    expect({ qos: qosOf(packet), dup: isDup(packet), retain: packet.flags & 1 }).toEqual({
      qos,
      dup: false,
      retain: 1,
    })
    expect(publishId(packet)).toBeGreaterThan(0)
    await client.close()
  })

  it.each([
    [127, 1],
    [128, 2],
    [16_383, 2],
    [16_384, 3],
    [2_097_151, 3],
    [2_097_152, 4],
  ])('have a Remaining Length of %i in %i bytes, the minimum', async (length, lengthBytes) => {
    const { client, wire } = await onWire({ protocolVersion, outbound: { maxQueuedBytes: 10_000_000 } })
    const payload = Buffer.alloc(length - 3 - noProperties.length / 2)
    void client.publish('t', payload, { whenBlocked: 'queue' })
    const { bytes, body } = await wire.find(TYPE.publish)
    expect({ body: body.length, lengthBytes: bytes.length - body.length - 1 }).toEqual({
      body: length,
      lengthBytes,
    })
    await client.close()
  })

  it('never have an identifier that PUBLISH, SUBSCRIBE or UNSUBSCRIBE in flight has', async () => {
    const { client, connection, wire } = await onWire({ protocolVersion })
    const granted = client.subscribe('granted', () => {})
    const subscribe = await wire.find(TYPE.subscribe)
    connection.send({ cmd: 'suback', messageId: idOf(subscribe), granted: [0] })
    await quiet()
    for (let index = 0; index < 20; index += 1) {
      void client.publish('a', index, { qos: index % 2 === 0 ? 1 : 2 })
      client.subscribe(`s/${index}`, () => {})
    }
    void granted.unsubscribe().catch(() => {})
    await wire.find(TYPE.publish, 20)
    await wire.find(TYPE.unsubscribe)
    // The first one is no longer in flight.
    const subscribes = wire.of(TYPE.subscribe).slice(1)
    expect(subscribes.length).toBeGreaterThan(0)
    const unsubscribes = wire.of(TYPE.unsubscribe)
    const ids = [...wire.of(TYPE.publish).map(publishId), ...subscribes.map(idOf), ...unsubscribes.map(idOf)]
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids.every(id => id > 0)).toBe(true)
    await client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: PUBREC', protocolVersion => {
  it.each([0x00, 0x10])('with the Reason Code %i is followed by PUBREL', async reasonCode => {
    const { client, connection, wire } = await onWire({ protocolVersion })
    void client.publish('a', 1, { qos: 2 })
    const id = publishId(await wire.find(TYPE.publish))
    connection.send({ cmd: 'pubrec', messageId: id, reasonCode })
    expect(idOf(await wire.find(TYPE.pubrel))).toBe(id)
    await client.close()
  })

  it('for a Packet Identifier that is not in use is followed by PUBREL, on MQTT 5 with 0x92', async () => {
    const { client, connection, wire } = await onWire({ protocolVersion, ...KEPT }, { sessionPresent: true })
    connection.send({ cmd: 'pubrec', messageId: 0x1234, reasonCode: 0 })
    const { hex } = await wire.find(TYPE.pubrel)
    expect(hex).toMatch(protocolVersion === 5 ? /^62(03123492|0412349200)$/ : /^62021234$/)
    connection.send({ cmd: 'pubcomp', messageId: 0x1234, reasonCode: 0x92 })
    void client.publish('a', 1, { qos: 1 })
    await wire.find(TYPE.publish)
    expect(wire.of(TYPE.pubrel)).toHaveLength(1)
    await client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: PUBLISH at QoS 2', protocolVersion => {
  it('is followed by PUBREL with its Packet Identifier and the flags 0010, and nothing else', async () => {
    const session = await onWire({ protocolVersion })
    const id = await released(session)
    const hexId = id.toString(16).padStart(4, '0')
    const pubrels = session.wire.of(TYPE.pubrel).map(({ hex }) => hex)
    expect(pubrels).toHaveLength(1)
    expect([`6202${hexId}`, `6203${hexId}00`, `6204${hexId}0000`]).toContain(pubrels[0])
    await session.client.close()
  })

  it('is not sent again after its PUBREL: a resumed session repeats PUBREL with the same identifier', async () => {
    const session = await onWire({ protocolVersion, ...KEPT })
    const id = await released(session)
    const { wire, connection } = await reconnected(session, { sessionPresent: true })
    expect(idOf(await wire.find(TYPE.pubrel))).toBe(id)
    await quiet()
    expect(wire.of(TYPE.publish)).toEqual([])
    connection.send({ cmd: 'pubcomp', messageId: id, reasonCode: 0 })
    await quiet()
    expect(session.client.stats().outbound.acknowledged).toBe(1)
    await session.client.close()
  })

  it('is forgotten if the broker has lost the session: PUBREL is not repeated', async () => {
    const session = await onWire({ protocolVersion, ...KEPT })
    await released(session)
    const { wire } = await reconnected(session, { sessionPresent: false })
    await session.client.publish('b', 1)
    await wire.find(TYPE.publish)
    expect(wire.packets.map(({ type }) => type)).toEqual([TYPE.connect, TYPE.publish])
    await session.client.close()
  })

  it('has its PUBRELs sent in the order of PUBREC', async () => {
    const { client, connection, wire } = await onWire({ protocolVersion })
    for (const value of [1, 2, 3]) void client.publish('a', value, { qos: 2 })
    await wire.find(TYPE.publish, 3)
    const [first = 0, second = 0, third = 0] = wire.of(TYPE.publish).map(publishId)
    for (const messageId of [third, first, second])
      connection.send({ cmd: 'pubrec', messageId, reasonCode: 0 })
    await wire.find(TYPE.pubrel, 3)
    expect(wire.of(TYPE.pubrel).map(idOf)).toEqual([third, first, second])
    await client.close()
  })

  it('stays unacknowledged until PUBCOMP, so its identifier and its place in Receive Maximum stay taken', async () => {
    const session = await onWire({ protocolVersion, outbound: { maxInFlight: 1, maxDelayMs: 50 } })
    const id = await released(session)
    expect(await session.client.publish('b', 1, { qos: 1 })).toMatchObject({
      status: 'dropped',
      reason: 'in-flight-full',
    })
    session.connection.send({ cmd: 'pubcomp', messageId: id, reasonCode: 0 })
    await quiet()
    void session.client.publish('b', 1, { qos: 1 })
    await session.wire.find(TYPE.publish, 2)
    await session.client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: a resumed session', protocolVersion => {
  it('sends unacknowledged publishes again in their order, with DUP and their identifiers, and only those', async () => {
    const session = await onWire({ protocolVersion, ...KEPT })
    const { client, connection, wire } = session
    for (const value of [1, 2, 3, 4])
      void client.publish(`t/${value}`, value, { qos: value % 2 === 0 ? 2 : 1 })
    await wire.find(TYPE.publish, 4)
    const bodies = wire.of(TYPE.publish).map(({ body }) => body.toString('hex'))
    const ids = wire.of(TYPE.publish).map(publishId)
    connection.send({ cmd: 'puback', messageId: ids[2] ?? 0, reasonCode: 0 })
    await quiet()
    const next = await reconnected(session, { sessionPresent: true })
    await next.wire.find(TYPE.publish, 3)
    const again = next.wire.of(TYPE.publish)
    expect(again.map(publishId)).toEqual([ids[0], ids[1], ids[3]])
    expect(again.every(isDup)).toBe(true)
    expect(again.map(({ body }) => body.toString('hex'))).toEqual([bodies[0], bodies[1], bodies[3]])
    await client.close()
  })

  it('sends nothing again while its connection lasts, and nothing again in a new session', async () => {
    const session = await onWire({ protocolVersion, ...KEPT })
    void session.client.publish('a', 1, { qos: 1 })
    await session.wire.find(TYPE.publish)
    await quiet(50)
    expect(session.wire.of(TYPE.publish)).toHaveLength(1)
    const next = await reconnected(session, { sessionPresent: false })
    await quiet(50)
    expect(next.wire.of(TYPE.publish)).toEqual([])
    await session.client.close()
  })

  it('sends QoS 0 without DUP, whatever was sent again', async () => {
    const session = await onWire({ protocolVersion, ...KEPT })
    void session.client.publish('a', 1, { qos: 1 })
    await session.wire.find(TYPE.publish)
    const next = await reconnected(session, { sessionPresent: true })
    await next.wire.find(TYPE.publish)
    await session.client.publish('b', 1)
    await next.wire.find(TYPE.publish, 2)
    expect(next.wire.of(TYPE.publish).map(({ flags }) => flags)).toEqual([0b1010, 0b0000])
    await session.client.close()
  })
})

describe('MQTT 5: a publish that is refused', () => {
  it.each([
    ['PUBACK', 1, 'puback'],
    ['PUBREC', 2, 'pubrec'],
  ] as const)('by %s with 0x80 or more is not sent again by a resumed session', async (_name, qos, cmd) => {
    const session = await onWire(KEPT)
    const outcome = session.client.publish('a', 1, { qos })
    const id = publishId(await session.wire.find(TYPE.publish))
    session.connection.send({ cmd, messageId: id, reasonCode: 0x97 })
    expect(await outcome).toMatchObject({ status: 'refused', reasonCode: 0x97 })
    await quiet()
    expect(session.wire.of(TYPE.pubrel)).toEqual([])
    const next = await reconnected(session, { sessionPresent: true })
    await session.client.publish('b', 1)
    await next.wire.find(TYPE.publish)
    expect(next.wire.of(TYPE.publish).map(qosOf)).toEqual([0])
    expect(next.wire.of(TYPE.pubrel)).toEqual([])
    await session.client.close()
  })
})

describe('MQTT 5: properties of PUBLISH', () => {
  it.each([
    [127, '7f'],
    [128, '8001'],
    [16_383, 'ff7f'],
    [16_384, '808001'],
  ])('have a length of %i in the fewest bytes: %s', async (length, hex) => {
    const { client, wire } = await onWire()
    const userProperties = { k: 'v'.repeat(length - 6) }
    await client.publish('t', 1, { properties: { userProperties } })
    const { body } = await wire.find(TYPE.publish)
    expect(body.toString('hex').slice(6, 8 + hex.length)).toBe(`${hex}26`)
    await client.close()
  })

  it.each([
    ['topic', 'a\u0000b', {}],
    ['topic', 'a\ud800b', {}],
    ['Content Type', 'a', { contentType: 'a\u0000' }],
    ['Content Type', 'a', { contentType: 'a\udfff' }],
    ['Response Topic', 'a', { responseTopic: 'a\u0000' }],
    ['Response Topic', 'a', { responseTopic: 'a\ud800' }],
    ['Response Topic', 'a', { responseTopic: 'a/+' }],
    ['Response Topic', 'a', { responseTopic: 'a/#' }],
    ['User Property', 'a', { userProperties: { 'k\u0000': 'v' } }],
    ['User Property', 'a', { userProperties: { k: 'v\u0000' } }],
    ['User Property', 'a', { userProperties: { k: ['v', '\ud800'] } }],
  ])('that MQTT does not allow are refused before a byte is sent: %s', async (_what, topic, properties) => {
    const { client, wire } = await onWire()
    await expect(client.publish(topic, 1, { properties })).rejects.toMatchObject({
      code: expect.stringMatching(/^INVALID_(TOPIC_NAME|OPTION)$/),
    })
    await client.publish('fine', 1)
    await wire.find(TYPE.publish)
    await quiet()
    expect(wire.of(TYPE.publish)).toHaveLength(1)
    await client.close()
  })

  it('are UTF-8, and keep U+FEFF', async () => {
    const { client, wire } = await onWire()
    await client.publish('\ufeffa', 1, {
      properties: { contentType: '\ufefft', responseTopic: 'ü', userProperties: { '\ufeffk': 'ü' } },
    })
    const { body } = await wire.find(TYPE.publish)
    const text = body.toString('utf8')
    for (const part of ['\ufeffa', '\ufefft', 'ü', '\ufeffk']) expect(text).toContain(part)
    await client.close()
  })

  it('never include a Subscription Identifier or a Topic Alias of the application', async () => {
    const { client, wire } = await onWire()
    for (const properties of [{ subscriptionIdentifier: 1 }, { topicAlias: 0 }, { topicAlias: 1 }])
      await expect(client.publish('a', 1, { properties })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await client.publish('fine', 1)
    expect((await wire.find(TYPE.publish)).body.toString('hex')).toBe('000466696e650031')
    await client.close()
  })
})

describe('MQTT 5: a limit of the broker', () => {
  const QOS_2 = { qos: 2 } as const
  const RETAINED = { qos: 1, retain: true } as const
  const MAXIMUM_QOS = { properties: { maximumQoS: 1 } }
  const NO_RETAIN = { properties: { retainAvailable: false } }

  it.each([
    ['Maximum QoS', QOS_2, MAXIMUM_QOS],
    ['Retain Available', RETAINED, NO_RETAIN],
  ] as const)(
    '%s also applies to publishes that waited for the connection',
    async (_name, options, connack) => {
      const { client, peer, wires } = wireClient()
      await client.start()
      const outcome = client.publish('a', 1, { ...options, whenBlocked: 'wait' })
      await peer.accept(connack)
      await client.whenConnected()
      expect(await outcome).toMatchObject({ status: 'refused' })
      await client.publish('b', 1)
      const wire = wireAt(wires, 0)
      await wire.find(TYPE.publish)
      expect(wire.of(TYPE.publish).map(({ flags }) => flags)).toEqual([0])
      await client.close()
    },
  )

  it.each([
    ['Maximum QoS', QOS_2, MAXIMUM_QOS],
    ['Retain Available', RETAINED, NO_RETAIN],
  ] as const)('%s also applies to publishes of a resumed session', async (_name, options, connack) => {
    const session = await onWire(KEPT)
    const outcome = session.client.publish('a', 1, options)
    await session.wire.find(TYPE.publish)
    const { wire } = await reconnected(session, { sessionPresent: true, ...connack })
    expect(await outcome).toMatchObject({ status: 'lost' })
    await session.client.publish('b', 1)
    await wire.find(TYPE.publish)
    expect(wire.of(TYPE.publish).map(({ flags }) => flags)).toEqual([0])
    await session.client.close()
  })
})

describe('MQTT 5: Receive Maximum of the broker', () => {
  it('limits the unacknowledged publishes, and no other packet waits for it', async () => {
    const { client, connection, wire } = await onWire(
      { outbound: { whenBlocked: 'queue', flowControl: 'kernel' } },
      { properties: { receiveMaximum: 2 } },
    )
    for (const value of [1, 2, 3, 4]) void client.publish('a', value, { qos: value % 2 === 0 ? 2 : 1 })
    await wire.find(TYPE.publish, 2)
    client.subscribe('in', () => {}, { qos: 1 })
    const subscribe = await wire.find(TYPE.subscribe)
    connection.send({ cmd: 'suback', messageId: idOf(subscribe), granted: [1] })
    connection.send({
      cmd: 'publish',
      topic: 'in',
      payload: '1',
      qos: 1,
      messageId: 9,
      dup: false,
      retain: false,
    })
    await wire.find(TYPE.puback)
    const [first, second] = wire.of(TYPE.publish)
    connection.send({ cmd: 'pubrec', messageId: publishId(second ?? expect.fail()), reasonCode: 0 })
    await wire.find(TYPE.pubrel)
    await quiet(50)
    expect(wire.of(TYPE.publish)).toHaveLength(2)
    connection.send({ cmd: 'puback', messageId: publishId(first ?? expect.fail()), reasonCode: 0 })
    await wire.find(TYPE.publish, 3)
    await quiet(50)
    expect(wire.of(TYPE.publish)).toHaveLength(3)
    await client.close()
  })

  it('does not delay QoS 0', async () => {
    const { client, wire } = await onWire({}, { properties: { receiveMaximum: 1 } })
    void client.publish('a', 1, { qos: 1 })
    for (const value of [1, 2, 3]) expect(await client.publish('b', value)).toEqual({ status: 'sent' })
    await wire.find(TYPE.publish, 4)
    expect(wire.of(TYPE.publish).map(qosOf)).toEqual([1, 0, 0, 0])
    await client.close()
  })
})

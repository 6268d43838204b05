import { describe, expect, it } from 'vitest'
import type { MqttConnectOptions } from '../../src/options/client-options.js'
import { quiet } from '../support/held-clock.js'
import { VERSIONS } from '../support/subscriber-on-peer.js'
import { onWire, readConnect, reconnected, TYPE, wireAt, wireClient } from '../support/wire.js'

/** The CONNECT packet of a client with these options. */
async function connectOf(options: MqttConnectOptions) {
  const { client, wire } = await onWire(options)
  await client.close()
  const [first] = wire.packets
  if (first === undefined) throw new Error('the client has sent nothing')
  expect(first.type).toBe(TYPE.connect)
  return { first, ...readConnect(first) }
}

const WILL = { topic: 'state/ü', payload: 'gone', qos: 2, retain: true } as const

describe.each(VERSIONS)('MQTT %i: CONNECT', protocolVersion => {
  it('is the first packet of every connection, and is sent once', async () => {
    const session = await onWire({ protocolVersion })
    session.client.subscribe('a', () => {})
    void session.client.publish('a', 1, { qos: 1 })
    await session.wire.find(TYPE.publish)
    const next = await reconnected(session)
    await next.wire.find(TYPE.subscribe)
    for (const wire of session.wires) {
      expect(wire.packets[0]?.type).toBe(TYPE.connect)
      expect(wire.of(TYPE.connect)).toHaveLength(1)
    }
    await session.client.close()
  })

  it('begins with the protocol name "MQTT" and the version, and has no reserved flag', async () => {
    const { first, protocolName, protocolVersion: version, reserved } = await connectOf({ protocolVersion })
    expect({ flags: first.flags, protocolName, version, reserved }).toEqual({
      flags: 0,
      protocolName: 'MQTT',
      version: protocolVersion,
      reserved: 0,
    })
  })

  it('without a will has no Will QoS, no Will Retain and no fields of a will', async () => {
    const { will, willQos, willRetain, rest } = await connectOf({ protocolVersion })
    expect({ will, willQos, willRetain, rest }).toEqual({
      will: undefined,
      willQos: 0,
      willRetain: false,
      rest: 0,
    })
  })

  it('with a will has its QoS, its Retain flag, its topic in UTF-8 and its payload', async () => {
    const { will, willQos, willRetain, rest } = await connectOf({ protocolVersion, will: WILL })
    expect({ will, willQos, willRetain, rest }).toEqual({
      will: { topic: 'state/ü', payload: 'gone' },
      willQos: 2,
      willRetain: true,
      rest: 0,
    })
  })

  it.each([
    ['no user and no password', {}],
    ['a user', { username: 'jürgen' }],
    ['a user and a password', { username: 'jürgen', password: 'secret' }],
  ])('has flags and fields for %s, and nothing else', async (_what, given) => {
    const { username, password, rest } = await connectOf({ protocolVersion, ...given })
    expect({ username, password, rest }).toEqual({
      username: undefined,
      password: undefined,
      ...given,
      rest: 0,
    })
  })

  it('has its fields in the order Client Identifier, will, user, password', async () => {
    const { first } = await connectOf({
      protocolVersion,
      clientId: 'device-ä',
      will: WILL,
      username: 'user',
      password: 'pass',
    })
    const field = (text: string): string => {
      const bytes = Buffer.from(text)
      return Buffer.concat([Buffer.from([0, bytes.length]), bytes]).toString('hex')
    }
    const noProperties = protocolVersion === 5 ? '00' : ''
    expect(first.hex).toContain(
      field('device-ä') + noProperties + field('state/ü') + field('gone') + field('user') + field('pass'),
    )
    expect(first.hex.endsWith(field('pass'))).toBe(true)
  })

  it('has the same Client Identifier on every connection, also if the client has created it', async () => {
    const session = await onWire({ protocolVersion })
    await reconnected(session)
    const ids = session.wires.map(wire => readConnect(wire.packets[0] ?? expect.fail()).clientId)
    expect(ids).toHaveLength(2)
    expect(new Set(ids).size).toBe(1)
    expect(ids[0]).not.toBe('')
    await session.client.close()
  })

  it('requests a new session for a clean session, and the same one otherwise', async () => {
    const { clean } = await connectOf({ protocolVersion })
    const { clean: isKeptClean } = await connectOf({ protocolVersion, clean: false, clientId: 'kept' })
    expect({ clean, isKeptClean }).toEqual({ clean: true, isKeptClean: false })
  })

  it('asks the broker to keep the session of a client that does not start anew', async () => {
    const { clean, properties } = await connectOf({ protocolVersion, clean: false, clientId: 'kept' })
    const expiry = properties?.toString('hex').match(/^11([0-9a-f]{8})/)?.[1]
    expect({ clean, expiry }).toEqual({
      clean: false,
      expiry: protocolVersion === 5 ? 'ffffffff' : undefined,
    })
  })

  it('is all that is sent until CONNACK arrives', async () => {
    const { client, peer, wires } = wireClient({ protocolVersion })
    client.subscribe('a', () => {})
    await client.start()
    void client.publish('a', 1, { qos: 1, whenBlocked: 'queue' })
    const connection = await peer.connection()
    await connection.expect('connect')
    await quiet()
    expect(wireAt(wires, 0).packets.map(({ type }) => type)).toEqual([TYPE.connect])
    connection.send({ cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent: false })
    await wireAt(wires, 0).find(TYPE.subscribe)
    await wireAt(wires, 0).find(TYPE.publish)
    await client.close()
  })
})

describe('MQTT 3.1.1: CONNECT', () => {
  it('with a password but without a user, which the protocol does not allow, is not sent', async () => {
    const { client, wires, peer } = wireClient({ protocolVersion: 4, password: 'secret' })
    await client.start()
    const connection = await peer.connection()
    await connection.closed()
    expect(wireAt(wires, 0).packets).toEqual([])
    await client.close()
  })
})

describe('MQTT 5: CONNECT', () => {
  it('with a password but without a user, as for a token, has an empty user name', async () => {
    const { username, password, rest } = await connectOf({ password: 'token' })
    expect({ username, password, rest }).toEqual({ username: '', password: 'token', rest: 0 })
  })

  it.each([false, true])('has Will Properties before the Will Topic (some: %s)', async isDelayed => {
    const { first } = await connectOf({
      will: { ...WILL, ...(isDelayed ? { properties: { willDelayInterval: 7 } } : {}) },
      properties: { sessionExpiryInterval: 60 },
    })
    const topic = `0008${Buffer.from('state/ü').toString('hex')}`
    expect(first.hex).toContain((isDelayed ? '051800000007' : '00') + topic)
  })
})

describe('MQTT 5: enhanced authentication', () => {
  const field = (kind: number, text: string): string =>
    Buffer.concat([Buffer.from([kind, 0, text.length]), Buffer.from(text)]).toString('hex')
  const METHOD = field(0x15, 'SCRAM')

  it('sends nothing but AUTH before CONNACK: 0x18, the method of CONNECT and the data', async () => {
    const { client, peer, wires } = wireClient({
      authentication: { method: 'SCRAM', start: () => ({ data: 'one', onChallenge: () => 'two' }) },
    })
    client.subscribe('a', () => {})
    await client.start()
    void client.publish('a', 1, { qos: 1, whenBlocked: 'queue' })
    const connection = await peer.connection()
    await connection.expect('connect')
    const wire = wireAt(wires, 0)
    connection.sendBytes(Buffer.from(`f00a1808${METHOD}`, 'hex'))
    const { hex } = await wire.find(TYPE.auth)
    await quiet()
    expect(wire.packets.map(({ type }) => type)).toEqual([TYPE.connect, TYPE.auth])
    expect(wire.packets[0]?.hex).toContain(METHOD + field(0x16, 'one'))
    // No Reason String and no User Property.
    expect(hex).toBe(`f010180e${METHOD}${field(0x16, 'two')}`)
    connection.sendBytes(Buffer.from(`200b000008${METHOD}`, 'hex'))
    await client.whenConnected()
    await wire.find(TYPE.publish)
    await client.close()
  })
})

describe('a string of CONNECT', () => {
  it.each([
    ['clientId', { clientId: 'a\u0000b' }],
    ['clientId', { clientId: 'a\ud800b' }],
    ['username', { username: 'a\u0000b' }],
    ['username', { username: 'a\udfffb' }],
    ['will.topic', { will: { ...WILL, topic: 'a\u0000b' } }],
    ['will.topic', { will: { ...WILL, topic: 'a\ud800b' } }],
    ['will.properties.contentType', { will: { ...WILL, properties: { contentType: '\u0000' } } }],
    ['properties.userProperties', { properties: { userProperties: { 'a\u0000': 'b' } } }],
    ['properties.userProperties', { properties: { userProperties: { a: 'b\u0000' } } }],
    ['authentication.method', { authentication: { method: 'a\u0000', start: () => ({}) } }],
  ])('that UTF-8 or MQTT does not allow is refused: %s', (path, options) => {
    expect(() => wireClient(options)).toThrow(path)
  })

  it('keeps U+FEFF, which is a character like any other', async () => {
    const { clientId, username } = await connectOf({ clientId: '\ufeffa', username: '\ufeffb' })
    expect({ clientId, username }).toEqual({ clientId: '\ufeffa', username: '\ufeffb' })
  })
})

it.each([3, -1, 1.5])('a will with the QoS %d, which MQTT does not have, is refused', qos => {
  // Seam: an untyped application may pass any number.
  const will = { ...WILL, qos } as unknown as typeof WILL
  expect(() => wireClient({ will })).toThrow('will.qos')
})

describe('Session Present in CONNACK', () => {
  it('ends an MQTT 5 connection that requested a new session', async () => {
    const { client, peer } = wireClient({ protocolVersion: 5 })
    await client.start()
    const connection = await peer.accept({ sessionPresent: true })
    await connection.closed()
    const next = await peer.accept()
    await client.whenConnected()
    expect(next.received).toHaveLength(1)
    await client.close()
  })

  it('is accepted by a client that requested an earlier session, on its first connection too', async () => {
    const { client, peer } = wireClient({ protocolVersion: 5, clean: false, clientId: 'kept' })
    await client.start()
    await peer.accept({ sessionPresent: true })
    await client.whenConnected()
    expect(client.stats().connection).toMatchObject({ connects: 1, losses: 0 })
    await client.close()
  })
})

describe('a CONNACK that refuses the connection', () => {
  it('makes the client close it, even if the broker leaves it open', async () => {
    const { client, peer, wires } = wireClient({ protocolVersion: 5 })
    client.subscribe('a', () => {})
    await client.start()
    const connection = await peer.connection()
    await connection.expect('connect')
    connection.send({ cmd: 'connack', reasonCode: 0x88, sessionPresent: false })
    await connection.closed()
    expect(wireAt(wires, 0).packets.map(({ type }) => type)).toEqual([TYPE.connect])
    await client.close()
  })
})

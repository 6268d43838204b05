import { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { newHandler } from '../../src/client/inbound/delivery.js'
import { MqttService } from '../../src/mqtt.service.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { eventually } from '../support/eventually.js'
import { quiet } from '../support/held-clock.js'
import { closeWith, message, sessionOnPeer } from '../support/session-on-peer.js'

const kept = { clean: false, clientId: 'kept', reconnect: { delayMs: [0] } } satisfies MqttModuleOptions

async function connected(options: MqttModuleOptions = {}) {
  const parts = sessionOnPeer({ connect: 'background', reconnect: { delayMs: [0] }, ...options })
  await parts.session.start()
  const connection = await parts.peer.accept()
  await parts.session.connection.whenConnected()
  const mqtt = new MqttService(parts.session)
  return { ...parts, connection, mqtt }
}

const qos1 = (topic: string) => ({ topic, payload: Buffer.from('1'), qos: 1 as const, retain: false })

describe('packets from the broker', () => {
  it('a PUBREL without a Packet Identifier ends the connection, not the process', async () => {
    const { connection, peer, session } = await connected()
    connection.sendBytes(Buffer.from('6200', 'hex'))
    await connection.closed()
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
  })

  it('an unexpected acknowledgement changes nothing', async () => {
    const { connection, session, mqtt } = await connected()
    for (const cmd of ['puback', 'pubrec', 'pubcomp', 'suback', 'unsuback'] as const) {
      connection.send({ cmd, messageId: 77, reasonCode: 0, granted: [0] })
    }
    const outcome = mqtt.publish('a', 1, { qos: 1 })
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'puback', messageId })
    expect(await outcome).toMatchObject({ status: 'acknowledged' })
    await session.close()
  })
})

describe('a listener that throws', () => {
  it('does not stop the connection, which reconnects and closes', async () => {
    const { connection, peer, session, log } = await connected()
    session.connection.attach({
      stateChanged: state => {
        throw new Error(`a bug at ${state.status}`)
      },
    })
    connection.cut()
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
    expect(log.visible).toContain('a listener of the client failed: a bug at waiting')
  })
})

describe('a field that is too long for MQTT', () => {
  it.each([
    ['a User Property', { userProperties: { a: 'x'.repeat(70_000) } }],
    ['a Content Type', { contentType: 'x'.repeat(65_536) }],
    ['Correlation Data', { correlationData: Buffer.alloc(65_536) }],
    ['a Response Topic', { responseTopic: 'x'.repeat(65_536) }],
    ['half of a surrogate pair', { contentType: '\ud800' }],
    ['a negative Message Expiry Interval', { messageExpiryInterval: -1 }],
  ])('%s is refused before anything is written', async (_what, properties) => {
    const { connection, session, mqtt } = await connected()
    await expect(mqtt.publish('a', 1, { properties })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await mqtt.publish('good', 1)
    expect((await connection.expect('publish')).topic).toBe('good')
    await session.close()
  })

  it('is also refused by the connection if it was not validated before', async () => {
    const { connection, session } = await connected()
    const properties = { contentType: 'x'.repeat(65_536) }
    const publish = async () => session.publish({ ...qos1('a'), properties })
    await expect(publish()).rejects.toThrow('longer than MQTT allows')
    session.publish({ ...qos1('good'), qos: 0 })
    expect((await connection.expect('publish')).topic).toBe('good')
    expect(session.stats.outbound).toMatchObject({ attempted: 1, sent: 1, inFlight: 0 })
    await session.close()
  })
})

describe('publish', () => {
  it.each([
    ['an unknown option', { retian: true }],
    ['retain that is no boolean', { retain: 'no' }],
    ['QoS 3', { qos: 3 }],
    ['a Topic Alias, which is this package’s own', { properties: { topicAlias: 0 } }],
    ['no object', null],
  ])('refuses %s', async (_what, options) => {
    const { session, mqtt } = await connected()
    const publish = Reflect.apply(mqtt.publish, mqtt, ['a', 1, options])
    await expect(publish).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await session.close()
  })

  it.each([[undefined], [5], [null]])('refuses the topic %j', async topic => {
    const { session, mqtt } = await connected()
    await expect(Reflect.apply(mqtt.publish, mqtt, [topic, 1])).rejects.toMatchObject({
      code: 'INVALID_TOPIC_NAME',
    })
    await session.close()
  })

  it('refuses a codec that does not return a Buffer', async () => {
    const { session, mqtt } = await connected()
    const encode: () => Buffer = () => JSON.parse('"text"')
    await expect(mqtt.publish('a', 1, { codec: { encode, decode: () => 0 } })).rejects.toMatchObject({
      code: 'PAYLOAD_NOT_ENCODABLE',
    })
    await session.close()
  })

  it('on a stream that has ended is dropped as offline, not sent', async () => {
    const { session, mqtt } = await connected()
    mqtt.unwrap<{ stream: Duplex }>().stream.end()
    expect(await mqtt.publish('a', 1)).toEqual({ status: 'dropped', reason: 'offline' })
    await session.close()
  })
})

describe('a session that the broker has lost', () => {
  it('receives no publish that was reported as lost', async () => {
    const { connection, peer, session } = await connected(kept)
    const outcomes = ['t/1', 't/2', 't/3'].map(topic => session.publish(qos1(topic)))
    for (let count = 0; count < 3; count += 1) await connection.expect('publish')
    connection.cut()
    const fresh = await peer.accept({ sessionPresent: false })
    for (const outcome of await Promise.all(outcomes)) expect(outcome).toMatchObject({ status: 'lost' })
    session.publish({ ...qos1('next'), qos: 0 })
    expect((await fresh.expect('publish')).topic).toBe('next')
    await session.close()
  })

  it('is logged as a warning and counted', async () => {
    const { connection, peer, session, log } = await connected(kept)
    connection.cut()
    await peer.accept({ sessionPresent: false })
    await session.connection.whenConnected()
    expect(session.stats.connection).toEqual({ connects: 2, losses: 1, ackTimeouts: 0, sessionsLost: 1 })
    expect(log.visible.filter(line => line.includes('has lost the session'))).toHaveLength(1)
    await session.close()
  })

  it('settles all its publishes when the connection stops permanently', async () => {
    const stopped: unknown[] = []
    const { connection, session } = await connected({
      ...kept,
      onStopped: cause => stopped.push(cause.reasonCode),
    })
    const outcome = session.publish(qos1('a'))
    await connection.expect('publish')
    connection.send({ cmd: 'disconnect', reasonCode: 0x8e })
    expect(await outcome).toMatchObject({ status: 'lost', cause: { reasonCode: 0x8e } })
    expect(session.connection.state).toMatchObject({ status: 'closed', cause: { reasonCode: 0x8e } })
    expect(await session.publish(qos1('b'))).toEqual({ status: 'dropped', reason: 'closed' })
    expect(stopped).toEqual([0x8e])
    await session.close()
  })
})

describe('a stream that never emits close', () => {
  it.each([
    ['destroyed before it is used', () => new Duplex({ read() {}, write() {} }).destroy()],
    [
      'without a close event',
      () => new Duplex({ emitClose: false, read() {}, write: (_c, _e, done) => done() }),
    ],
    [
      'whose destroy never ends',
      () => new Duplex({ destroy() {}, read() {}, write: (_c, _e, done) => done() }),
    ],
  ])('%s: the attempt fails in time, and close ends', async (_what, createStream) => {
    const { session } = sessionOnPeer({ createStream, connectTimeoutMs: 50, drainTimeoutMs: 50 })
    await expect(session.listen()).rejects.toMatchObject({ code: 'CONNECT_FAILED' })
    await session.close()
    expect(session.connection.state.status).toBe('closed')
  })
})

describe('messages', () => {
  it('with a Subscription Identifier of another process find their handlers by the topic', async () => {
    const handled: string[] = []
    const { peer, session, route } = sessionOnPeer({ ...kept, connect: 'background' })
    route('a/#', async packet => {
      handled.push(packet.topic)
    })
    await session.listen()
    const connection = await peer.accept({ sessionPresent: true })
    connection.send(message('a/1', { qos: 1, messageId: 9, properties: { subscriptionIdentifier: 1 } }))
    await eventually(() => session.stats.inbound.handled === 1)
    expect(handled).toEqual(['a/1'])
    await session.close()
  })

  it.each([
    [1, 2],
    [2, 12],
  ] as const)('at QoS %i in an endless flood are not read, and at most %i wait', async (qos, most) => {
    const { peer, session, route } = sessionOnPeer({
      connect: 'background',
      inbound: { concurrency: 1, maxInFlight: 2, maxQueued: 10 },
      drainTimeoutMs: 10,
    })
    route('a', () => new Promise(() => {}))
    await session.listen()
    const connection = await peer.accept()
    await connection.grant()
    for (let messageId = 1; messageId <= 500; messageId += 1) {
      connection.send(message('a', { qos, messageId }))
      if (qos === 2) connection.send({ cmd: 'pubrel', messageId })
    }
    await eventually(() => session.stats.inbound.waiting === most)
    await quiet(100)
    expect(session.stats.inbound.waiting).toBe(most)
    expect(session.stats.connection).toMatchObject({ connects: 1, losses: 0 })
    await session.close()
  })
})

it('a subscription without a SUBACK ends a fail-fast start', async () => {
  const { peer, session, route } = sessionOnPeer({ connectTimeoutMs: 50, drainTimeoutMs: 50 })
  route('a', async () => {})
  const listening = session.listen()
  await peer.accept()
  await expect(listening).rejects.toMatchObject({
    code: 'TIMEOUT',
    message: expect.stringContaining('1 subscription within'),
  })
  expect(session.connection.state.status).toBe('closed')
})

it('a session that a refused subscription has ended stays closed', async () => {
  const { peer, session, route } = sessionOnPeer()
  route('a', async () => {})
  const refused = session.listen()
  const first = await peer.accept()
  await first.grant(0x87)
  await expect(refused).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED' })
  await expect(session.listen()).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  expect(peer.dials).toBe(1)
})

it('two handlers of one filter are subscribed with the options that both need', async () => {
  const { peer, session } = sessionOnPeer({ connect: 'background' })
  const filter = { subscription: 'a', filter: 'a', levels: ['a'] }
  session.addRoute(
    filter,
    { qos: 0, noLocal: true, retainHandling: 2 },
    newHandler({ name: 'one', run: async () => {} }),
  )
  session.addRoute(
    filter,
    { qos: 1, noLocal: false, retainHandling: 0 },
    newHandler({ name: 'other', run: async () => {} }),
  )
  await session.listen()
  const connection = await peer.accept()
  expect((await connection.grant()).subscriptions).toMatchObject([{ topic: 'a', qos: 1, nl: false, rh: 0 }])
  await closeWith(session, connection)
})

it('after three consecutive connections that end early, the log asks whether another client uses the Client Identifier', async () => {
  const { connection, peer, session, log } = await connected({ clientId: 'truck-7' })
  let current = connection
  for (let count = 0; count < 4; count += 1) {
    current.cut()
    current = await peer.accept()
    await session.connection.whenConnected()
  }
  expect(log.visible.filter(line => line.includes('"truck-7" in use by another client'))).toHaveLength(1)
  await session.close()
})

it('an error is complete in JSON', async () => {
  const { session } = await connected()
  await session.close()
  const failure = await session.connection.whenConnected().catch((error: unknown) => error)
  expect(JSON.parse(JSON.stringify(failure))).toEqual({
    name: 'MqttError',
    code: 'CONNECTION_CLOSED',
    message: 'the connection was closed by this application',
  })
})

it('bytes of any view type are sent as bytes', async () => {
  const { connection, session, mqtt } = await connected()
  await mqtt.publish('a', new Uint8Array([65, 66]).subarray(1))
  expect((await connection.expect('publish')).payload).toEqual(Buffer.from('B'))
  await session.close()
})

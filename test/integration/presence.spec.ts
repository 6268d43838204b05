import { afterEach, describe, expect, it } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { eventually } from '../support/eventually.js'
import { closeWith, sessionOnPeer } from '../support/session-on-peer.js'

const PRESENCE = { topic: 'devices/7/status', online: 'online', offline: 'offline' }
const ONLINE = { topic: PRESENCE.topic, payload: Buffer.from('"online"'), retain: true }
const OFFLINE = { topic: PRESENCE.topic, payload: Buffer.from('"offline"'), retain: true }

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const session of open.splice(0)) await session.close()
})

function present(options: MqttModuleOptions = {}) {
  const all = sessionOnPeer({
    presence: PRESENCE,
    connect: 'background',
    drainTimeoutMs: 200,
    reconnect: { delayMs: [1] },
    ...options,
  })
  open.push(all.session)
  return all
}

describe.each([4, 5] as const)('presence on MQTT version %d', protocolVersion => {
  it('is in CONNECT as the will, and is the first publish of every connection', async () => {
    const { session, peer } = present({ protocolVersion })
    await session.start()
    const waiting = session.publish(
      { topic: 'a', payload: Buffer.from('x'), qos: 0, retain: false },
      { whenBlocked: 'queue' },
    )
    for (let round = 1; round <= 2; round += 1) {
      const connection = await peer.connection()
      expect(await connection.expect('connect')).toMatchObject({
        will: { ...OFFLINE, qos: 1 },
      })
      connection.send({ cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent: false })
      const birth = await connection.expect('publish')
      expect(birth).toMatchObject({ ...ONLINE, qos: 1 })
      if (round === 1) {
        expect(await connection.expect('publish')).toMatchObject({ topic: 'a' })
        expect(await waiting).toEqual({ status: 'sent' })
        await connection.cut()
      }
    }
  })

  it('publishes offline and waits for its acknowledgement before DISCONNECT', async () => {
    const { session, peer } = present({ protocolVersion })
    await session.start()
    const connection = await peer.accept()
    const birth = await connection.expect('publish')
    connection.send({ cmd: 'puback', messageId: birth.messageId ?? 0 })
    await eventually(() => session.stats.outbound.acknowledged === 1)
    await session.drain()
    const closed = session.close()
    const farewell = await connection.expect('publish')
    expect(farewell).toMatchObject({ ...OFFLINE, qos: 1 })
    connection.send({ cmd: 'puback', messageId: farewell.messageId ?? 0 })
    const disconnect = await connection.expect('disconnect')
    expect(disconnect.reasonCode ?? 0).toBe(0)
    await closed
  })

  it('lets the broker publish the will if offline is not acknowledged in time', async () => {
    const { session, peer } = present({ protocolVersion })
    await session.start()
    const connection = await peer.accept()
    const birth = await connection.expect('publish')
    connection.send({ cmd: 'puback', messageId: birth.messageId ?? 0 })
    await eventually(() => session.stats.outbound.acknowledged === 1)
    const closed = session.close()
    expect(await connection.expect('publish')).toMatchObject(OFFLINE)
    if (protocolVersion === 5)
      expect(await connection.expect('disconnect')).toMatchObject({ reasonCode: 0x04 })
    await closed
    await connection.closed()
    const last = connection.received.at(-1)
    expect(last?.cmd).toBe(protocolVersion === 5 ? 'disconnect' : 'publish')
  })
})

describe('presence', () => {
  it('is published although all publishes that the broker accepts at once are unacknowledged', async () => {
    const { session, peer } = present({ clean: false, clientId: 'a' })
    const limits = { properties: { receiveMaximum: 1 } }
    await session.start()
    const first = await peer.accept(limits)
    const birth = await first.expect('publish')
    first.send({ cmd: 'puback', messageId: birth.messageId ?? 0 })
    await eventually(() => session.stats.outbound.acknowledged === 1)
    void session.publish({ topic: 'a', payload: Buffer.from('x'), qos: 1, retain: false })
    await first.expect('publish')
    await first.cut()

    const second = await peer.accept({ ...limits, sessionPresent: true })
    expect(await second.expect('publish')).toMatchObject({ ...ONLINE, qos: 0 })
    const again = await second.expect('publish')
    expect(again).toMatchObject({ topic: 'a', qos: 1, dup: true })
    second.send({ cmd: 'puback', messageId: again.messageId ?? 0 })
    await eventually(() => session.stats.outbound.acknowledged === 2)
  })

  it('is published at QoS 0 if the broker supports no more', async () => {
    const { session, peer } = present()
    await session.start()
    const connection = await peer.accept({ properties: { maximumQoS: 0 } })
    expect(await connection.expect('publish')).toMatchObject({ ...ONLINE, qos: 0 })
  })

  it('logs once that the broker does not support retained messages', async () => {
    const { session, peer, log } = present()
    await session.start()
    for (let round = 1; round <= 2; round += 1) {
      const connection = await peer.accept({ properties: { retainAvailable: false } })
      await eventually(() => session.connection.state.status === 'connected')
      await connection.cut()
    }
    const lines = log.visible.filter(line => line.includes('presence'))
    expect(lines).toEqual([
      'the presence of this client is not announced on "devices/7/status": retain for "devices/7/status": the broker does not support retained messages. Enable retained messages on the broker, or remove the option "presence"',
    ])
  })

  it('explains a CONNACK that refuses the retained will', async () => {
    const { session, peer, log } = present()
    await session.start()
    await peer.accept({ reasonCode: 0x9a })
    await eventually(() => session.connection.state.status === 'closed')
    expect(log.visible).toContain(
      'the presence of this client is not announced on "devices/7/status": the broker refused the will, which is retained and has QoS 1. Enable retained messages on the broker, or remove the option "presence"',
    )
  })

  it('is refused by the broker with an error in the log that names the topic', async () => {
    const { session, peer, log } = present()
    await session.start()
    const connection = await peer.accept()
    const birth = await connection.expect('publish')
    connection.send({ cmd: 'puback', messageId: birth.messageId ?? 0, reasonCode: 0x87 })
    await eventually(() => session.stats.outbound.refused === 1)
    expect(log.visible).toContain('the broker refused the publish to "devices/7/status": 0x87 Not authorized')
  })

  it('publishes offline after the last publishes of the application', async () => {
    const { session, peer, route } = present()
    route('in/#', async () => {})
    await session.start()
    const connection = await peer.accept()
    await session.listen().catch(() => {})
    const subscribe = await connection.find('subscribe')
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [1] })
    const last = session.publish({ topic: 'last', payload: Buffer.from('x'), qos: 0, retain: false })
    await closeWith(session, connection)
    expect(await last).toEqual({ status: 'sent' })
    const topics = connection.received.flatMap(packet => (packet.cmd === 'publish' ? [packet.topic] : []))
    expect(topics).toEqual([PRESENCE.topic, 'last', PRESENCE.topic])
  })
})

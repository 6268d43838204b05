import { describe, expect, it, vi } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { holdClock } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import {
  comeBack,
  finish,
  flow,
  goOffline,
  pass,
  publisherOnPeer,
  SlowLink,
  Watched,
} from '../support/publisher-on-peer.js'

holdClock()

const KEPT = { clean: false, clientId: 'kept' } as const
const RESUMED = { sessionPresent: true } as const

const publishesOf = ({ received }: PeerConnection) =>
  received.flatMap(packet => (packet.cmd === 'publish' ? [packet] : []))
const idsOf = (connection: PeerConnection) => publishesOf(connection).map(({ messageId }) => messageId ?? 0)

async function publisher(options: MqttModuleOptions = {}) {
  const parts = await publisherOnPeer(options)
  const { mqtt } = parts
  const publish = (qos: 1 | 2, messageExpiryInterval?: number, payload: Buffer = Buffer.from('x')) =>
    new Watched(
      mqtt.publish('a', payload, {
        qos,
        ...(messageExpiryInterval === undefined ? {} : { properties: { messageExpiryInterval } }),
      }),
    )
  return { ...parts, publish }
}

describe('a broker that never acknowledges', () => {
  it('causes a reconnect after 30 s, with DISCONNECT and a cause that names the missing packet', async () => {
    const parts = await publisher()
    const { connection, session, mqtt, log, publish } = parts
    const all = Array.from({ length: 50 }, () => publish(1))
    await pass(14_900, 100)
    expect(session.health).toMatchObject({ state: 'up', reasons: [] })
    await pass(200, 100)
    expect(session.health).toMatchObject({
      state: 'degraded',
      reasons: ['the broker has not acknowledged a publish for half of outbound.ackTimeoutMs'],
    })
    await pass(14_700, 100)
    expect(mqtt.stats().connection).toMatchObject({ losses: 0, ackTimeouts: 0 })
    await pass(200, 100)
    await nextState(session, 'waiting')
    const text =
      'the broker sent no PUBACK for the publish to "a" within 30000 ms; 50 publishes are unacknowledged'
    expect(connection.received.at(-1)).toMatchObject({ cmd: 'disconnect', reasonCode: 0x80 })
    expect(log.visible).toContain(`connection lost: ${text}; next attempt in 1000 ms`)
    expect(mqtt.stats().connection).toMatchObject({ losses: 1, ackTimeouts: 1 })
    for (const { outcome } of all)
      expect(outcome).toMatchObject({ status: 'lost', cause: { code: 'TIMEOUT', message: text } })
    await comeBack(parts)
    expect(session.health.state).toBe('up')
    await finish(parts)
  })

  it('receives the unacknowledged publishes of a persistent session again on the next connection', async () => {
    const parts = await publisher({ ...KEPT, outbound: { ackTimeoutMs: 2_000 } })
    const { connection, session, publish } = parts
    const watched = publish(1)
    await flow()
    await pass(2_000, 100)
    await nextState(session, 'waiting')
    const next = await comeBack(parts, RESUMED)
    const repeated = await next.expect('publish')
    expect(repeated).toMatchObject({ dup: true, messageId: idsOf(connection)[0] })
    next.send({ cmd: 'puback', messageId: repeated.messageId ?? 0 })
    await flow()
    expect(watched.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await finish(parts)
  })

  it.each([
    ['PUBREC', []],
    ['PUBCOMP', ['pubrec']],
  ] as const)('causes a reconnect for a missing %s', async (missing, sent) => {
    const parts = await publisher({ outbound: { ackTimeoutMs: 2_000 } })
    const { connection, session, log, publish } = parts
    publish(2)
    const { messageId = 0 } = await connection.expect('publish')
    for (const cmd of sent) connection.send({ cmd, messageId })
    await flow()
    await pass(2_500, 100)
    await nextState(session, 'waiting')
    expect(log.visible.at(-1)).toContain(`connection lost: the broker sent no ${missing} `)
    await comeBack(parts)
    await finish(parts)
  })
})

describe('a link that is slow, and a broker that acknowledges', () => {
  it('causes no reconnect with 1,000 publishes in flight that take 100 s', async () => {
    const parts = await publisher({ outbound: { maxInFlight: 1_000, flowControl: 'kernel' } })
    const { connection, session, mqtt, publish } = parts
    const all = Array.from({ length: 1_000 }, () => publish(1))
    await flow()
    const ids = idsOf(connection)
    expect(ids).toHaveLength(1_000)
    for (let at = 0; at < ids.length; at += 10) {
      await pass(1_000)
      for (const messageId of ids.slice(at, at + 10)) connection.send({ cmd: 'puback', messageId })
      expect(session.health.state).toBe('up')
    }
    await flow()
    expect(all.every(({ outcome }) => outcome?.status === 'acknowledged')).toBe(true)
    expect(mqtt.stats().connection).toMatchObject({ losses: 0 })
    await finish(parts)
  })

  it('has time to carry one large message', async () => {
    const parts = await publisher()
    const { connection, mqtt, publish } = parts
    const link = await SlowLink.of(parts, 0)
    const large = publish(1, undefined, Buffer.alloc(300_000))
    await pass(60_000, 1_000)
    await link.free()
    connection.send({ cmd: 'puback', messageId: idsOf(connection)[0] ?? 0 })
    await flow()
    expect(large.outcome).toMatchObject({ status: 'acknowledged' })
    expect(mqtt.stats().connection).toMatchObject({ losses: 0 })
    await finish(parts)
  })
})

describe('a broker that downgrades QoS 2 to QoS 1', () => {
  it.each([
    [0, { status: 'acknowledged', reasonCode: 0 }],
    [0x97, { status: 'refused', reasonCode: 0x97 }],
  ])('settles the publish by PUBACK 0x%x and frees its slot', async (reasonCode, outcome) => {
    const parts = await publisher({ outbound: { maxInFlight: 1 } })
    const { connection, mqtt, publish } = parts
    for (let count = 0; count < 3; count += 1) {
      const watched = publish(2)
      const { messageId = 0 } = await connection.expect('publish')
      connection.send({ cmd: 'puback', messageId, reasonCode })
      await flow()
      expect(watched.outcome).toEqual(outcome)
    }
    expect(mqtt.stats().outbound.inFlight).toBe(0)
    await finish(parts)
  })
})

describe('a publish with Message Expiry whose session is resumed', () => {
  it('is resent with the remaining interval', async () => {
    const parts = await publisher(KEPT)
    const { publish } = parts
    const watched = publish(1, 10)
    await flow()
    await goOffline(parts)
    await pass(3_000)
    const next = await comeBack(parts, RESUMED)
    const repeated = await next.expect('publish')
    expect(repeated).toMatchObject({ dup: true, properties: { messageExpiryInterval: 6 } })
    next.send({ cmd: 'puback', messageId: repeated.messageId ?? 0 })
    await flow()
    expect(watched.outcome).toMatchObject({ status: 'acknowledged' })
    await finish(parts)
  })

  it.each([4, 5] as const)('is dropped as expired after the interval (version %i)', async protocolVersion => {
    const parts = await publisher({ ...KEPT, protocolVersion })
    const { publish, mqtt } = parts
    const watched = publish(1, 2)
    await flow()
    await goOffline(parts)
    await pass(6_000)
    const next = await comeBack(parts, RESUMED)
    await flow()
    expect(watched.outcome).toEqual({ status: 'dropped', reason: 'expired' })
    expect(publishesOf(next)).toEqual([])
    expect(mqtt.stats().outbound).toMatchObject({ inFlight: 0, dropped: { expired: 1 } })
    publish(1)
    await next.expect('publish')
    await finish(parts)
  })

  it('has its Packet Identifier released at the broker first, at QoS 2', async () => {
    const parts = await publisher({ ...KEPT, outbound: { maxInFlight: 1 } })
    const { connection, publish } = parts
    const watched = publish(2, 2)
    await flow()
    const [messageId = 0] = idsOf(connection)
    await goOffline(parts)
    await pass(6_000)
    const next = await comeBack(parts, RESUMED)
    expect(await next.expect('pubrel')).toMatchObject({ messageId })
    await flow()
    expect(watched.outcome).toEqual({ status: 'dropped', reason: 'expired' })
    const second = publish(2)
    await flow()
    expect(publishesOf(next)).toEqual([])
    next.send({ cmd: 'pubcomp', messageId, reasonCode: 0x92 })
    expect((await next.expect('publish')).messageId).not.toBe(messageId)
    expect(second.outcome).toBeUndefined()
    await finish(parts)
  })

  it('continues with PUBREL after PUBREC, even after the interval', async () => {
    const parts = await publisher(KEPT)
    const { connection, publish } = parts
    const watched = publish(2, 2)
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'pubrec', messageId })
    await connection.expect('pubrel')
    await goOffline(parts)
    await pass(6_000)
    const next = await comeBack(parts, RESUMED)
    expect(await next.expect('pubrel')).toMatchObject({ messageId })
    next.send({ cmd: 'pubcomp', messageId })
    await flow()
    expect(watched.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await finish(parts)
  })
})

describe('PUBCOMP 0x92 (Packet Identifier not found)', () => {
  it('is a refusal if the flow was not interrupted', async () => {
    const parts = await publisher()
    const { connection, publish } = parts
    const watched = publish(2)
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'pubrec', messageId })
    await connection.expect('pubrel')
    connection.send({ cmd: 'pubcomp', messageId, reasonCode: 0x92 })
    await flow()
    expect(watched.outcome).toEqual({ status: 'refused', reasonCode: 0x92 })
    await finish(parts)
  })

  it('is a success if PUBREL was resent after a reconnect', async () => {
    const parts = await publisher(KEPT)
    const { connection, publish } = parts
    const watched = publish(2)
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'pubrec', messageId })
    await connection.expect('pubrel')
    await goOffline(parts)
    const next = await comeBack(parts, RESUMED)
    await next.expect('pubrel')
    next.send({ cmd: 'pubcomp', messageId, reasonCode: 0x92 })
    await flow()
    expect(watched.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await finish(parts)
  })
})

it('a resumed session visits each unacknowledged publish once, even with a small Receive Maximum', async () => {
  const count = 2_000
  const parts = await publisher({ ...KEPT, outbound: { maxInFlight: count, flowControl: 'kernel' } })
  const { publish } = parts
  const all = Array.from({ length: count }, () => publish(1))
  await flow()
  await goOffline(parts)
  const next = await comeBack(parts, { ...RESUMED, properties: { receiveMaximum: 20 } })
  const copies = vi.spyOn(Map.prototype, Symbol.iterator)
  const walks = vi.spyOn(Map.prototype, 'values')
  await flow()
  for (let at = 0; at < count; at += 20) {
    const ids = idsOf(next).slice(at)
    expect(ids).toHaveLength(20)
    for (const messageId of ids) next.send({ cmd: 'puback', messageId })
    await flow()
  }
  const large = [...copies.mock.contexts, ...walks.mock.contexts].filter(
    map => map instanceof Map && map.size > 100,
  )
  vi.restoreAllMocks()
  expect(large.length).toBeLessThan(5)
  expect(all.every(({ outcome }) => outcome?.status === 'acknowledged')).toBe(true)
  await finish(parts)
})

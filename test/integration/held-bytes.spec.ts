import { describe, expect, it, vi } from 'vitest'
import { deadLetter } from '../../src/index.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import { message } from '../support/session-on-peer.js'
import { acks, json, KEPT, qos1, settle, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

holdClock()

const KB = 1_024
const MOST = 100 * KB
const inbound = { maxQueuedBytes: MOST }
const never = () => new Promise<never>(() => {})
const TEN_KB = 'x'.repeat(10 * KB)

describe.each(VERSIONS)('MQTT %i: inbound.maxQueuedBytes', protocolVersion => {
  const start = (options = {}) => subscriberOnPeer({ protocolVersion, inbound: { ...inbound, ...options } })

  it('limits the bytes of QoS 0 messages in handlers that hang and behind them', async () => {
    const parts = await start({ concurrency: 2 })
    const { mqtt, connection } = parts
    mqtt.subscribe('a/+', never, { qos: 0 })
    await connection.grant()
    for (let n = 0; n < 100; n += 1) connection.send(json(`a/${n}`, TEN_KB))
    await settle(mqtt)
    const { queuedBytes, waiting, running, dropped } = mqtt.stats().inbound
    expect(queuedBytes).toBeLessThanOrEqual(MOST)
    expect({ running, waiting, dropped }).toEqual({ running: 2, waiting: 7, dropped: 91 })
    await finish(parts)
    expect(mqtt.stats().inbound.queuedBytes).toBe(0)
  })

  it('drops a new message if no waiting message can be dropped for it', async () => {
    const parts = await start()
    const { mqtt, connection } = parts
    mqtt.subscribe('a/+', never, { qos: 0 })
    await connection.grant()
    for (let n = 0; n < 16; n += 1) connection.send(json(`a/${n}`, TEN_KB))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ running: 9, waiting: 0, dropped: 7 })
    await finish(parts)
  })

  it('accepts a single larger message', async () => {
    const parts = await start({ maxQueuedBytes: 1 })
    const { mqtt, connection } = parts
    const got: unknown[] = []
    mqtt.subscribe('a', ({ qos }) => got.push(qos), { qos: 2 })
    await connection.grant()
    connection.send(json('a', TEN_KB))
    connection.send(json('a', TEN_KB, { qos: 1, messageId: 1 }))
    connection.send(json('a', TEN_KB, { qos: 2, messageId: 2 }))
    connection.send({ cmd: 'pubrel', messageId: 2 })
    await settle(mqtt)
    expect(got).toEqual([0, 1, 2])
    await finish(parts)
  })

  it('limits a loop that is not read, which leaves room for others', async () => {
    const parts = await start()
    const { mqtt, connection } = parts
    const loop = mqtt.messages('loop', { qos: 0 })
    await connection.grant()
    const got: unknown[] = []
    mqtt.subscribe('other', ({ payload }) => got.push(payload), { qos: 0 })
    await connection.grant()
    for (let n = 0; n < 100; n += 1) connection.send(json('loop', TEN_KB))
    await settle(mqtt)
    expect(mqtt.stats().inbound.queuedBytes).toBeGreaterThan(0)
    expect(mqtt.stats().inbound.queuedBytes).toBeLessThanOrEqual(MOST / 4)
    connection.send(json('other', 1))
    await settle(mqtt)
    expect(got).toEqual([1])
    await loop.return?.()
    expect(mqtt.stats().inbound.queuedBytes).toBe(0)
    await finish(parts)
  })

  it('stops reading QoS 1 until handlers have made room, without a loss', async () => {
    const parts = await start({ maxInFlight: 1_000 })
    const { mqtt, connection } = parts
    const gate = new Gate()
    mqtt.subscribe('a/+', () => gate.pass())
    await connection.grant()
    for (let id = 1; id <= 100; id += 1) connection.send(qos1(`a/${id}`, id, TEN_KB))
    await settle(mqtt)
    expect(mqtt.stats().inbound.queuedBytes).toBeLessThanOrEqual(MOST + 11 * KB)
    gate.open()
    await pass(200, 10)
    expect(acks(connection)).toHaveLength(100)
    await finish(parts)
  })

  it('limits the unacknowledged messages if ack() is never called', async () => {
    const parts = await start({ maxInFlight: 5, maxQueued: 10 })
    const { mqtt, connection } = parts
    mqtt.subscribe('a', () => {}, { ack: 'manual' })
    await connection.grant()
    for (let id = 1; id <= 500; id += 1) connection.send(qos1('a', id))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ received: protocolVersion === 5 ? 6 : 16 })
    await finish(parts)
  })
})

describe('dead letters that the broker has not acknowledged', () => {
  /** Not UTF-8, so that the dead letter on MQTT 3.1.1 contains it as base64. */
  const bytes = Buffer.alloc(10 * KB, 0xff)
  const fail = () => Promise.reject(new Error('it is broken'))
  const raw = (id: number, payload = bytes) => ({ ...qos1(`a/${id}`, id), payload })

  async function failing(protocolVersion: 4 | 5, count: number) {
    const parts = await subscriberOnPeer({ protocolVersion, inbound, ...KEPT })
    const { mqtt, connection } = parts
    mqtt.subscribe('a/+', fail, { codec: 'bytes', onFailure: deadLetter('dead') })
    await connection.grant()
    for (let id = 1; id <= count; id += 1) connection.send(raw(id))
    await settle(mqtt)
    return parts
  }

  const lettersTo = (connection: PeerConnection) =>
    connection.received.flatMap(packet => (packet.cmd === 'publish' ? [packet] : []))

  async function acknowledge(connection: PeerConnection): Promise<void> {
    const { messageId = 0 } = await connection.find('publish')
    connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
    await pass(2, 1)
  }

  it('count as held bytes on MQTT 3.1.1, where they are copies of the messages', async () => {
    const parts = await failing(4, 40)
    const { mqtt, connection } = parts
    const letters = lettersTo(connection)
    const { running, queuedBytes } = mqtt.stats().inbound
    const lettersBytes = letters.reduce((sum, { payload }) => sum + payload.length, 0)
    expect(letters.length).toBeGreaterThan(0)
    // The message that reached the limit, and the dead letter that is always published.
    expect(lettersBytes + running * bytes.length).toBeLessThanOrEqual(MOST + 11 * KB + 14 * KB)
    expect(queuedBytes).toBeGreaterThan(lettersBytes + running * bytes.length)
    await finish(parts)
  })

  it.each(VERSIONS)('make room for the next ones, and lose nothing, on MQTT %i', async version => {
    const parts = await failing(version, 8)
    const { mqtt, connection } = parts
    for (let id = 9; id <= 40; id += 1) {
      await acknowledge(connection)
      connection.send(raw(id))
      await settle(mqtt)
      expect(mqtt.stats().inbound.queuedBytes).toBeLessThanOrEqual(MOST)
    }
    for (let last = 0; last < 8; last += 1) await acknowledge(connection)
    expect(acks(connection)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1))
    expect(mqtt.stats().inbound).toMatchObject({ deadLettered: 40, running: 0, queuedBytes: 0 })
    await finish(parts)
  })

  it('are one at a time if other messages use up the limit', async () => {
    const parts = await subscriberOnPeer({ protocolVersion: 4, inbound, ...KEPT })
    const { mqtt, connection } = parts
    mqtt.subscribe('hangs', never, { codec: 'bytes' })
    mqtt.subscribe('a/+', fail, { codec: 'bytes', onFailure: deadLetter('dead') })
    await connection.grant()
    await connection.grant()
    connection.send({ ...qos1('hangs', 1), payload: Buffer.alloc(80 * KB) })
    for (const id of [2, 3, 4]) connection.send(raw(id, Buffer.alloc(4 * KB, 0xff)))
    await settle(mqtt)
    expect(lettersTo(connection)).toHaveLength(1)
    for (let done = 0; done < 3; done += 1) await acknowledge(connection)
    expect(mqtt.stats().inbound).toMatchObject({ deadLettered: 3, running: 1 })
    await finish(parts)
  })

  it('are given back with their messages if they still wait for room when the client closes', async () => {
    const parts = await failing(4, 40)
    const { mqtt, connection } = parts
    const { length } = lettersTo(connection)
    expect(mqtt.stats().inbound.running).toBeGreaterThan(length)
    await finish(parts)
    await settle(mqtt)
    expect(lettersTo(connection)).toHaveLength(length)
    expect(mqtt.stats().inbound).toMatchObject({ deadLettered: 0, running: 0, queuedBytes: 0 })
  })
})

describe('QoS 2 messages that the broker does not release', () => {
  const kb = (messageId: number) => json('a', TEN_KB, { qos: 2, messageId })

  it('count as unreleased, once each, and as received when they are released', async () => {
    const parts = await subscriberOnPeer({ protocolVersion: 4 })
    const { mqtt, connection } = parts
    mqtt.subscribe('a', () => {}, { qos: 2 })
    await connection.grant()
    for (const id of [1, 2, 2]) connection.send(kb(id))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ received: 0, unreleased: 2 })
    expect(mqtt.stats().inbound.queuedBytes).toBeGreaterThan(20 * KB)
    connection.send({ cmd: 'pubrel', messageId: 1 })
    connection.send({ cmd: 'pubrel', messageId: 2 })
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, unreleased: 0, queuedBytes: 0 })
    await finish(parts)
  })

  it.each(VERSIONS)(
    'are left to the broker at the limit, and end the connection after 10 s, on MQTT %i',
    async protocolVersion => {
      const parts = await subscriberOnPeer({ protocolVersion, inbound })
      const { mqtt, connection, session } = parts
      for (let id = 1; id <= 20; id += 1) connection.send(kb(id))
      await settle(mqtt)
      expect(mqtt.stats().inbound).toMatchObject({ received: 10, dropped: 10, unreleased: 10 })
      await pass(9_900, 100)
      expect(session.connection.state.status).toBe('connected')
      await pass(200, 100)
      await connection.closed()
      await settle(mqtt)
      expect(session.connection.state).toMatchObject({ status: 'waiting', cause: { reasonCode: 0x93 } })
      if (protocolVersion === 5)
        expect(connection.received.at(-1)).toMatchObject({ cmd: 'disconnect', reasonCode: 0x93 })
      vi.advanceTimersByTime(1_000)
      const next = await parts.peer.accept()
      await session.connection.whenConnected()
      expect(mqtt.stats().inbound).toMatchObject({ unreleased: 0, queuedBytes: 0 })
      next.send(message('nobody'))
      await settle(mqtt)
      await finish(parts)
    },
  )
})

import { describe, expect, it } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass } from '../support/publisher-on-peer.js'
import {
  acks,
  countOf,
  json,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const MAX_QUEUED = 8
/** More than the stream holds between the peer and the parser. */
const MANY = 400

/** One handler at a time, which the test ends. */
async function stalling(options: MqttModuleOptions = {}, inbound: MqttModuleOptions['inbound'] = {}) {
  const parts = await subscriberOnPeer({
    ...options,
    inbound: { concurrency: 1, maxQueued: MAX_QUEUED, overflow: 'stall', ...inbound },
  })
  const seen: unknown[] = []
  const gates: Gate[] = []
  let isFree = false
  parts.mqtt.subscribe('a', ({ payload }) => {
    seen.push(payload)
    if (isFree) return undefined
    const gate = new Gate()
    gates.push(gate)
    return gate.pass()
  })
  await parts.connection.grant()
  const end = async (count: number): Promise<void> => {
    for (let run = 0; run < count; run += 1) {
      gates.shift()?.open()
      await settle(parts.mqtt)
    }
  }
  const free = async (): Promise<void> => {
    isFree = true
    await end(gates.length)
  }
  return { ...parts, seen, end, free }
}

async function flood({ mqtt, connection }: SubscriberOnPeer, count = MANY): Promise<void> {
  for (let value = 1; value <= count; value += 1) connection.send(json('a', value))
  await settle(mqtt)
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

describe.each(VERSIONS)('MQTT %i: overflow "stall"', protocolVersion => {
  it('stops reading at the limit, loses nothing, and resumes when half of the messages are handled', async () => {
    const parts = await stalling({ protocolVersion })
    const { mqtt, seen } = parts
    await flood(parts)
    const full = { received: MAX_QUEUED + 2, waiting: MAX_QUEUED + 1, running: 1, dropped: 0 }
    expect(mqtt.stats().inbound).toMatchObject(full)
    await parts.end(MAX_QUEUED / 2)
    expect(mqtt.stats().inbound).toMatchObject({ received: full.received, waiting: MAX_QUEUED / 2 + 1 })
    await parts.end(1)
    expect(mqtt.stats().inbound.received).toBeGreaterThan(full.received)
    expect(mqtt.stats().inbound).toMatchObject({ waiting: MAX_QUEUED + 1, dropped: 0 })
    await parts.free()
    for (let step = 0; step < 20; step += 1) await settle(mqtt)
    expect(seen).toEqual(upTo(MANY))
    expect(mqtt.stats().inbound).toMatchObject({ received: MANY, handled: MANY, dropped: 0 })
    await finish(parts)
  })

  it('continues to write publishes of the application', async () => {
    const parts = await stalling({ protocolVersion })
    await flood(parts)
    expect(await parts.mqtt.publish('out', 1)).toEqual({ status: 'sent' })
    await settle(parts.mqtt)
    expect((await parts.connection.find('publish')).topic).toBe('out')
    await finish(parts)
  })

  it('also stops reading QoS 1, instead of ending the connection', async () => {
    const parts = await stalling({ protocolVersion }, { maxInFlight: 2, maxQueued: 4 })
    const { mqtt, connection, session } = parts
    for (let id = 1; id <= MANY; id += 1) connection.send(qos1('a', id))
    await settle(mqtt)
    expect(mqtt.stats().inbound.received).toBeLessThan(20)
    expect(acks(connection)).toEqual([])
    await parts.free()
    for (let step = 0; step < 20; step += 1) await settle(mqtt)
    expect(acks(connection)).toEqual(upTo(MANY))
    expect(session.stats.connection.losses).toBe(0)
    await finish(parts)
  })

  it('starts again on the next connection', async () => {
    const parts = await stalling({ protocolVersion })
    const { mqtt } = parts
    await flood(parts)
    await goOffline(parts)
    const second = await comeBack(parts)
    await second.grant()
    await parts.free()
    const before = mqtt.stats().inbound.received
    await flood({ ...parts, connection: second }, 20)
    expect(mqtt.stats().inbound).toMatchObject({ received: before + 20, waiting: 0, running: 0, dropped: 0 })
    await finish(parts)
  })

  it('ends with the application', async () => {
    const parts = await stalling({ protocolVersion })
    await flood(parts)
    await finish(parts)
    expect(parts.session.connection.state.status).toBe('closed')
  })
})

describe.each(VERSIONS)('MQTT %i: Keep Alive of a stalled connection', protocolVersion => {
  it('continues even though no PINGRESP can be read, and does not close the connection', async () => {
    const parts = await stalling({ protocolVersion, keepalive: 60, outbound: { flowControl: 'kernel' } })
    const { mqtt, connection, session } = parts
    await flood(parts)
    const before = countOf(connection, 'pingreq')
    for (let minutes = 1; minutes <= 10; minutes += 1) {
      await pass(60_000, 5_000)
      expect(countOf(connection, 'pingreq')).toBeGreaterThanOrEqual(before + minutes)
    }
    expect(session.connection.state.status).toBe('connected')
    expect(mqtt.stats().inbound).toMatchObject({ received: MAX_QUEUED + 2, dropped: 0 })
    await parts.free()
    for (let step = 0; step < 20; step += 1) await settle(mqtt)
    expect(mqtt.stats().inbound.handled).toBe(MANY)
    await pass(300_000, 5_000)
    expect(session.stats.connection).toMatchObject({ connects: 1, losses: 0 })
    await finish(parts)
  })

  it('resumes with reading: a peer that is then silent is disconnected', async () => {
    const parts = await stalling({ protocolVersion, keepalive: 60, outbound: { flowControl: 'kernel' } })
    const { mqtt, connection, session } = parts
    await flood(parts)
    await pass(120_000, 5_000)
    connection.respondsToPings = false
    await parts.free()
    for (let step = 0; step < 20; step += 1) await settle(mqtt)
    await pass(200_000, 5_000)
    expect(session.stats.connection.losses).toBe(1)
    await finish(parts)
  })
})

/** Responds to every QoS 1 publish since the last call. */
function answerAll(connection: PeerConnection, answered: Set<number>): void {
  for (const packet of connection.received) {
    if (packet.cmd !== 'publish' || packet.messageId === undefined || answered.has(packet.messageId)) continue
    answered.add(packet.messageId)
    connection.send({ cmd: 'puback', messageId: packet.messageId, reasonCode: 0 })
  }
}

describe.each(VERSIONS)(
  'MQTT %i: a handler that waits for the broker on a stalled connection',
  protocolVersion => {
    it('receives its response: the client continues reading and drops the oldest messages', async () => {
      const parts = await subscriberOnPeer({
        protocolVersion,
        inbound: { concurrency: 1, maxQueued: MAX_QUEUED, overflow: 'stall' },
      })
      const { mqtt, connection, session } = parts
      const outcomes: string[] = []
      mqtt.subscribe('a', async ({ payload }) => {
        const { status } = await mqtt.publish('out', payload, { qos: 1 })
        outcomes.push(status)
      })
      await connection.grant()
      const answered = new Set<number>()
      await flood(parts, 100)
      expect(mqtt.stats().inbound.received).toBe(MAX_QUEUED + 2)
      answerAll(connection, answered)
      await settle(mqtt)
      expect(outcomes).toEqual([])
      for (let step = 0; step < 100; step += 1) {
        await pass(250, 50)
        answerAll(connection, answered)
        await settle(mqtt)
      }
      const { received, handled, dropped, waiting, running } = mqtt.stats().inbound
      expect({ received, waiting, running }).toEqual({ received: 100, waiting: 0, running: 0 })
      expect(dropped).toBeGreaterThan(0)
      expect(outcomes).toEqual(Array.from({ length: handled }, () => 'acknowledged'))
      expect(session.stats.connection.losses).toBe(0)
      await finish(parts)
    })
  },
)

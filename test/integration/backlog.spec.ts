import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../src/index.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { FloodingBroker } from '../support/flooding-broker.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import {
  countOf,
  json,
  KEPT,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const KB = 1_024
const MOST = 100 * KB
const LARGE = 10 * KB
const STEP_MS = 100

type Run = (value: number, parts: SubscriberOnPeer) => unknown

const slow: Run = () => new Promise(resolve => setTimeout(resolve, 1_000))
const publish: Run = (value, { mqtt }) => mqtt.publish('out', value, { qos: 1, whenBlocked: 'wait' })

/** A client, and a broker that has sent it everything at once. */
async function flooded(broker: FloodingBroker, options: MqttModuleOptions, run: Run, handler = {}) {
  const parts = await subscriberOnPeer({ inbound: { maxQueuedBytes: MOST }, ...options })
  const seen: number[] = []
  parts.mqtt.subscribe<number[]>(
    'a/#',
    ({ payload: [value = 0] }) => {
      seen.push(value)
      return run(value, parts)
    },
    { qos: broker.qos, ...handler },
  )
  await parts.connection.grant()
  broker.flood(parts.connection)
  return { ...parts, seen, most: 0 }
}

type Flooded = Awaited<ReturnType<typeof flooded>>

/** Plays the broker until it has no message left, and resumes the session on each new connection. */
async function drain(parts: Flooded, broker: FloodingBroker, each: () => void = () => {}): Promise<void> {
  const { peer, mqtt } = parts
  let dials = peer.dials
  for (let step = 0; broker.left > 0 || mqtt.stats().inbound.running > 0; step += 1) {
    expect(step, 'the backlog does not drain').toBeLessThan(5_000)
    await pass(STEP_MS)
    broker.respond()
    each()
    parts.most = Math.max(parts.most, mqtt.stats().inbound.queuedBytes)
    if (peer.dials === dials) continue
    dials = peer.dials
    parts.connection = await peer.accept({ sessionPresent: true })
    broker.flood(parts.connection)
  }
  await settle(mqtt)
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

/** Everything was handled once and in order, and the client ended no connection by an error. */
function expectDrained({ mqtt, seen, most, log }: Flooded, count: number): void {
  expect(seen).toEqual(upTo(count))
  const { inbound, connection } = mqtt.stats()
  expect(inbound).toMatchObject({ waiting: 0, running: 0, unreleased: 0, queuedBytes: 0, dropped: 0 })
  expect(connection.losses).toBe(0)
  expect(most).toBeLessThanOrEqual(MOST + 2 * LARGE)
  expect(log.visible.filter(line => line.includes('connection lost'))).toEqual([])
}

describe.each(VERSIONS)(
  'MQTT %i: a broker that sends a backlog at once, without flow control',
  protocolVersion => {
    const options = { protocolVersion, ...KEPT }

    it('is read as fast as handlers run, on one connection, if nothing is awaited', async () => {
      const broker = new FloodingBroker({ count: 20, bytes: LARGE })
      const parts = await flooded(broker, options, slow)
      await drain(parts, broker)
      expectDrained(parts, 20)
      expect(parts.mqtt.stats().connection.connects).toBe(1)
      expect(parts.mqtt.stats().inbound.givenBack).toBe(0)
      await finish(parts)
    })

    it('drains while handlers publish at QoS 1, with progress on every connection', async () => {
      const broker = new FloodingBroker({ count: 60, bytes: LARGE })
      const parts = await flooded(broker, options, publish)
      await drain(parts, broker)
      expectDrained(parts, 60)
      const { connects } = parts.mqtt.stats().connection
      expect(connects).toBeGreaterThan(1)
      // Each connection holds at least nine messages before it leaves others to the broker.
      expect(connects).toBeLessThanOrEqual(7)
      const lines = parts.log.visible.filter(line =>
        line.includes('it will reconnect to receive the others again'),
      )
      expect(lines).toHaveLength(connects - 1)
      await finish(parts)
    })

    it('drains with handlers of 1 s while the application publishes at QoS 1', async () => {
      const broker = new FloodingBroker({ count: 20, bytes: LARGE })
      const parts = await flooded(broker, options, slow)
      let steps = 0
      const outcomes: string[] = []
      await drain(parts, broker, () => {
        steps += 1
        if (steps % 5 === 0)
          void parts.mqtt
            .publish('out', steps, { qos: 1, whenBlocked: 'wait' })
            .then(({ status }) => outcomes.push(status))
      })
      expectDrained(parts, 20)
      expect(outcomes.length).toBeGreaterThan(20)
      expect(new Set(outcomes)).toEqual(new Set(['acknowledged']))
      await finish(parts)
    })

    it('drains while every message becomes a dead letter', async () => {
      const broker = new FloodingBroker({ count: 20, bytes: LARGE })
      const fail: Run = () => Promise.reject(new Error('broken'))
      const parts = await flooded(broker, options, fail, { onFailure: deadLetter('dead') })
      await drain(parts, broker)
      expect(parts.mqtt.stats().inbound).toMatchObject({ deadLettered: 20, queuedBytes: 0 })
      expect(parts.mqtt.stats().connection.losses).toBe(0)
      await finish(parts)
    })

    it('drains at QoS 2, each message once, although PUBREL is behind unread messages', async () => {
      const broker = new FloodingBroker({ count: 40, bytes: LARGE, qos: 2 })
      const parts = await flooded(broker, options, () => new Promise(resolve => setTimeout(resolve, 100)))
      await drain(parts, broker)
      expectDrained(parts, 40)
      await finish(parts)
    })

    it('drains with small messages, whose number is the limit', async () => {
      const broker = new FloodingBroker({ count: 300, bytes: 10 })
      const inbound = { maxInFlight: 4, maxQueued: 16 }
      const parts = await flooded(broker, { ...options, inbound }, publish)
      await drain(parts, broker)
      expectDrained(parts, 300)
      await finish(parts)
    })
  },
)

describe('messages that are left to the broker', () => {
  /** A client that leaves messages to the broker, and waits for a PUBACK. */
  async function leaving(options: MqttModuleOptions = KEPT) {
    const broker = new FloodingBroker({ count: 40, bytes: LARGE })
    const parts = await flooded(broker, { protocolVersion: 4, ...options }, publish)
    await pass(300, 50)
    await settle(parts.mqtt)
    return { ...parts, broker }
  }

  it('do not hold back responses of the broker', async () => {
    const parts = await leaving()
    const { mqtt, connection, broker } = parts
    const subscription = mqtt.subscribe('b', () => {})
    let isGranted = false
    void subscription.whenGranted().then(() => {
      isGranted = true
    })
    const { messageId = 0 } = await connection.find('subscribe')
    connection.send({ cmd: 'suback', messageId, granted: [1] })
    await settle(mqtt)
    expect(isGranted).toBe(true)
    expect(mqtt.stats().outbound.acknowledged).toBe(0)
    broker.respond()
    await settle(mqtt)
    expect(mqtt.stats().outbound.acknowledged).toBe(1)
    expect(mqtt.stats().inbound.givenBack).toBe(29)
    await finish(parts)
  })

  it('come again on the next connection, which follows DISCONNECT without a delay', async () => {
    const parts = await leaving()
    const { connection, broker, peer } = parts
    const dials = peer.dials
    for (let step = 0; peer.dials === dials; step += 1) {
      expect(step).toBeLessThan(100)
      broker.respond()
      await pass(1)
    }
    expect(connection.received.at(-1)).toMatchObject({ cmd: 'disconnect' })
    broker.respond()
    expect(broker.left).toBe(29)
    await peer.accept({ sessionPresent: true })
    await finish(parts)
  })

  it('count as dropped if the broker does not keep the session', async () => {
    const parts = await leaving({})
    expect(parts.mqtt.stats().inbound).toMatchObject({ dropped: 29, givenBack: 0 })
    expect(parts.log.visible.join()).toContain('QoS 1 and 2 messages are dropped')
    await finish(parts)
  })

  it('end with a shutdown, which does not replace the connection', async () => {
    const parts = await leaving()
    const { session, broker, peer } = parts
    const dials = peer.dials
    const closed = session.close()
    for (let step = 0; session.connection.state.status !== 'closed'; step += 1) {
      expect(step).toBeLessThan(1_000)
      broker.respond()
      await pass(10)
    }
    await closed
    expect(peer.dials).toBe(dials)
  })
})

describe('QoS 2 messages that the broker does not release', () => {
  const unreleased = (id: number) => json('a/1', 'x'.repeat(LARGE), { qos: 2, messageId: id })

  function sendAll(connection: PeerConnection): void {
    for (let id = 1; id <= 20; id += 1) connection.send(unreleased(id))
  }

  it.each(VERSIONS)(
    'are left to it when there is no room, on MQTT %i, and end the connection after 10 s',
    async protocolVersion => {
      const parts = await subscriberOnPeer({ protocolVersion, inbound: { maxQueuedBytes: MOST }, ...KEPT })
      const { mqtt, connection, session } = parts
      sendAll(connection)
      await settle(mqtt)
      const stored = countOf(connection, 'pubrec')
      expect(stored).toBe(10)
      expect(mqtt.stats().inbound).toMatchObject({ unreleased: stored, givenBack: 20 - stored })
      await pass(9_000, 1_000)
      expect(session.connection.state.status).toBe('connected')
      await pass(1_100, 100)
      expect(session.connection.state).toMatchObject({ status: 'waiting', cause: { reasonCode: 0x93 } })
      await pass(1_000, 500)
      const next = await parts.peer.accept({ sessionPresent: true })
      sendAll(next)
      await settle(mqtt)
      expect(mqtt.stats().inbound.unreleased).toBe(stored)
      await finish(parts)
    },
  )
})

import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../src/index.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { publishesOf, responseTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import {
  acks,
  json,
  KEPT,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const never = () => new Promise<never>(() => {})

const broken = () => {
  throw new Error('poison')
}

async function unrelated({ mqtt, connection }: SubscriberOnPeer): Promise<unknown[]> {
  const got: unknown[] = []
  mqtt.subscribe('unrelated', ({ payload }) => got.push(payload))
  await connection.grant()
  return got
}

/** Sends a message of QoS 1 as a broker does, which keeps to Receive Maximum; 3.1.1 has none. */
function sendWithinWindow(connection: PeerConnection, topic: string, messageId: number): void {
  const [connect] = connection.received.flatMap(packet => (packet.cmd === 'connect' ? [packet] : []))
  const window = connect?.properties?.receiveMaximum ?? MAX_UINT16
  // Packet Identifiers count from 1.
  const unacknowledged = messageId - 1 - acks(connection).length
  if (unacknowledged < window) connection.send(qos1(topic, messageId))
}

const MAX_UINT16 = 65_535

const NOT_AUTHORIZED = 0x87

/** Responds to every publish that has no response yet. */
function refuser(connection: PeerConnection): () => void {
  let answered = 0
  return () => {
    const publishes = publishesOf(connection)
    for (const { messageId = 0 } of publishes.slice(answered))
      connection.send({ cmd: 'puback', messageId, reasonCode: NOT_AUTHORIZED })
    answered = publishes.length
  }
}

describe.each(VERSIONS)('MQTT %i: a hundred poison messages', protocolVersion => {
  it('that wait for a retry do not stop other handlers at QoS 1', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    mqtt.subscribe('poison/+', broken, { retries: { attempts: 1, delayMs: [10_000] } })
    await connection.grant()
    const got = await unrelated(parts)
    for (let id = 1; id <= 100; id += 1) sendWithinWindow(connection, `poison/${id}`, id)
    await settle(mqtt)
    for (let id = 101; id <= 200; id += 1) sendWithinWindow(connection, 'unrelated', id)
    await settle(mqtt)
    expect(got).toHaveLength(100)
    expect(mqtt.stats().inbound).toMatchObject({ running: 100 })
    await pass(10_000)
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ running: 0, failed: 100 })
    await finish(parts)
  })

  it('keep the order of their topics and the limit on concurrent runs', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const runs: string[] = []
    let atOnce = 0
    let most = 0
    mqtt.subscribe<string>(
      'poison/+',
      async ({ payload }, { attempt }) => {
        runs.push(`${payload} ${attempt}`)
        atOnce += 1
        most = Math.max(most, atOnce)
        await Promise.resolve()
        atOnce -= 1
        if (attempt === 1) broken()
      },
      { retries: { attempts: 1, delayMs: [100] }, concurrency: 2 },
    )
    await connection.grant()
    for (let n = 0; n < 20; n += 1) connection.send(json(`poison/${n % 10}`, `${n % 10}:${n}`))
    await settle(mqtt)
    await pass(300, 100)
    expect(runs.filter(run => run.startsWith('3:'))).toEqual(['3:3 1', '3:3 2', '3:13 1', '3:13 2'])
    expect(most).toBe(2)
    await finish(parts)
  })
})

describe('a hundred messages whose dead letters are refused', () => {
  it('do not stop other handlers at QoS 1, and stay unacknowledged', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    mqtt.subscribe('poison/+', broken, { onFailure: deadLetter('dead') })
    await connection.grant()
    const got = await unrelated(parts)
    const refuse = refuser(connection)
    for (let id = 1; id <= 100; id += 1) sendWithinWindow(connection, `poison/${id}`, id)
    for (let id = 101; id <= 200; id += 1) {
      sendWithinWindow(connection, 'unrelated', id)
      await pass(50)
      refuse()
    }
    await settle(mqtt)
    expect(got).toHaveLength(100)
    expect(publishesOf(connection).length).toBeGreaterThan(200)
    expect(mqtt.stats().inbound).toMatchObject({ running: 100, deadLettered: 0 })
    await finish(parts)
  })
})

describe.each([16, 40, 400])('%i handlers that wait for responses on their own connection', count => {
  it.each(VERSIONS)('release their slots to the handlers that respond, on MQTT %i', async protocolVersion => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const got: unknown[] = []
    mqtt.subscribe('events/+', async () => got.push(await mqtt.request('ask', 1)), { qos: 0 })
    await connection.grant()
    for (let n = 0; n < count; n += 1) connection.send(json(`events/${n}`, n))
    await settle(mqtt)
    connection.respondsToPings = true
    const grant = connection.received.find(
      packet => packet.cmd === 'subscribe' && packet.subscriptions[0]?.topic !== 'events/+',
    )
    connection.send({ cmd: 'suback', messageId: grant?.messageId ?? 0, granted: [0] })
    await pass(100, 1)
    const requests = publishesOf(connection)
    expect(requests).toHaveLength(count)
    for (const request of requests) {
      const { id } = protocolVersion === 4 ? JSON.parse(String(request.payload)) : { id: '' }
      connection.send(
        protocolVersion === 5
          ? responseTo(request, { value: 2 })
          : json('ask/reply', { id, response: 2, isDisposed: true }),
      )
    }
    await settle(mqtt)
    expect(got).toHaveLength(count)
    expect(mqtt.stats().inbound).toMatchObject({ running: 0 })
    await finish(parts)
  })
})

describe('a shutdown that reached its time limit', () => {
  it('leaves no message running in the counters', async () => {
    const parts = await subscriberOnPeer({ ...KEPT, drainTimeoutMs: 100, inbound: { concurrency: 1 } })
    const { mqtt, connection } = parts
    mqtt.subscribe('both', never)
    mqtt.subscribe('both', never)
    mqtt.subscribe('hangs', never)
    await connection.grant()
    await connection.grant()
    connection.send(qos1('both', 1))
    connection.send(json('both', 2))
    connection.send(json('hangs', 3))
    await settle(mqtt)
    await finish(parts)
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({
      received: 3,
      givenBack: 1,
      dropped: 2,
      running: 0,
      waiting: 0,
    })
  })
})

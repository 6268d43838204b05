import { describe, expect, it } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { holdClock } from '../support/held-clock.js'
import {
  comeBack,
  expectAddsUp,
  finish,
  flow,
  goOffline,
  type PublisherOnPeer,
  publisherOnPeer,
  Watched,
} from '../support/publisher-on-peer.js'
import { RandomBroker } from '../support/random-broker.js'
import { SeededRandom } from '../support/seeded-random.js'

holdClock()

const LOAD = 200
const RECEIVE_MAXIMA = [1, 2, 5] as const
const SEEDS = [1, 2, 3] as const
const CASES = RECEIVE_MAXIMA.flatMap(receiveMaximum => SEEDS.map(seed => ({ receiveMaximum, seed })))

/** A session that waits for its turn, and a broker that checks every packet. */
async function loaded(receiveMaximum: number, seed: number, options: MqttModuleOptions = {}) {
  const outbound = { whenBlocked: 'wait' } as const
  const parts = await publisherOnPeer({ ...options, outbound }, { properties: { receiveMaximum } })
  const random = new SeededRandom(seed)
  const broker = new RandomBroker(random, 0.1)
  broker.connected(parts.connection, receiveMaximum)
  return { ...parts, random, broker }
}

type Loaded = Awaited<ReturnType<typeof loaded>>

/** Publishes a random number at once, QoS 1 and 2 in turn at random. */
function publishSome({ mqtt, random }: Loaded, all: Watched[]): void {
  for (let count = random.below(8); count > 0 && all.length < LOAD; count -= 1) {
    const qos = random.pick([1, 2])
    all.push(new Watched(mqtt.publish(`topic/${random.below(5)}`, all.length, { qos })))
  }
}

/** Lets the broker read everything that has arrived, and respond to a part of it. */
async function turn({ broker, random, mqtt }: Loaded): Promise<void> {
  await flow()
  broker.take()
  for (let count = random.below(4); count > 0; count -= 1) broker.answer()
  expectAddsUp(mqtt)
}

const hasSettled = (watched: Watched) => watched.settlements === 1

async function untilAllSettled(parts: Loaded, all: readonly Watched[]): Promise<void> {
  for (let turns = 0; !all.every(hasSettled); turns += 1) {
    expect(turns, 'a publish never settles').toBeLessThan(20_000)
    await turn(parts)
  }
}

function countsOf(all: readonly Watched[]) {
  const counts = { acknowledged: 0, refused: 0, lost: 0 }
  for (const { outcome } of all) {
    expect(outcome?.status).toMatch(/^(acknowledged|refused|lost)$/)
    if (outcome?.status === 'acknowledged') counts.acknowledged += 1
    if (outcome?.status === 'refused') counts.refused += 1
    if (outcome?.status === 'lost') counts.lost += 1
  }
  return counts
}

describe.each(CASES)('with Receive Maximum $receiveMaximum, seed $seed', ({ receiveMaximum, seed }) => {
  it('the limit on unacknowledged publishes holds, and every publish settles', async () => {
    const parts = await loaded(receiveMaximum, seed)
    const all: Watched[] = []
    while (all.length < LOAD) {
      publishSome(parts, all)
      await turn(parts)
    }
    await untilAllSettled(parts, all)
    expect(parts.broker.mostOpen).toBe(receiveMaximum)
    const counts = countsOf(all)
    expect(parts.mqtt.stats().outbound).toMatchObject(counts)
    expect(counts).toMatchObject({ lost: 0, refused: expect.toSatisfy((count: number) => count > 0) })
    await finish(parts)
  })

  it('the limit also holds over reconnects of a persistent session, including resent publishes', async () => {
    const parts = await loaded(receiveMaximum, seed, { clean: false, clientId: 'kept' })
    const { broker, random } = parts
    const all: Watched[] = []
    let { connection } = parts
    for (let reconnects = 0; reconnects < 12; reconnects += 1) {
      for (let turns = random.below(20); turns > 0; turns -= 1) {
        publishSome(parts, all)
        await turn(parts)
      }
      await goOffline({ ...parts, connection })
      // The broker takes another number each time.
      const next = 1 + random.below(receiveMaximum)
      connection = await comeBack(parts, { sessionPresent: true, properties: { receiveMaximum: next } })
      broker.connected(connection, next)
    }
    while (all.length < LOAD) {
      publishSome(parts, all)
      await turn(parts)
    }
    await untilAllSettled(parts, all)
    expect(countsOf(all).lost).toBe(0)
    expect(broker.repeated).toBeGreaterThan(0)
    await finish(parts)
  })
})

describe('QoS 0', () => {
  it('continues at the limit, and does not count towards it', async () => {
    const parts: PublisherOnPeer = await publisherOnPeer({}, { properties: { receiveMaximum: 1 } })
    const { mqtt, connection } = parts
    const waiting = mqtt.publish('t', 1, { qos: 1 })
    const later = new Watched(mqtt.publish('t', 2, { qos: 1, whenBlocked: 'wait' }))
    for (let count = 0; count < 20; count += 1)
      expect(await mqtt.publish('plain', count)).toEqual({ status: 'sent' })
    await flow()
    const topics = connection.received.flatMap(packet => (packet.cmd === 'publish' ? [packet.topic] : []))
    expect(topics).toEqual(['t', ...Array(20).fill('plain')])
    for (const settled of [waiting, later.promise]) {
      const { messageId = 0 } = await connection.find('publish')
      connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
      expect(await settled).toMatchObject({ status: 'acknowledged' })
      // Those of QoS 0 stand in between.
      for (let skipped = 0; settled === waiting && skipped < 20; skipped += 1)
        await connection.expect('publish')
    }
    await finish(parts)
  })
})

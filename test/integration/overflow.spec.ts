import { describe, expect, it } from 'vitest'
import type { InboundOptions } from '../../src/options/options.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import { acks, json, KEPT, qos1, settle, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

holdClock()

/** One handler at a time, of which the first run is held. */
async function busy(inbound: InboundOptions, protocolVersion: 4 | 5 = 5) {
  const parts = await subscriberOnPeer({ protocolVersion, inbound: { concurrency: 1, ...inbound } })
  const gate = new Gate()
  const seen: unknown[] = []
  parts.mqtt.subscribe('+', ({ payload }) => {
    seen.push(payload)
    return gate.pass()
  })
  await parts.connection.grant()
  parts.connection.send(json('first', 'first'))
  await gate.reached()
  /** Messages such as "a1 b2": the topic and a number. */
  const deliver = async (text: string): Promise<void> => {
    for (const word of text.split(' ')) parts.connection.send(json(word.slice(0, 1), word))
    await settle(parts.mqtt)
  }
  const release = async (): Promise<void> => {
    gate.open()
    await settle(parts.mqtt)
  }
  return { ...parts, seen, deliver, release }
}

describe.each(VERSIONS)('MQTT %i: overflow', protocolVersion => {
  it('"drop-oldest" keeps the newest messages', async () => {
    const parts = await busy({ maxQueued: 2, overflow: 'drop-oldest' }, protocolVersion)
    await parts.deliver('a1 b2 c3 a4')
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 5, dropped: 2, waiting: 2, running: 1 })
    await parts.release()
    expect(parts.seen).toEqual(['first', 'c3', 'a4'])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 5, dropped: 2, handled: 3 })
    await finish(parts)
  })

  it('"drop-newest" keeps the waiting messages', async () => {
    const parts = await busy({ maxQueued: 2, overflow: 'drop-newest' }, protocolVersion)
    await parts.deliver('a1 b2 c3 a4')
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 5, dropped: 2, waiting: 2, running: 1 })
    await parts.release()
    expect(parts.seen).toEqual(['first', 'a1', 'b2'])
    await finish(parts)
  })

  it('"latest" keeps the newest message of each topic, for a limited number of topics', async () => {
    const parts = await busy({ maxQueued: 2, overflow: 'latest' }, protocolVersion)
    await parts.deliver('a1 b2 a3 a4')
    expect(parts.mqtt.stats().inbound).toMatchObject({ dropped: 2, waiting: 2 })
    await parts.deliver('c5')
    expect(parts.mqtt.stats().inbound).toMatchObject({ dropped: 3, waiting: 2 })
    await parts.release()
    expect(parts.seen).toEqual(['first', 'a4', 'c5'])
    await finish(parts)
  })

  it('never drops a QoS 1 message', async () => {
    const parts = await busy({ maxQueued: 1, overflow: 'drop-oldest', maxInFlight: 10 }, protocolVersion)
    for (const id of [1, 2, 3]) parts.connection.send(qos1('q', id))
    await parts.deliver('a1 b2')
    expect(parts.mqtt.stats().inbound).toMatchObject({ dropped: 1, waiting: 4 })
    await parts.release()
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.seen.toSorted()).toEqual([1, 2, 3, 'b2', 'first'])
    await finish(parts)
  })
})

describe('overflow "latest" with two handlers', () => {
  it('keeps the newest waiting message for each handler', async () => {
    const parts = await subscriberOnPeer({
      inbound: { concurrency: 10, maxQueued: 5, overflow: 'latest' },
    })
    const gate = new Gate()
    const quick: unknown[] = []
    const slow: unknown[] = []
    parts.mqtt.subscribe('x/+', ({ payload }) => {
      quick.push(payload)
    })
    await parts.connection.grant()
    parts.mqtt.subscribe('x/#', ({ payload }) => {
      slow.push(payload)
      return gate.pass()
    })
    await parts.connection.grant()
    for (const value of [1, 2, 3, 4]) {
      parts.connection.send(json('x/a', value))
      await settle(parts.mqtt)
    }
    expect([quick, slow]).toEqual([[1, 2, 3, 4], [1]])
    gate.open()
    await settle(parts.mqtt)
    expect(slow).toEqual([1, 4])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 4, waiting: 0, running: 0 })
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: a broker that ignores Receive Maximum', protocolVersion => {
  const limits = { concurrency: 1, maxInFlight: 2, maxQueued: 8 }

  it('is not read at the limit, and then all messages are handled in order', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, inbound: limits })
    const { mqtt, connection } = parts
    const gate = new Gate()
    mqtt.subscribe('a', () => gate.pass())
    await connection.grant()
    for (let id = 1; id <= 500; id += 1) connection.send(qos1('a', id))
    await settle(mqtt)
    // One message more than may be held, one of all which runs.
    const { maxInFlight, maxQueued } = limits
    expect(mqtt.stats().inbound).toMatchObject({
      waiting: protocolVersion === 5 ? maxInFlight : maxInFlight + maxQueued,
      running: 1,
    })
    gate.open()
    await eventually(() => mqtt.stats().inbound.handled === 500)
    await settle(mqtt)
    expect(acks(connection)).toEqual(Array.from({ length: 500 }, (_, index) => index + 1))
    expect(mqtt.stats().connection.losses).toBe(0)
    await finish(parts)
  })

  it('is read on if handlers wait for unread data, and the number of held messages stays limited', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, inbound: limits, ...KEPT })
    const { mqtt, connection, session } = parts
    mqtt.subscribe('a', () => mqtt.publish('b', 1, { qos: 1 }))
    await connection.grant()
    for (let id = 1; id <= 500; id += 1) connection.send(qos1('a', id))
    await settle(mqtt)
    await pass(300, 50)
    await settle(mqtt)
    const held = 10 * (limits.maxInFlight + limits.maxQueued) + 1
    expect(session.connection.state.status).toBe('connected')
    expect(mqtt.stats().inbound).toMatchObject({ received: 500, running: 1, waiting: held - 1 })
    expect(mqtt.stats().inbound.givenBack).toBe(500 - held)
    await finish(parts)
  })
})

import { describe, expect, it } from 'vitest'
import { MqttError } from '../../src/core/errors.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline } from '../support/publisher-on-peer.js'
import {
  acks,
  KEPT,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const RESUMED = { sessionPresent: true }

/** Handlers of `t/+` that the test ends; those of `quick/+` end at once. */
async function gated(options: Parameters<typeof subscriberOnPeer>[0]) {
  const parts = await subscriberOnPeer({ ...KEPT, ...options })
  const ran: unknown[] = []
  const gates = new Map<unknown, Gate>()
  parts.mqtt.subscribe('t/+', ({ payload }) => {
    ran.push(payload)
    const gate = new Gate()
    gates.set(payload, gate)
    return gate.pass()
  })
  await parts.connection.grant()
  parts.mqtt.subscribe('quick/+', ({ payload }) => {
    ran.push(payload)
  })
  await parts.connection.grant()
  const end = async (payload: unknown): Promise<void> => {
    const gate = gates.get(payload)
    if (gate === undefined) throw new Error(`no handler runs for ${String(payload)}`)
    gate.open()
    await settle(parts.mqtt)
  }
  return { ...parts, ran, end }
}

/** A handler runs for the message `a`, with the Packet Identifier 7. */
async function running(protocolVersion: 4 | 5) {
  const parts = await gated({ protocolVersion })
  parts.connection.send(qos1('t/1', 7, 'a'))
  await settle(parts.mqtt)
  return parts
}

async function reconnect(parts: SubscriberOnPeer, connack = RESUMED) {
  await goOffline(parts)
  await settle(parts.mqtt)
  const connection = await comeBack(parts, connack)
  await settle(parts.mqtt)
  return connection
}

describe.each(VERSIONS)('MQTT %i: a message that is delivered again', protocolVersion => {
  it('while its handler runs is not handled again, and is acknowledged on the new connection', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, ran } = parts
    const second = await reconnect(parts)
    second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, repeated: 1, running: 1, waiting: 0 })
    expect(acks(second)).toEqual([])
    await parts.end('a')
    expect(acks(second)).toEqual([7])
    expect(ran).toEqual(['a'])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 1, repeated: 1, running: 0 })
    await finish(parts)
  })

  it('after its handler ended without a connection is acknowledged at once', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, ran } = parts
    await goOffline(parts)
    await parts.end('a')
    const second = await comeBack(parts, RESUMED)
    await settle(mqtt)
    expect(acks(second)).toEqual([])
    second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    expect(acks(second)).toEqual([7])
    expect(ran).toEqual(['a'])
    await finish(parts)
  })

  it('after its handler ended on the new connection is acknowledged on arrival', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, ran } = parts
    const second = await reconnect(parts)
    await parts.end('a')
    expect(acks(second)).toEqual([])
    second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    expect(acks(second)).toEqual([7])
    expect(ran).toEqual(['a'])
    await finish(parts)
  })

  it('after it was handled, but its PUBACK waited for an earlier message, is not handled again', async () => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('t/1', 1, 'slow'))
    connection.send(qos1('quick/1', 2, 'done'))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, running: 1 })
    expect(acks(connection)).toEqual([])
    const second = await reconnect(parts)
    second.send(qos1('t/1', 1, 'slow', true))
    second.send(qos1('quick/1', 2, 'done', true))
    await settle(mqtt)
    expect(acks(second)).toEqual([])
    await parts.end('slow')
    expect(acks(second)).toEqual([1, 2])
    expect(ran).toEqual(['slow', 'done'])
    expect(mqtt.stats().inbound).toMatchObject({ received: 4, handled: 2, repeated: 2 })
    await finish(parts)
  })

  it('after its handler ended while the client ended the connection is not handled again', async () => {
    const parts = await running(protocolVersion)
    const { session, ran, end } = parts
    session.connection.terminate(new MqttError('TIMEOUT', 'no PUBACK in time', { reasonCode: 0x80 }))
    await end('a')
    const second = await comeBack(parts, RESUMED)
    second.send(qos1('t/1', 7, 'a', true))
    await settle(parts.mqtt)
    expect(ran).toEqual(['a'])
    expect(acks(second)).toEqual([7])
    await finish(parts)
  })

  it('over several connections is still handled once', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, connection, ran } = parts
    let current = connection
    for (let count = 0; count < 3; count += 1) {
      current = await reconnect({ ...parts, connection: current })
      // The broker is cut off before it delivers again, every other time.
      if (count % 2 === 0) current.send(qos1('t/1', 7, 'a', true))
      await settle(mqtt)
    }
    await parts.end('a')
    expect(acks(current)).toEqual([7])
    expect(ran).toEqual(['a'])
    expect(mqtt.stats().inbound).toMatchObject({ received: 3, handled: 1, repeated: 2 })
    await finish(parts)
  })

  it('is handled again if its PUBACK was sent, because it is unknown whether the broker received it', async () => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('quick/1', 7, 'a'))
    await settle(mqtt)
    expect(acks(connection)).toEqual([7])
    const second = await reconnect(parts)
    second.send(qos1('quick/1', 7, 'a', true))
    await settle(mqtt)
    expect(acks(second)).toEqual([7])
    expect(ran).toEqual(['a', 'a'])
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: a window of an earlier connection', protocolVersion => {
  it('sends nothing on the new connection, whatever handler ends', async () => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection } = parts
    for (const id of [1, 2, 3]) connection.send(qos1(`t/${id}`, id))
    await settle(mqtt)
    const second = await reconnect(parts)
    for (const id of [1, 2, 3]) await parts.end(id)
    second.send(qos1('quick/1', 9))
    await settle(mqtt)
    expect(acks(second)).toEqual([9])
    expect(mqtt.stats().inbound).toMatchObject({ received: 4, handled: 4, repeated: 0 })
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: another message with the Packet Identifier', protocolVersion => {
  it.each([
    ['without DUP', qos1('t/1', 7, 'a', false)],
    ['with another payload', qos1('t/1', 7, 'b', true)],
    ['of another topic', qos1('t/2', 7, 'a', true)],
  ])('%s is handled', async (_how, other) => {
    const parts = await running(protocolVersion)
    const { mqtt, ran } = parts
    const second = await reconnect(parts)
    await parts.end('a')
    second.send(other)
    await settle(mqtt)
    expect(ran).toHaveLength(2)
    expect(acks(second)).toEqual([])
    await parts.end(ran[1])
    expect(acks(second)).toEqual([7])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, repeated: 0 })
    await finish(parts)
  })

  it('also makes the client discard the state of the first one', async () => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('quick/0', 1, 'before'))
    connection.send(qos1('t/1', 7, 'a'))
    await settle(mqtt)
    const second = await reconnect(parts)
    second.send(qos1('quick/1', 7, 'other'))
    second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    await parts.end('a')
    expect(ran).toEqual(['before', 'a', 'other', 'a'])
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: a session that the broker has lost', protocolVersion => {
  it('has no redeliveries: the same message is a new one', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, ran } = parts
    await goOffline(parts)
    await parts.end('a')
    const second = await comeBack(parts, { sessionPresent: false })
    second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    expect(ran).toEqual(['a', 'a'])
    await parts.end('a')
    expect(acks(second)).toEqual([7])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, repeated: 0 })
    await finish(parts)
  })

  it('receives no PUBACK for earlier messages', async () => {
    const parts = await running(protocolVersion)
    const { mqtt } = parts
    const second = await reconnect(parts, { sessionPresent: false })
    await parts.end('a')
    expect(acks(second)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ received: 1, handled: 1 })
    await finish(parts)
  })

  it('is always the case for a clean session', async () => {
    const parts = await gated({ protocolVersion, clean: true })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('t/1', 7, 'a'))
    await settle(mqtt)
    await goOffline(parts)
    await parts.end('a')
    const second = await comeBack(parts)
    second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    expect(ran).toEqual(['a', 'a'])
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: a waiting message at a lost connection', protocolVersion => {
  const one = { inbound: { concurrency: 1 } }

  it('is given back if the session is resumed, and handled when it is redelivered', async () => {
    const parts = await gated({ protocolVersion, ...one })
    const { mqtt, connection, ran } = parts
    for (const id of [1, 2, 3]) connection.send(qos1('t/1', id))
    await settle(mqtt)
    await goOffline(parts)
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ running: 1, waiting: 2 })
    const second = await comeBack(parts, RESUMED)
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ running: 1, waiting: 0, givenBack: 2 })
    for (const id of [1, 2, 3]) second.send(qos1('t/1', id, id, true))
    for (const id of [1, 2, 3]) await parts.end(id)
    expect(ran).toEqual([1, 2, 3])
    expect(acks(second)).toEqual([1, 2, 3])
    expect(mqtt.stats().inbound).toMatchObject({ received: 6, handled: 3, givenBack: 2, repeated: 1 })
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: a message that arrives twice on one connection', protocolVersion => {
  it('with DUP while its handler runs is handled once and acknowledged once', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, connection, ran } = parts
    connection.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, repeated: 1, running: 1, waiting: 0 })
    await parts.end('a')
    expect(ran).toEqual(['a'])
    expect(acks(connection)).toEqual([7])
    await finish(parts)
  })

  it('with DUP while its PUBACK waits for that of an earlier message is handled once', async () => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('t/1', 1, 'slow'))
    connection.send(qos1('quick/1', 2, 'done'))
    await settle(mqtt)
    connection.send(qos1('quick/1', 2, 'done', true))
    await settle(mqtt)
    await parts.end('slow')
    expect(ran).toEqual(['slow', 'done'])
    expect(acks(connection)).toEqual([1, 2])
    expect(mqtt.stats().inbound).toMatchObject({ received: 3, handled: 2, repeated: 1 })
    await finish(parts)
  })

  it('with DUP is also handled once on the connection that redelivered it', async () => {
    const parts = await running(protocolVersion)
    const { mqtt, ran } = parts
    const second = await reconnect(parts)
    for (let count = 0; count < 2; count += 1) second.send(qos1('t/1', 7, 'a', true))
    await settle(mqtt)
    await parts.end('a')
    expect(ran).toEqual(['a'])
    expect(acks(second)).toEqual([7])
    expect(mqtt.stats().inbound).toMatchObject({ received: 3, handled: 1, repeated: 2 })
    await finish(parts)
  })

  it('with DUP after its PUBACK is a new message [MQTT-4.3.2-5]', async () => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('quick/1', 7, 'a'))
    await settle(mqtt)
    connection.send(qos1('quick/1', 7, 'a', true))
    await settle(mqtt)
    expect(ran).toEqual(['a', 'a'])
    expect(acks(connection)).toEqual([7, 7])
    await finish(parts)
  })

  it.each([
    ['without DUP', qos1('t/2', 7, 'b')],
    ['with DUP and another payload', qos1('t/2', 7, 'b', true)],
  ])('but with another content %s is handled, because no message may be lost', async (_how, other) => {
    const parts = await gated({ protocolVersion })
    const { mqtt, connection, ran } = parts
    connection.send(qos1('t/1', 7, 'a'))
    connection.send(other)
    await settle(mqtt)
    expect(ran).toEqual(['a', 'b'])
    await parts.end('b')
    await parts.end('a')
    expect(acks(connection)).toEqual([7, 7])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, repeated: 0 })
    await finish(parts)
  })
})

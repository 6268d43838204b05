import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { PublishPacket } from '../../src/client/connection/link.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { closeWith, message, sessionOnPeer } from '../support/session-on-peer.js'

type Handlers = Record<string, (packet: PublishPacket) => Promise<void>>

async function listening(handlers: Handlers, options: MqttModuleOptions = {}) {
  const { peer, session, log, route } = sessionOnPeer({
    connect: 'background',
    reconnect: { delayMs: [0] },
    ...options,
  })
  for (const [filter, handler] of Object.entries(handlers)) route(filter, handler)
  await session.listen()
  const connection = await peer.accept()
  for (const _ of Object.keys(handlers)) await connection.grant()
  return { peer, session, log, connection }
}

const acks = (connection: { received: readonly { cmd: string; messageId?: number }[] }) =>
  connection.received.filter(packet => packet.cmd === 'puback').map(packet => packet.messageId)

const addsUp = (session: Awaited<ReturnType<typeof listening>>['session']): boolean => {
  const { received, handled, dropped, givenBack, waiting, running } = session.stats.inbound
  return received === handled + dropped + givenBack + waiting + running
}

describe('PUBACK', () => {
  it('is sent when the handler has ended, in order of arrival', async () => {
    const gates = [new Gate(), new Gate(), new Gate()]
    const { session, connection } = await listening({
      't/+': packet => gates[Number(packet.topic.at(-1))]?.pass() ?? Promise.resolve(),
    })
    for (const index of [0, 1, 2]) connection.send(message(`t/${index}`, { qos: 1, messageId: 10 + index }))
    await Promise.all(gates.map(gate => gate.reached()))
    gates[2]?.open()
    gates[1]?.open()
    await eventually(() => session.stats.inbound.handled === 2)
    expect(acks(connection)).toEqual([])
    gates[0]?.open()
    await eventually(() => acks(connection).length === 3)
    expect(acks(connection)).toEqual([10, 11, 12])
    expect(addsUp(session)).toBe(true)
    await closeWith(session, connection)
  })

  it('is sent after the last of several handlers', async () => {
    const slow = new Gate()
    const { session, connection } = await listening({ 'a/+': async () => {}, 'a/#': () => slow.pass() })
    connection.send(message('a/b', { qos: 1, messageId: 1 }))
    await slow.reached()
    connection.send({ cmd: 'pingresp' })
    await nextTurn()
    expect(acks(connection)).toEqual([])
    slow.open()
    await eventually(() => acks(connection).length === 1)
    await closeWith(session, connection)
  })

  it('is also sent after a failed handler, and the others continue', async () => {
    const ran: string[] = []
    const { session, connection } = await listening({
      'a/+': () => Promise.reject(new Error('broken')),
      'a/#': async packet => {
        ran.push(packet.topic)
      },
    })
    connection.send(message('a/b', { qos: 1, messageId: 1 }))
    await eventually(() => acks(connection).length === 1)
    expect(ran).toEqual(['a/b'])
    expect(session.stats.inbound).toMatchObject({ handled: 1, failed: 1 })
    await closeWith(session, connection)
  })

  it('is never sent on a later connection', async () => {
    const gate = new Gate()
    const { peer, session, connection } = await listening(
      { a: () => gate.pass() },
      { clean: false, clientId: 'kept' },
    )
    connection.send(message('a', { qos: 1, messageId: 7 }))
    await gate.reached()
    connection.cut()
    const second = await peer.accept({ sessionPresent: true })
    await session.connection.whenConnected()
    gate.open()
    await eventually(() => session.stats.inbound.handled === 1)
    session.publish({ topic: 'after', payload: Buffer.alloc(0), qos: 0, retain: false })
    expect((await second.expect('publish')).topic).toBe('after')
    expect(acks(second)).toEqual([])
    await session.close()
  })
})

describe('while a handler runs, the parser continues', () => {
  it('and the handler can await a QoS 1 publish on the same connection', async () => {
    const outcomes: unknown[] = []
    const { session, connection } = await listening({
      a: async () => {
        outcomes.push(
          await session.publish({ topic: 'out', payload: Buffer.from('1'), qos: 1, retain: false }),
        )
      },
    })
    connection.send(message('a', { qos: 1, messageId: 1 }))
    const published = await connection.expect('publish')
    expect(acks(connection)).toEqual([])
    connection.send({ cmd: 'puback', messageId: published.messageId ?? 0, reasonCode: 0 })
    await connection.expect('puback')
    expect(outcomes).toEqual([{ status: 'acknowledged', reasonCode: 0 }])
    await closeWith(session, connection)
  })
})

describe('order and concurrency', () => {
  it('messages of one topic are handled one after the other, messages of different topics concurrently', async () => {
    const gate = new Gate()
    const started: string[] = []
    const { session, connection } = await listening({
      't/+': async packet => {
        started.push(`${packet.topic}:${packet.payload.toString()}`)
        if (packet.payload.toString() === 'slow') await gate.pass()
      },
    })
    connection.send(message('t/1', { payload: 'slow' }))
    connection.send(message('t/1', { payload: 'next' }))
    connection.send(message('t/2', { payload: 'other' }))
    await eventually(() => started.length === 2)
    expect(started).toEqual(['t/1:slow', 't/2:other'])
    gate.open()
    await eventually(() => started.length === 3)
    expect(started[2]).toBe('t/1:next')
    await closeWith(session, connection)
  })

  it('at most `concurrency` messages are in handlers', async () => {
    const gate = new Gate()
    const { session, connection } = await listening(
      { 't/+': () => gate.pass() },
      { inbound: { concurrency: 3 } },
    )
    for (let index = 0; index < 10; index += 1) connection.send(message(`t/${index}`))
    await eventually(() => session.stats.inbound.received === 10)
    expect(session.stats.inbound).toMatchObject({ running: 3, waiting: 7 })
    gate.open()
    await eventually(() => session.stats.inbound.handled === 10)
    await closeWith(session, connection)
  })

  it('a QoS 0 message beyond maxQueued drops and counts the oldest one; QoS 1 messages are kept', async () => {
    const gate = new Gate()
    const handled: string[] = []
    const { session, connection, log } = await listening(
      {
        '#': async packet => {
          await gate.pass()
          handled.push(packet.payload.toString())
        },
      },
      { inbound: { concurrency: 1, maxQueued: 3 } },
    )
    connection.send(message('t', { payload: 'first' }))
    await gate.reached()
    connection.send(message('t', { payload: 'qos1', qos: 1, messageId: 1 }))
    for (const payload of ['a', 'b', 'c', 'd', 'e']) connection.send(message('t', { payload }))
    await eventually(() => session.stats.inbound.received === 7)
    expect(session.stats.inbound).toMatchObject({ dropped: 2, waiting: 4 })
    gate.open()
    await eventually(() => handled.length === 5)
    expect(handled).toEqual(['first', 'qos1', 'c', 'd', 'e'])
    expect(addsUp(session)).toBe(true)
    expect(log.visible.filter(line => line.includes('QoS 0 messages were dropped'))).toHaveLength(1)
    await closeWith(session, connection)
  })
})

describe('routing', () => {
  it('each copy is routed to the handlers of its own subscriptions, so that none runs twice', async () => {
    const ran: string[] = []
    const note = (name: string) => async () => {
      ran.push(name)
    }
    const { session, peer, route } = sessionOnPeer({ connect: 'background' })
    route('ov/+', note('+'))
    route('ov/#', note('#'))
    await session.listen()
    const connection = await peer.accept()
    const identifiers = [await connection.grant(), await connection.grant()].map(
      packet => packet.properties?.subscriptionIdentifier ?? 0,
    )
    expect(new Set(identifiers).size).toBe(2)
    for (const subscriptionIdentifier of identifiers) {
      connection.send(message('ov/a', { properties: { subscriptionIdentifier } }))
    }
    await eventually(() => session.stats.inbound.handled === 2)
    expect(ran).toEqual(['+', '#'])
    connection.send(message('ov/a', { properties: { subscriptionIdentifier: identifiers } }))
    await eventually(() => session.stats.inbound.handled === 3)
    expect(ran).toEqual(['+', '#', '+', '#'])
    await closeWith(session, connection)
  })

  it('identifiers of a filter are the same after a restart of the process', async () => {
    const read = async () => {
      const { session, peer, route } = sessionOnPeer({ connect: 'background' })
      for (const filter of Math.random() < 0.5 ? ['x', 'y/+'] : ['y/+', 'x']) route(filter, async () => {})
      await session.listen()
      const connection = await peer.accept()
      const packets = [await connection.grant(), await connection.grant()]
      await closeWith(session, connection)
      return new Map(
        packets.map(packet => [packet.subscriptions[0]?.topic, packet.properties?.subscriptionIdentifier]),
      )
    }
    const first = await read()
    expect(await read()).toEqual(first)
  })

  it('a message without a matching handler is acknowledged, counted and logged', async () => {
    const { session, connection, log } = await listening({ a: async () => {} })
    for (let index = 1; index <= 100; index += 1)
      connection.send(message('other', { qos: 1, messageId: index }))
    await eventually(() => acks(connection).length === 100)
    expect(session.stats.inbound).toMatchObject({ received: 100, handled: 100, unmatched: 100 })
    expect(log.visible.filter(line => line.includes('no handler matches "other"'))).toHaveLength(1)
    await closeWith(session, connection)
  })
})

describe('a persistent session', () => {
  const kept = { clean: false, clientId: 'kept', inbound: { concurrency: 1 } }

  /** One handler runs and two messages wait for it. The connection is lost. */
  async function cutWithThreeMessages() {
    const gate = new Gate()
    const handled: number[] = []
    const { session, peer, connection } = await listening(
      {
        a: async packet => {
          await gate.pass()
          handled.push(packet.messageId ?? 0)
        },
      },
      kept,
    )
    for (const messageId of [1, 2, 3]) connection.send(message('a', { qos: 1, messageId }))
    await eventually(() => session.stats.inbound.received === 3)
    connection.cut()
    return { session, peer, gate, handled }
  }

  it('gives back the waiting messages if the broker resumes the session', async () => {
    const { session, peer, gate, handled } = await cutWithThreeMessages()
    const second = await peer.accept({ sessionPresent: true })
    await session.connection.whenConnected()
    gate.open()
    for (const messageId of [2, 3]) second.send(message('a', { qos: 1, messageId, dup: true }))
    await eventually(() => acks(second).length === 2)
    expect(handled).toEqual([1, 2, 3])
    expect(session.stats.inbound.givenBack).toBe(2)
    expect(addsUp(session)).toBe(true)
    await session.close()
  })

  it('handles the waiting messages if the broker has lost the session', async () => {
    const { session, peer, gate, handled } = await cutWithThreeMessages()
    await peer.accept({ sessionPresent: false })
    gate.open()
    await eventually(() => handled.length === 3)
    expect(handled).toEqual([1, 2, 3])
    await session.close()
  })

  it('holds messages that arrive before the application listens', async () => {
    const handled: string[] = []
    const { session, peer, route } = sessionOnPeer({ connect: 'background', ...kept })
    route('a', async packet => {
      handled.push(packet.payload.toString())
    })
    await session.start()
    const connection = await peer.accept({ sessionPresent: true })
    connection.send(message('a', { qos: 1, messageId: 1, payload: 'early' }))
    await eventually(() => session.stats.inbound.received === 1)
    expect(handled).toEqual([])
    expect(acks(connection)).toEqual([])
    await session.listen()
    await eventually(() => acks(connection).length === 1)
    expect(handled).toEqual(['early'])
    await session.close()
  })

  it('leaves messages without a started handler to the broker when it drains', async () => {
    const gate = new Gate()
    const { session, connection } = await listening(
      { a: () => gate.pass() },
      { ...kept, drainTimeoutMs: 1_000 },
    )
    for (const messageId of [1, 2, 3]) connection.send(message('a', { qos: 1, messageId }))
    await eventually(() => session.stats.inbound.received === 3)
    const closed = session.close()
    gate.open()
    await closed
    expect(acks(connection)).toEqual([1])
    expect(connection.received.at(-1)).toMatchObject({ cmd: 'disconnect' })
    expect(session.stats.inbound).toMatchObject({ handled: 1, givenBack: 2, waiting: 0, running: 0 })
  })

  it('requests a session that does not expire on MQTT 5, as with clean: false on 3.1.1', async () => {
    const { session, peer } = sessionOnPeer({ connect: 'background', ...kept })
    await session.start()
    const connect = await (await peer.connection()).expect('connect')
    expect(connect).toMatchObject({
      clean: false,
      properties: { sessionExpiryInterval: 0xffff_ffff, receiveMaximum: 256 },
    })
    await session.close()
  })
})

it('a Topic Alias is resolved at every QoS', async () => {
  const topics: string[] = []
  const { session, connection } = await listening(
    {
      '#': async packet => {
        topics.push(packet.topic)
      },
    },
    { properties: { topicAliasMaximum: 5 } },
  )
  connection.send(message('long/topic', { properties: { topicAlias: 3 } }))
  connection.send(message('', { qos: 1, messageId: 1, properties: { topicAlias: 3 } }))
  connection.send(message('', { qos: 2, messageId: 2, properties: { topicAlias: 3 } }))
  await connection.find('pubrec')
  connection.send({ cmd: 'pubrel', messageId: 2 })
  await eventually(() => topics.length === 3)
  expect(topics).toEqual(['long/topic', 'long/topic', 'long/topic'])
  await closeWith(session, connection)
})

it('a clean session drains completely: UNSUBSCRIBE, received messages are handled and acknowledged, DISCONNECT', async () => {
  const gate = new Gate()
  const { session, connection } = await listening(
    { a: () => gate.pass() },
    { inbound: { concurrency: 1 }, drainTimeoutMs: 5_000 },
  )
  for (const messageId of [1, 2, 3]) connection.send(message('a', { qos: 1, messageId }))
  await eventually(() => session.stats.inbound.received === 3)
  const closed = session.close()
  const { messageId = 0, unsubscriptions } = await connection.expect('unsubscribe')
  expect(unsubscriptions).toEqual(['a'])
  connection.send({ cmd: 'unsuback', messageId, granted: [0] })
  gate.open()
  await closed
  expect(connection.received.slice(-4).map(packet => packet.cmd)).toEqual([
    'puback',
    'puback',
    'puback',
    'disconnect',
  ])
})

import { NestFactory } from '@nestjs/core'
import { describe, expect, it } from 'vitest'
import { MqttModule } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

const acks = (connection: { received: readonly { cmd: string; messageId?: number }[] }) =>
  connection.received.filter(packet => packet.cmd === 'puback').map(packet => packet.messageId)

describe('after the deadline of a shutdown', () => {
  it('no handler is started, and the waiting messages are counted', async () => {
    const gate = new Gate()
    let started = 0
    const { peer, session, route } = sessionOnPeer({ connect: 'background', drainTimeoutMs: 20 })
    route('a', () => {
      started += 1
      return gate.pass()
    })
    await session.listen()
    const connection = await peer.accept()
    await connection.grant()
    for (let index = 0; index < 10; index += 1) connection.send(message('a'))
    await eventually(() => session.stats.inbound.received === 10)
    await session.close()
    gate.open()
    await eventually(() => session.stats.inbound.running === 0)
    expect(started).toBe(1)
    expect(session.stats.inbound).toMatchObject({ received: 10, handled: 0, dropped: 10, waiting: 0 })
  })
})

describe('a drain', () => {
  const kept = { clean: false, clientId: 'kept', connect: 'background', reconnect: { delayMs: [0] } } as const

  it('of a persistent session ends even if QoS 0 messages continue to arrive', async () => {
    const gate = new Gate()
    const { peer, session, route } = sessionOnPeer(kept)
    route('a', () => gate.pass())
    await session.listen()
    const connection = await peer.accept()
    await connection.grant()
    connection.send(message('a'))
    await gate.reached()
    const drained = session.drain()
    for (let index = 0; index < 50; index += 1) connection.send(message('a'))
    await eventually(() => session.stats.inbound.received === 51)
    gate.open()
    await drained
    expect(session.stats.inbound).toMatchObject({ handled: 1, dropped: 50, waiting: 0 })
    await session.close()
  })

  it('is not undone by a reconnect: nothing is subscribed again', async () => {
    const { peer, session, route } = sessionOnPeer(kept)
    route('a', async () => {})
    await session.listen()
    const first = await peer.accept()
    await first.grant()
    await session.drain()
    first.cut()
    const second = await peer.accept()
    await session.connection.whenConnected()
    second.send(message('a'))
    await eventually(() => session.stats.inbound.dropped === 1)
    expect(second.received.map(packet => packet.cmd)).toEqual(['connect'])
    await session.close()
  })

  it('handles the messages before a running message, so that its acknowledgement can be sent', async () => {
    const gates = [new Gate(), new Gate()]
    const handled: number[] = []
    const { peer, session, route } = sessionOnPeer({ ...kept, inbound: { concurrency: 2 } })
    route('+', async packet => {
      await gates[packet.topic === 'a' ? 0 : 1]?.pass()
      handled.push(packet.messageId ?? 0)
    })
    await session.listen()
    const connection = await peer.accept()
    await connection.grant()
    connection.send(message('a', { qos: 1, messageId: 1 }))
    connection.send(message('a', { qos: 1, messageId: 2 }))
    connection.send(message('b', { qos: 1, messageId: 3 }))
    connection.send(message('b', { qos: 1, messageId: 4 }))
    await Promise.all(gates.map(gate => gate.reached()))
    const closed = session.close()
    for (const gate of gates) gate.open()
    await closed
    expect(acks(connection)).toEqual([1, 2, 3])
    expect(handled.sort()).toEqual([1, 2, 3])
    expect(session.stats.inbound).toMatchObject({ handled: 3, givenBack: 1 })
  })

  it('of a clean session waits for UNSUBACK for at most half of its time', async () => {
    const { peer, session, route } = sessionOnPeer({ connect: 'background', drainTimeoutMs: 40 })
    route('a', async () => {})
    await session.listen()
    const connection = await peer.accept()
    await connection.grant()
    await eventually(() => session.stats.subscriptions.granted === 1)
    await session.close()
    expect(connection.received.map(packet => packet.cmd)).toEqual([
      'connect',
      'subscribe',
      'unsubscribe',
      'disconnect',
    ])
  })
})

describe('enableDrain', () => {
  it('closes an application that has no MqttModule', async () => {
    class EmptyModule {}
    const app = await NestFactory.createApplicationContext({ module: EmptyModule }, { logger: false })
    MqttModule.enableDrain(app, [])
    await app.close()
    await app.close()
  })
})

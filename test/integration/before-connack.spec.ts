import { expect, it } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import { holdClock } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { comeBack, finish, flow, RECONNECT_MS } from '../support/publisher-on-peer.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

holdClock()

/** A kept session with one handler, whose broker has not sent CONNACK. */
async function dialled(protocolVersion: 4 | 5) {
  const handled: string[] = []
  const parts = sessionOnPeer({
    connect: 'background',
    protocolVersion,
    clean: false,
    clientId: 'kept',
    reconnect: { delayMs: [RECONNECT_MS], resetAfterMs: 0 },
    drainTimeoutMs: 0,
  })
  parts.route('a', async ({ payload }) => {
    handled.push(payload.toString())
  })
  await parts.session.start()
  parts.session.dispatcher.start()
  const connection = await parts.peer.connection()
  await connection.expect('connect')
  const mqtt = new MqttService(parts.session)
  return { ...parts, mqtt, connection, handled }
}

const qos1 = (messageId: number) => message('a', { qos: 1, messageId, payload: Buffer.from(`${messageId}`) })

it.each([4, 5] as const)(
  'a PUBLISH before CONNACK ends the connection and reaches no handler (version %i)',
  async version => {
    const parts = await dialled(version)
    const { connection, session, mqtt, handled } = parts
    connection.send(qos1(1))
    await nextState(session, 'waiting')
    expect(session.connection.state).toMatchObject({
      cause: { code: 'CONNECT_FAILED', message: 'could not connect: the broker sent PUBLISH before CONNACK' },
    })
    expect(handled).toEqual([])
    expect(mqtt.stats().inbound.received).toBe(0)

    const next = await comeBack(parts, { sessionPresent: true })
    for (const id of [1, 2, 3, 4, 5]) next.send(qos1(id))
    await flow()
    expect(handled).toEqual(['1', '2', '3', '4', '5'])
    const acknowledged = next.received.flatMap(packet => (packet.cmd === 'puback' ? [packet.messageId] : []))
    expect(acknowledged).toEqual([1, 2, 3, 4, 5])
    await finish(parts)
  },
)

it('a PUBLISH directly after CONNACK is a message of the new connection', async () => {
  const parts = await dialled(5)
  const { connection, session, handled } = parts
  connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: true })
  connection.send(qos1(1))
  connection.cut()
  await nextState(session, 'waiting')
  const next = await comeBack(parts, { sessionPresent: true })
  next.send({ ...qos1(1), dup: true })
  next.send(qos1(2))
  await flow()
  expect(new Set(handled)).toEqual(new Set(['1', '2']))
  const acknowledged = next.received.flatMap(packet => (packet.cmd === 'puback' ? [packet.messageId] : []))
  expect(acknowledged).toEqual([1, 2])
  await finish(parts)
})

import { describe, expect, it, vi } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import type { AuthenticationExchange, AuthenticationStart } from '../../src/options/authentication.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import {
  AGAIN,
  auth,
  authenticating,
  CONTINUE,
  METHOD,
  proof,
  SUCCESS,
} from '../support/authenticating-client.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

holdClock()

const responding: AuthenticationExchange = {
  data: 'first',
  onChallenge: data => `re:${data?.toString()}`,
}

/** A connected client that uses enhanced authentication. */
async function authenticated(exchange: AuthenticationExchange = responding, options: MqttModuleOptions = {}) {
  const parts = await authenticating(exchange, options)
  parts.connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties: proof() })
  await parts.session.connection.whenConnected()
  return { ...parts, mqtt: new MqttService(parts.session) }
}

/** The error of a call that fails. */
const failureOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => undefined,
    error => error,
  )

describe('reauthenticate()', () => {
  it('sends AUTH with new data, responds to challenges, and resolves with the success of the broker', async () => {
    const starts: AuthenticationStart[] = []
    const finals: (string | undefined)[] = []
    let token = 0
    const exchange = { ...responding, onSuccess: (data?: Buffer) => void finals.push(data?.toString()) }
    const { connection, session, mqtt } = await authenticated(responding, {
      credentials: () => ({ authenticationData: `token-${++token}` }),
      authentication: {
        method: METHOD,
        start: start => {
          starts.push(start)
          return { ...exchange, data: String(start.credentials.authenticationData) }
        },
      },
    })
    const done = mqtt.reauthenticate()
    expect(await connection.expect('auth')).toMatchObject(auth(AGAIN, proof('token-2')))
    connection.send(auth(CONTINUE, proof('a')))
    expect(await connection.expect('auth')).toMatchObject(auth(CONTINUE, proof('re:a')))
    connection.send(auth(SUCCESS, proof('proved')))
    await done
    expect(starts.map(({ isReauthentication }) => isReauthentication)).toEqual([false, true])
    expect(finals).toEqual([undefined, 'proved'])
    expect(session.connection.state.status).toBe('connected')
    await session.close()
  })

  it('shares one exchange between calls, and can be called again afterwards', async () => {
    const { connection, session, mqtt } = await authenticated()
    for (let round = 0; round < 2; round += 1) {
      const calls = [mqtt.reauthenticate(), mqtt.reauthenticate()]
      await connection.expect('auth')
      connection.send(auth(SUCCESS))
      await Promise.all(calls)
    }
    await quiet()
    expect(connection.received.filter(({ cmd }) => cmd === 'auth')).toHaveLength(2)
    await session.close()
  })

  it.each([1, 2] as const)('lets a publish at QoS %i go on', async qos => {
    const { connection, session, mqtt } = await authenticated()
    const before = mqtt.publish('before', 'x', { qos })
    const { messageId = 0 } = await connection.expect('publish')
    const done = mqtt.reauthenticate()
    await connection.expect('auth')
    const during = mqtt.publish('during', 'x', { qos: 1 })
    const later = await connection.expect('publish')
    if (qos === 1) connection.send({ cmd: 'puback', messageId })
    else {
      connection.send({ cmd: 'pubrec', messageId })
      await connection.expect('pubrel')
      connection.send({ cmd: 'pubcomp', messageId })
    }
    expect(await before).toMatchObject({ status: 'acknowledged' })
    connection.send(auth(CONTINUE))
    await connection.expect('auth')
    connection.send({ cmd: 'puback', messageId: later.messageId ?? 0 })
    expect(await during).toMatchObject({ status: 'acknowledged' })
    connection.send(auth(SUCCESS))
    await done
    await session.close()
  })

  it.each([1, 2] as const)('lets an incoming message of QoS %i go on', async qos => {
    const { connection, session, mqtt, route } = await authenticated()
    const handled: string[] = []
    route('in', async ({ payload }) => void handled.push(payload.toString()))
    session.dispatcher.start()
    const done = mqtt.reauthenticate()
    await connection.expect('auth')
    connection.send(message('in', { qos, messageId: 7, payload: Buffer.from('one') }))
    if (qos === 1) await connection.expect('puback')
    else await connection.expect('pubrec')
    connection.send(auth(CONTINUE))
    await connection.expect('auth')
    if (qos === 2) {
      connection.send({ cmd: 'pubrel', messageId: 7 })
      await connection.expect('pubcomp')
    }
    connection.send(auth(SUCCESS))
    await done
    await quiet()
    expect(handled).toEqual(['one'])
    await session.close()
  })
})

describe('a re-authentication that fails', () => {
  const AFTER = [
    [
      'the broker sends DISCONNECT',
      { cmd: 'disconnect', reasonCode: 0x87 },
      'CONNECTION_LOST',
      /0x87 Not authorized/,
    ],
    [
      'AUTH has another method',
      auth(SUCCESS, proof('x', 'PLAIN')),
      'AUTHENTICATION_FAILED',
      /Authentication Method "PLAIN"/,
    ],
    ['AUTH has no method', auth(CONTINUE, {}), 'AUTHENTICATION_FAILED', /without an Authentication Method/],
    ['AUTH has a Reason Code of clients', auth(AGAIN), 'AUTHENTICATION_FAILED', /0x19 Re-authenticate/],
  ] as const

  it.each(AFTER)(
    'because %s ends the connection, and the client connects with new data',
    async (_name, packet, code, text) => {
      const { connection, session, mqtt, peer } = await authenticated(responding, {
        reconnect: { delayMs: [10] },
      })
      const failure = failureOf(mqtt.reauthenticate())
      await connection.expect('auth')
      connection.send(packet)
      expect(await failure).toMatchObject({ code, message: expect.stringMatching(text) })
      await nextState(session, 'waiting')
      vi.advanceTimersByTime(10)
      const next = await peer.connection()
      expect(await next.expect('connect')).toMatchObject({ properties: proof('first') })
      next.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties: proof() })
      await session.connection.whenConnected()
      await session.close()
    },
  )

  it('because the broker never responds ends the connection after timeoutMs', async () => {
    const { connection, session, mqtt } = await authenticated()
    const failure = failureOf(mqtt.reauthenticate())
    await connection.expect('auth')
    vi.advanceTimersByTime(4_999)
    await quiet()
    expect(session.connection.state.status).toBe('connected')
    vi.advanceTimersByTime(1)
    expect(await failure).toMatchObject({
      code: 'AUTHENTICATION_FAILED',
      message: 'authentication failed: the broker did not respond to AUTH within 5000 ms',
    })
    expect(await connection.expect('disconnect')).toMatchObject({ reasonCode: 0x80 })
    await nextState(session, 'waiting')
    await session.close()
  })

  it('because onSuccess throws ends the connection', async () => {
    let isWrong = false
    const { connection, session, mqtt } = await authenticated({
      onSuccess: () => {
        if (isWrong) throw new Error('the proof is wrong')
        isWrong = true
      },
    })
    const failure = failureOf(mqtt.reauthenticate())
    await connection.expect('auth')
    connection.send(auth(SUCCESS))
    expect(await failure).toMatchObject({
      message: 'authentication failed: onSuccess failed: the proof is wrong',
    })
    await nextState(session, 'waiting')
    await session.close()
  })

  it('because the connection is cut rejects with the cause', async () => {
    const { connection, session, mqtt } = await authenticated()
    const failure = failureOf(mqtt.reauthenticate())
    await connection.expect('auth')
    await connection.cut()
    expect(await failure).toMatchObject({ code: 'CONNECTION_LOST' })
    await session.close()
  })

  it('in credentials or start() keeps the connection', async () => {
    let fails = false
    const options = {
      credentials: () => {
        if (fails) throw new Error('the vault is closed')
        return {}
      },
    }
    const { connection, session, mqtt } = await authenticated(responding, options)
    fails = true
    expect(await failureOf(mqtt.reauthenticate())).toMatchObject({
      code: 'AUTHENTICATION_FAILED',
      message: 'authentication failed: there are no new credentials: the vault is closed',
    })
    fails = false
    const done = mqtt.reauthenticate()
    await connection.expect('auth')
    connection.send(auth(SUCCESS))
    await done
    expect(session.connection.state.status).toBe('connected')
    await session.close()
  })

  it('in credentials that never settle keeps the connection', async () => {
    let hangs = false
    const { session, mqtt } = await authenticated(responding, {
      credentials: () => (hangs ? new Promise<never>(() => {}) : {}),
    })
    hangs = true
    const failure = failureOf(mqtt.reauthenticate())
    await quiet()
    vi.advanceTimersByTime(10_000)
    expect(await failure).toMatchObject({ message: expect.stringMatching(/did not finish within 10000 ms/) })
    expect(session.connection.state.status).toBe('connected')
    await session.close()
  })
})

it('AUTH outside an exchange ends the connection with a protocol error', async () => {
  const { connection, session } = await authenticated()
  connection.send(auth(CONTINUE))
  expect(await connection.expect('disconnect')).toMatchObject({ reasonCode: 0x82 })
  await nextState(session, 'waiting')
  expect(session.connection.state).toMatchObject({
    cause: {
      code: 'AUTHENTICATION_FAILED',
      message: expect.stringMatching(/no authentication is in progress/),
    },
  })
  await session.close()
})

it('reauthenticate() needs a connection and the option "authentication"', async () => {
  const plain = sessionOnPeer({ connect: 'background' })
  expect(await failureOf(new MqttService(plain.session).reauthenticate())).toMatchObject({
    code: 'INVALID_OPTION',
  })
  const offline = sessionOnPeer({ authentication: { method: METHOD } })
  expect(await failureOf(new MqttService(offline.session).reauthenticate())).toMatchObject({
    code: 'CONNECTION_LOST',
  })
})

import { inspect } from 'node:util'
import { describe, expect, it, vi } from 'vitest'
import type { AuthenticationExchange } from '../../src/options/authentication.js'
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
import { sessionOnPeer } from '../support/session-on-peer.js'

holdClock()

type Parts = Awaited<ReturnType<typeof authenticating>>

/** Responds to `x` with `re:x`. */
const responding: AuthenticationExchange = {
  data: 'first',
  onChallenge: data => `re:${data?.toString()}`,
}
const accepted = { cmd: 'connack', reasonCode: 0, sessionPresent: false } as const

/** The error with which an attempt has failed, and the Reason Code of DISCONNECT. */
async function failure({ session, connection }: Parts) {
  await nextState(session, 'waiting')
  const { state } = session.connection
  const disconnect = connection.received.find(packet => packet.cmd === 'disconnect')
  await session.close()
  return { cause: 'cause' in state ? state.cause : undefined, sent: disconnect?.reasonCode }
}

describe('enhanced authentication', () => {
  it('sends the method and the first data in CONNECT, and a response to each challenge', async () => {
    const { connection, connect, session } = await authenticating(responding)
    expect(connect.properties).toMatchObject(proof('first'))
    for (const challenge of ['a', 'b']) {
      connection.send(auth(CONTINUE, proof(challenge)))
      expect(await connection.expect('auth')).toMatchObject(auth(CONTINUE, proof(`re:${challenge}`)))
    }
    connection.send({ ...accepted, properties: proof() })
    await session.connection.whenConnected()
    await session.close()
  })

  it('passes the final data of the broker to onSuccess before the connection is used', async () => {
    const calls: string[] = []
    const exchange = {
      onSuccess: (data: Buffer | undefined) => {
        calls.push(`${data?.toString()} while ${parts.session.connection.state.status}`)
      },
    }
    const parts = await authenticating(exchange)
    expect(parts.connect.properties).not.toHaveProperty('authenticationData')
    parts.connection.send({ ...accepted, properties: proof('proved') })
    await parts.session.connection.whenConnected()
    expect(calls).toEqual(['proved while connecting'])
    await parts.session.close()
  })

  it('begins anew with each attempt, with the credentials of the attempt', async () => {
    const started: unknown[] = []
    let token = 0
    const { peer, session } = sessionOnPeer({
      connect: 'background',
      reconnect: { delayMs: [10] },
      credentials: () => ({ username: 'u', authenticationData: `token-${++token}` }),
      authentication: {
        method: METHOD,
        start: start => {
          started.push(start)
          const { authenticationData } = start.credentials
          return authenticationData === undefined ? {} : { data: authenticationData }
        },
      },
    })
    await session.start()
    for (const expected of ['token-1', 'token-2']) {
      const connection = await peer.connection()
      const connect = await connection.expect('connect')
      expect(connect).toMatchObject({ username: 'u', properties: proof(expected) })
      await connection.cut()
      await nextState(session, 'waiting')
      vi.advanceTimersByTime(10)
    }
    await peer.connection()
    expect(started).toHaveLength(3)
    expect(started[0]).toEqual({
      credentials: { username: 'u', authenticationData: 'token-1' },
      isReauthentication: false,
    })
    await session.close()
  })

  it('sends no response after the connection has ended', async () => {
    let respond = (_data: string): void => {}
    const slow = new Promise<string>(resolve => {
      respond = resolve
    })
    const { connection, session } = await authenticating({ onChallenge: () => slow })
    connection.send(auth(CONTINUE))
    await quiet()
    await connection.cut()
    await nextState(session, 'waiting')
    respond('late')
    await quiet()
    expect(connection.received.map(({ cmd }) => cmd)).toEqual(['connect'])
    await session.close()
  })
})

describe('an attempt to connect ends', () => {
  it.each([
    [
      'AUTH has another method',
      auth(CONTINUE, proof('x', 'PLAIN')),
      /AUTH with the Authentication Method "PLAIN"; this client uses "TEST-CHALLENGE"/,
      0x82,
    ],
    ['AUTH has no method', auth(CONTINUE, {}), /AUTH without an Authentication Method/, 0x82],
    ['AUTH reports success', auth(SUCCESS), /AUTH with success before CONNACK/, 0x82],
    ['AUTH asks for a re-authentication', auth(AGAIN), /AUTH with 0x19 Re-authenticate/, 0x82],
    [
      'CONNACK has another method',
      { ...accepted, properties: proof('x', 'PLAIN') },
      /CONNACK with the Authentication Method "PLAIN"/,
      0x82,
    ],
    ['CONNACK has no method', accepted, /CONNACK without an Authentication Method/, 0x82],
  ] as const)('if %s', async (_name, packet, message, reasonCode) => {
    const parts = await authenticating(responding)
    parts.connection.send(packet)
    const { cause, sent } = await failure(parts)
    expect(cause).toMatchObject({ code: 'AUTHENTICATION_FAILED', message: expect.stringMatching(message) })
    expect(sent).toBe(reasonCode)
  })

  it('if the broker sends a second challenge before the response to the first', async () => {
    const parts = await authenticating({ onChallenge: () => new Promise(() => {}) })
    parts.connection.send(auth(CONTINUE))
    parts.connection.send(auth(CONTINUE))
    const { cause } = await failure(parts)
    expect(cause?.message).toMatch(/sent AUTH before this client had responded to its challenge/)
  })

  it('if the broker accepts the connection before the response to its challenge', async () => {
    const parts = await authenticating({ onChallenge: () => new Promise(() => {}) })
    parts.connection.send(auth(CONTINUE))
    parts.connection.send({ ...accepted, properties: proof() })
    const { cause } = await failure(parts)
    expect(cause?.message).toMatch(/sent CONNACK before this client had responded to its challenge/)
  })

  it('if the broker sends too many challenges', async () => {
    const parts = await authenticating(responding, { authentication: { method: METHOD, maxRounds: 2 } })
    for (let round = 0; round < 2; round += 1) {
      parts.connection.send(auth(CONTINUE))
      await parts.connection.expect('auth')
    }
    parts.connection.send(auth(CONTINUE))
    expect((await failure(parts)).cause?.message).toMatch(/more than 2 challenges/)
  })

  it.each([
    [
      'throws',
      {
        onChallenge: () => {
          throw new Error('the nonce is wrong')
        },
      },
      /the nonce is wrong/,
    ],
    [
      'rejects',
      { onChallenge: () => Promise.reject(new Error('the vault is closed')) },
      /the vault is closed/,
    ],
    ['is missing', {}, /the broker sent a challenge, but the exchange has no onChallenge/],
    [
      'returns too much',
      { onChallenge: () => Buffer.alloc(65_536) },
      /has 65536 bytes; MQTT allows at most 65535/,
    ],
  ] satisfies [string, AuthenticationExchange, RegExp][])(
    'if onChallenge %s',
    async (_name, exchange, message) => {
      const parts = await authenticating(exchange)
      parts.connection.send(auth(CONTINUE))
      const { cause, sent } = await failure(parts)
      expect(cause).toMatchObject({ code: 'AUTHENTICATION_FAILED', message: expect.stringMatching(message) })
      expect(sent).toBe(0x80)
    },
  )

  it.each([
    [
      'throws',
      () => {
        throw new Error('the proof is wrong')
      },
      /onSuccess failed: the proof is wrong/,
    ],
    ['returns a promise', async () => {}, /onSuccess failed: it returned a promise/],
  ])('if onSuccess %s', async (_name, onSuccess, message) => {
    const parts = await authenticating({ onSuccess })
    parts.connection.send({ ...accepted, properties: proof() })
    const { cause } = await failure(parts)
    expect(cause).toMatchObject({ code: 'AUTHENTICATION_FAILED', message: expect.stringMatching(message) })
  })

  it('if onChallenge does not settle in time', async () => {
    const parts = await authenticating({ onChallenge: () => new Promise(() => {}) })
    parts.connection.send(auth(CONTINUE))
    await quiet()
    vi.advanceTimersByTime(4_999)
    expect(parts.session.connection.state.status).toBe('connecting')
    vi.advanceTimersByTime(1)
    const { cause } = await failure(parts)
    expect(cause?.message).toBe('authentication failed: onChallenge did not settle within 5000 ms')
  })

  it('if the broker does not continue in time', async () => {
    const parts = await authenticating(responding)
    parts.connection.send(auth(CONTINUE))
    await parts.connection.expect('auth')
    vi.advanceTimersByTime(5_000)
    const { cause } = await failure(parts)
    expect(cause?.message).toBe('authentication failed: the broker did not respond to AUTH within 5000 ms')
  })

  it('if the broker sends AUTH, but the client uses no enhanced authentication', async () => {
    const { session, peer } = sessionOnPeer({
      connect: 'background',
      protocolVersion: 'auto',
      reconnect: { delayMs: [60_000] },
    })
    await session.start()
    const connection = await peer.connection()
    const connect = await connection.expect('connect')
    connection.send(auth(CONTINUE))
    const { cause } = await failure({ session, peer, connection, connect } as Parts)
    expect(cause).toMatchObject({
      code: 'AUTHENTICATION_FAILED',
      message: expect.stringMatching(/set the option "authentication"/),
    })
  })
})

it('Authentication Data without a method fails the attempt, and says what is missing', async () => {
  const { session } = sessionOnPeer({ credentials: () => ({ authenticationData: 'token' }) })
  await expect(session.start()).rejects.toMatchObject({
    code: 'CONNECT_FAILED',
    message: expect.stringContaining(
      '"authenticationData" is set, but the option "authentication" is missing',
    ),
  })
})

it('a broker that does not support the method stops the client', async () => {
  const { connection, session, log } = await authenticating(responding)
  connection.send({ cmd: 'connack', reasonCode: 0x8c, sessionPresent: false })
  await nextState(session, 'closed')
  expect(session.connection.state).toMatchObject({ cause: { code: 'CONNECT_REFUSED', reasonCode: 0x8c } })
  expect(log.lines.at(-1)?.text).toMatch(/stopped for good: .* 0x8C Bad authentication method/)
})

it('an unfinished exchange never becomes a connection with MQTT 3.1.1', async () => {
  const { connection, peer, session } = await authenticating(responding, {
    protocolVersion: 'auto',
    reconnect: { delayMs: [10] },
  })
  await connection.cut()
  await nextState(session, 'waiting')
  vi.advanceTimersByTime(10)
  const next = await peer.connection()
  expect(await next.expect('connect')).toMatchObject({ protocolVersion: 5, properties: proof('first') })
  await session.close()
})

it('data of an exchange appears in no log line, error or inspection', async () => {
  const SECRET = 'hunter2'
  const parts = await authenticating({
    data: SECRET,
    onChallenge: () => SECRET,
    onSuccess: () => {
      throw new Error('the proof is wrong')
    },
  })
  const { connection, session, log } = parts
  connection.send(auth(CONTINUE, proof(SECRET)))
  await connection.expect('auth')
  for (const depth of [2, 6]) expect(inspect(session, { depth, showHidden: true })).not.toContain(SECRET)
  connection.send({ ...accepted, properties: proof(SECRET) })
  const { cause } = await failure(parts)
  expect(inspect(cause, { depth: 10, showHidden: true })).not.toContain(SECRET)
  expect(JSON.stringify(log.lines)).not.toContain(SECRET)
})

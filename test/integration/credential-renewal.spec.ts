import { beforeEach, describe, expect, it, vi } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import type { MqttCredentials, MqttModuleOptions } from '../../src/options/options.js'
import { Asked, moment, responseTo } from '../support/asking.js'
import { AGAIN, auth, METHOD, proof, SUCCESS } from '../support/authenticating-client.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { expectAddsUp, flow, pass } from '../support/publisher-on-peer.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

holdClock()

const LIFETIME_MS = 100_000
/** Without jitter. */
const RENEWED_MS = 0.75 * LIFETIME_MS

beforeEach(() => {
  vi.spyOn(Math, 'random').mockReturnValue(0)
})

/** A connected client whose credentials expire. `next` replaces what `credentials` does. */
async function expiring(options: MqttModuleOptions = {}, lifetimeMs = LIFETIME_MS) {
  const calls: number[] = []
  const provide = {
    next: (count: number): MqttCredentials | Promise<MqttCredentials> => ({
      username: 'service',
      password: `token-${count}`,
      expiresAtMs: Date.now() + lifetimeMs,
    }),
  }
  const parts = sessionOnPeer({
    connect: 'background',
    clean: false,
    clientId: 'kept',
    reconnect: { delayMs: [1_000], resetAfterMs: 0 },
    drainTimeoutMs: 0,
    credentials: () => {
      calls.push(Date.now())
      return provide.next(calls.length)
    },
    ...options,
  })
  await parts.session.start()
  const connection = await parts.peer.connection()
  const connect = await connection.expect('connect')
  const properties = options.authentication === undefined ? {} : { properties: proof() }
  connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false, ...properties })
  await parts.session.connection.whenConnected()
  const warnings = () => parts.log.lines.filter(({ level }) => level === 'warn' || level === 'error')
  return { ...parts, connection, connect, calls, provide, warnings, mqtt: new MqttService(parts.session) }
}

type Expiring = Awaited<ReturnType<typeof expiring>>

/** The broker closes the connection after DISCONNECT, and accepts the next one. */
async function replaced({ peer, session }: Expiring, connection: Expiring['connection']) {
  expect(await connection.find('disconnect')).toMatchObject({ reasonCode: 0 })
  return replacedAfter({ peer, session }, connection)
}

/** The same after DISCONNECT was read. */
async function replacedAfter(
  { peer, session }: Pick<Expiring, 'peer' | 'session'>,
  connection: Expiring['connection'],
) {
  void connection.cut()
  const next = await peer.connection()
  const connect = await next.expect('connect')
  next.send({ cmd: 'connack', reasonCode: 0, sessionPresent: true })
  await session.connection.whenConnected()
  return { next, connect }
}

describe('credentials that expire, without enhanced authentication', () => {
  it('are renewed before they expire: the client ends the connection normally, and connects at once with new ones', async () => {
    const parts = await expiring()
    const { connection, connect, session, calls, warnings, mqtt } = parts
    expect(connect.password?.toString()).toBe('token-1')
    await pass(RENEWED_MS - 1)
    expect(calls).toHaveLength(1)
    await pass(1)
    expect(calls).toHaveLength(2)
    const after = await replaced(parts, connection)
    expect(after.connect.password?.toString()).toBe('token-2')
    expect(calls).toHaveLength(2)
    expect(warnings()).toEqual([])
    expect(mqtt.stats().connection).toMatchObject({ connects: 2, losses: 0 })
    await session.close()
  })

  it('are renewed again and again', async () => {
    const parts = await expiring()
    let { connection } = parts
    for (let count = 2; count <= 5; count += 1) {
      await pass(RENEWED_MS)
      const { next, connect } = await replaced(parts, connection)
      expect(connect.password?.toString()).toBe(`token-${count}`)
      connection = next
    }
    await parts.session.close()
  })

  it('that hold for months are renewed in time', async () => {
    const DAY_MS = 86_400_000
    const parts = await expiring({}, 100 * DAY_MS)
    await pass(74 * DAY_MS, DAY_MS)
    await pass(DAY_MS - 1)
    expect(parts.calls).toHaveLength(1)
    await pass(1)
    expect(parts.calls).toHaveLength(2)
    await replaced(parts, parts.connection)
    await parts.session.close()
  })

  it('let publishes in flight settle before DISCONNECT, and hold new ones for the next connection', async () => {
    const parts = await expiring()
    const { connection, session, mqtt } = parts
    await pass(RENEWED_MS - 1)
    const before = mqtt.publish('before', 'x', { qos: 1 })
    const { messageId = 0 } = await connection.expect('publish')
    await pass(1)
    const during = [mqtt.publish('during', 'x', { qos: 1 }), mqtt.publish('during', 'y', { qos: 0 })]
    await pass(100, 10)
    expect(connection.received.filter(({ cmd }) => cmd === 'publish')).toHaveLength(1)
    expect(connection.received.some(({ cmd }) => cmd === 'disconnect')).toBe(false)
    connection.send({ cmd: 'puback', messageId })
    expect(await before).toMatchObject({ status: 'acknowledged' })
    await pass(10)
    const meanwhile = replaced(parts, connection)
    const { next } = await meanwhile
    const sent = await next.expect('publish')
    expect(sent).toMatchObject({ topic: 'during', dup: false, qos: 1 })
    next.send({ cmd: 'puback', messageId: sent.messageId ?? 0 })
    expect(await next.expect('publish')).toMatchObject({ topic: 'during', qos: 0 })
    expect(await Promise.all(during)).toMatchObject([{ status: 'acknowledged' }, { status: 'sent' }])
    expectAddsUp(mqtt)
    await session.close()
  })

  it('drop no publish that is made between the two connections', async () => {
    const parts = await expiring()
    const { connection, peer, session, mqtt } = parts
    await pass(RENEWED_MS)
    await connection.find('disconnect')
    void connection.cut()
    const next = await peer.connection()
    await next.expect('connect')
    expect(session.connection.state.status).toBe('connecting')
    const outcomes = [mqtt.publish('a', 'x'), mqtt.publish('b', 'y')]
    expect(mqtt.tryPublish('c', 'z')).toEqual({ status: 'accepted' })
    next.send({ cmd: 'connack', reasonCode: 0, sessionPresent: true })
    expect(await Promise.all(outcomes)).toEqual([{ status: 'sent' }, { status: 'sent' }])
    for (const topic of ['a', 'b', 'c']) expect(await next.expect('publish')).toMatchObject({ topic })
    await session.close()
  })

  it('drop waiting publishes as usual if the next connection fails', async () => {
    const parts = await expiring()
    const { connection, peer, session, mqtt } = parts
    peer.refuse(1)
    await pass(RENEWED_MS - 1)
    const before = mqtt.publish('before', 'x', { qos: 1 })
    const { messageId = 0 } = await connection.expect('publish')
    await pass(1)
    const lost = mqtt.publish('a', 'x')
    connection.send({ cmd: 'puback', messageId })
    expect(await before).toMatchObject({ status: 'acknowledged' })
    await pass(10)
    await connection.cut()
    await nextState(session, 'waiting')
    expect(await lost).toEqual({ status: 'dropped', reason: 'offline' })
    expect(await mqtt.publish('a', 'x')).toEqual({ status: 'dropped', reason: 'offline' })
    expectAddsUp(mqtt)
    await session.close()
  })

  it('do not handle a message twice that is being handled when the connection is replaced', async () => {
    const parts = await expiring()
    const { connection, session, route } = parts
    const handled: string[] = []
    let finish = (): void => {}
    route('in', ({ payload }) => {
      handled.push(payload.toString())
      return new Promise(resolve => {
        finish = resolve
      })
    })
    session.dispatcher.start()
    connection.send(message('in', { qos: 1, messageId: 7, payload: Buffer.from('one') }))
    await quiet()
    await pass(RENEWED_MS)
    await connection.find('disconnect')
    finish()
    await quiet()
    expect(connection.received.at(-1)?.cmd).toBe('disconnect')
    const { next: resumed } = await replacedAfter(parts, connection)
    resumed.send(message('in', { qos: 1, messageId: 7, dup: true, payload: Buffer.from('one') }))
    await flow()
    expect(await resumed.find('puback')).toMatchObject({ messageId: 7 })
    expect(handled).toEqual(['one'])
    await session.close()
  })

  it('leave requests open, and let new ones wait for the next connection', async () => {
    const parts = await expiring()
    const { connection, peer, session, mqtt } = parts
    await pass(RENEWED_MS - 1)
    const open = new Asked(mqtt.request('ask', 1))
    await connection.grant()
    await flow()
    const request = await connection.expect('publish')
    await pass(1)
    await connection.find('disconnect')
    void connection.cut()
    const next = await peer.connection()
    await next.expect('connect')
    const asked = new Asked(mqtt.request('ask', 2))
    next.send({ cmd: 'connack', reasonCode: 0, sessionPresent: true })
    next.send(responseTo(request, { value: 'one' }))
    await flow()
    expect(open).toMatchObject({ state: 'responded', value: 'one' })
    await moment()
    next.send(responseTo(await next.find('publish'), { value: 'two' }))
    await flow()
    expect(asked).toMatchObject({ state: 'responded', value: 'two' })
    await session.close()
  })

  it('fail open requests if the next connection fails', async () => {
    const parts = await expiring()
    const { connection, peer, session, mqtt } = parts
    await pass(RENEWED_MS - 1)
    const open = new Asked(mqtt.request('ask', 1))
    await connection.grant()
    await connection.find('publish')
    peer.refuse(1)
    await pass(1)
    await connection.cut()
    await nextState(session, 'waiting')
    await quiet()
    expect(open).toMatchObject({ state: 'failed' })
    await session.close()
  })

  it('replace a connection that the broker does not close', async () => {
    const parts = await expiring()
    const { connection, peer, session } = parts
    connection.stall()
    await pass(RENEWED_MS)
    await pass(500)
    const next = await peer.connection()
    await next.expect('connect')
    next.send({ cmd: 'connack', reasonCode: 0, sessionPresent: true })
    await session.connection.whenConnected()
    await session.close()
  })

  it('are not renewed while the client shuts down', async () => {
    const parts = await expiring({ drainTimeoutMs: 300_000 })
    const { connection, session, calls, route } = parts
    route('in', () => new Promise(() => {}))
    session.dispatcher.start()
    connection.send(message('in', { qos: 1, messageId: 7 }))
    await quiet()
    void session.drain()
    await pass(LIFETIME_MS, 5_000)
    expect(calls).toHaveLength(1)
    expect(session.connection.state.status).toBe('connected')
    const closed = session.close()
    await pass(300_000, 10_000)
    await closed
  })
})

describe('a clean session', () => {
  it('is not ended while a publish waits for its acknowledgement, unless the credentials are about to expire', async () => {
    const parts = await expiring({ clean: true })
    const { connection, session, mqtt, warnings } = parts
    await pass(RENEWED_MS - 1)
    const pending = mqtt.publish('a', 'x', { qos: 1 })
    await connection.expect('publish')
    await pass(1)
    await pass(500, 5)
    expect(warnings().map(({ text }) => text)).toEqual([
      'the credentials were not renewed: the connection cannot be replaced, because the broker has not acknowledged 1 publish',
    ])
    await pass(19_000, 50)
    expect(connection.received.some(({ cmd }) => cmd === 'disconnect')).toBe(false)
    await pass(5_000, 50)
    await connection.find('disconnect')
    void connection.cut()
    const next = await parts.peer.connection()
    await next.expect('connect')
    next.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false })
    expect(await pending).toMatchObject({ status: 'lost' })
    await session.close()
  })
})

describe('a renewal keeps the connection and tries again', () => {
  it.each([
    [
      'fails',
      () => Promise.reject(new Error('the vault is closed')),
      /there are no new credentials: the vault is closed|the vault is closed/,
    ],
    [
      'returns credentials that have expired',
      () => ({ expiresAtMs: Date.now() - 1 }),
      /"expiresAtMs" of the new credentials is in the past/,
    ],
    [
      'returns seconds',
      () => ({ expiresAtMs: 1_900_000_000 }),
      /"expiresAtMs" must be a time in milliseconds since 1970, but 1900000000 looks like seconds/,
    ],
  ] as const)('if credentials %s', async (_name, next, text) => {
    const parts = await expiring()
    const { connection, session, provide, calls, warnings } = parts
    const working = provide.next
    provide.next = next
    await pass(RENEWED_MS)
    expect(calls).toHaveLength(2)
    expect(warnings()).toHaveLength(1)
    expect(warnings()[0]?.text).toMatch(/^the credentials were not renewed: /)
    expect(warnings()[0]?.text).toMatch(text)
    expect(session.connection.state.status).toBe('connected')
    provide.next = working
    await pass(1_000, 100)
    expect(calls).toHaveLength(3)
    await replaced(parts, connection)
    await session.close()
  })

  it('if credentials never settle', async () => {
    const parts = await expiring()
    const { connection, session, provide, calls, warnings } = parts
    const working = provide.next
    provide.next = () => new Promise(() => {})
    await pass(RENEWED_MS)
    provide.next = working
    await pass(11_000, 1_000)
    expect(warnings()[0]?.text).toMatch(/the request for new credentials did not finish within 10000 ms/)
    expect(calls.length).toBeGreaterThan(2)
    await replaced(parts, connection)
    await session.close()
  })

  it('with growing delays, and in one log line per 10 s', async () => {
    const { session, provide, calls, warnings } = await expiring({}, 1_000_000)
    provide.next = () => {
      throw new Error('the vault is closed')
    }
    await pass(900_000, 10_000)
    const before = calls.length
    await pass(200_000, 100)
    expect(calls.length - before).toBeLessThan(15)
    expect(calls.length).toBeGreaterThan(4)
    expect(warnings().length).toBeLessThanOrEqual(calls.length)
    expect(session.connection.state.status).toBe('connected')
    await session.close()
  })
})

it('credentials that have expired when they are used are renewed with growing delays, not at once', async () => {
  const { session, calls, warnings } = await expiring({}, -1_000)
  await quiet()
  expect(calls).toHaveLength(1)
  expect(warnings()[0]?.text).toBe('the credentials were not renewed: "expiresAtMs" is in the past')
  await pass(10_000, 100)
  expect(calls.length).toBeGreaterThan(1)
  expect(calls.length).toBeLessThan(6)
  await session.close()
})

it('a connection that ends meanwhile is not renewed', async () => {
  const { connection, session, calls } = await expiring({ reconnect: { delayMs: [1_000_000] } })
  await connection.cut()
  await nextState(session, 'waiting')
  await pass(LIFETIME_MS, 5_000)
  expect(calls).toHaveLength(1)
  await session.close()
})

describe('credentials that expire, with enhanced authentication', () => {
  const authentication = { method: METHOD }
  const tokens =
    (lifetimeMs = LIFETIME_MS) =>
    (count: number) => ({
      authenticationData: `token-${count}`,
      expiresAtMs: Date.now() + lifetimeMs,
    })

  async function authenticated() {
    let count = 0
    return expiring({ authentication, credentials: () => tokens()(++count) })
  }

  it('are renewed on the living connection, 20 times, and no publish waits or is lost', async () => {
    const { connection, connect, session, mqtt, peer, warnings } = await authenticated()
    expect(connect.properties).toMatchObject(proof('token-1'))
    let published = 0
    for (let count = 2; count <= 21; count += 1) {
      await pass(RENEWED_MS)
      expect(await connection.find('auth')).toMatchObject(auth(AGAIN, proof(`token-${count}`)))
      const outcome = mqtt.publish('a', String(++published), { qos: 1 })
      const { messageId = 0, dup } = await connection.find('publish')
      expect(dup).toBe(false)
      connection.send({ cmd: 'puback', messageId })
      expect(await outcome).toMatchObject({ status: 'acknowledged' })
      connection.send(auth(SUCCESS))
      await quiet()
    }
    expect(peer.dials).toBe(1)
    expect(warnings()).toEqual([])
    expect(mqtt.stats().outbound).toMatchObject({ attempted: 20, acknowledged: 20 })
    await session.close()
  })

  it('lead to a new connection if the broker refuses the new ones', async () => {
    const { connection, session, peer, warnings } = await authenticated()
    await pass(RENEWED_MS)
    await connection.find('auth')
    connection.send({ cmd: 'disconnect', reasonCode: 0x87 })
    await nextState(session, 'waiting')
    expect(warnings().map(({ text }) => text)).toEqual([
      expect.stringMatching(/^connection lost: .*0x87 Not authorized/),
    ])
    vi.advanceTimersByTime(1_000)
    const next = await peer.connection()
    expect(await next.expect('connect')).toMatchObject({ properties: proof('token-3') })
    await session.close()
  })
})

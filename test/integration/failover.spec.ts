import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { generate } from 'mqtt-packet'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createDialler } from '../../src/client/connection/dialler.js'
import { Endpoints, type SrvResolver } from '../../src/client/connection/endpoints.js'
import { newHandler } from '../../src/client/inbound/delivery.js'
import { MqttSession } from '../../src/client/mqtt-session.js'
import { parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { EmbeddedBroker, PeerConnection } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { RecordingLog } from '../support/recording-log.js'
import { SUBSCRIBE_QOS_1, sessionOnPeer } from '../support/session-on-peer.js'

const GROWING = { delayMs: [1_000, 2_000, 4_000] } as const
const SECRET = 'hunter2'

const opened: { stop(): Promise<void> }[] = []
const sessions: MqttSession[] = []

holdClock()
afterEach(async () => {
  // After a failed test, its sessions would go on in the next one.
  for (const session of sessions.splice(0)) {
    const closed = session.close()
    vi.advanceTimersByTime(session.connection.state.status === 'closed' ? 0 : 60_000)
    await closed
  }
  for (const broker of opened.splice(0)) await broker.stop()
  // A socket announces its end some turns late.
  await quiet()
})

async function broker(port = 0): Promise<EmbeddedBroker> {
  const started = await EmbeddedBroker.start({ port })
  opened.push(started)
  return started
}

async function stop(...brokers: EmbeddedBroker[]): Promise<void> {
  for (const one of brokers) {
    opened.splice(opened.indexOf(one), 1)
    await one.stop()
  }
}

/** A URL at which nothing listens. */
const nobody = async (): Promise<string> => `mqtt://127.0.0.1:${await freePort()}`

/** Between SRV records of one priority, always draws the same one: the one with nine tenths of the weight. */
const HALF = (): number => 0.5

function sessionOn(url: string | readonly string[], options: MqttModuleOptions = {}, resolver?: SrvResolver) {
  const log = new RecordingLog()
  const resolved = resolveOptions({
    url,
    protocolVersion: 4,
    keepalive: 0,
    reconnect: GROWING,
    connect: 'background',
    ...options,
  })
  const dialler =
    resolver === undefined ? undefined : createDialler(resolved, new Endpoints(resolved, resolver, HALF))
  const session = new MqttSession(resolved, log, dialler)
  sessions.push(session)
  /** What each attempt, and each connection, ended with; the clock moves on by itself. */
  const delays: number[] = []
  const causes: string[] = []
  const run = (): void => {
    session.connection.attach({
      stateChanged: state => {
        if (state.status !== 'waiting') return
        delays.push(state.delayMs)
        causes.push(state.cause.message)
        queueMicrotask(() => vi.advanceTimersByTime(state.delayMs))
      },
    })
  }
  return { session, log, delays, causes, run }
}

const connectedTo = ({ connection }: MqttSession): string | undefined =>
  connection.state.status === 'connected' ? connection.state.session.broker : undefined

describe('several URLs', () => {
  it('are tried in order, with the first delay in between, until one works', async () => {
    const [first, second] = [await nobody(), await nobody()]
    const third = await broker()
    const { session, delays, causes, run } = sessionOn([first, second, third.url])
    run()
    await session.start()
    await session.connection.whenConnected()
    expect(connectedTo(session)).toBe(third.url)
    expect(delays).toEqual([1_000, 1_000])
    expect(causes).toEqual([expect.stringContaining(first), expect.stringContaining(second)])
    await session.close()
  })

  it('the last one that worked is tried first after a lost connection, even if an earlier one is available again', async () => {
    const first = await nobody()
    const second = await broker()
    const { session, run } = sessionOn([first, second.url, await nobody()])
    run()
    await session.start()
    await session.connection.whenConnected()
    await broker(Number(new URL(first).port))
    second.cut()
    await nextState(session, 'waiting')
    await session.connection.whenConnected()
    expect(connectedTo(session)).toBe(second.url)
    await session.close()
  })

  it('the ones after the last one that worked are tried next if it is down, and then those from the start', async () => {
    const [first, second, third] = [await broker(), await broker(), await broker()]
    const { session, run } = sessionOn([first.url, second.url, third.url])
    run()
    await session.start()
    await session.connection.whenConnected()
    const visited = [connectedTo(session)]
    for (const gone of [first, second]) {
      await stop(gone)
      await nextState(session, 'waiting')
      await session.connection.whenConnected()
      visited.push(connectedTo(session))
    }
    await broker(Number(new URL(first.url).port))
    await stop(third)
    await nextState(session, 'waiting')
    await session.connection.whenConnected()
    expect([...visited, connectedTo(session)]).toEqual([first.url, second.url, third.url, first.url])
    await session.close()
  })

  it('are all tried before the delay grows', async () => {
    const urls = [await nobody(), await nobody(), await nobody()]
    const { session, delays, causes, run } = sessionOn(urls)
    run()
    await session.start()
    await eventually(() => delays.length >= 9)
    await session.close()
    expect(delays.slice(0, 9)).toEqual([1_000, 1_000, 1_000, 2_000, 2_000, 2_000, 4_000, 4_000, 4_000])
    for (const [index, cause] of causes.entries()) expect(cause).toContain(urls[index % 3])
  })

  it('fail-fast resolves if any of them works', async () => {
    const good = await broker()
    const { session, run } = sessionOn([await nobody(), good.url], { connect: 'fail-fast' })
    run()
    await session.start()
    expect(connectedTo(session)).toBe(good.url)
    await session.close()
  })

  it('fail-fast fails after a full round, with the cause of the last one', async () => {
    const urls = [await nobody(), await nobody(), await nobody()]
    const { session, delays, log, run } = sessionOn(urls, { connect: 'fail-fast' })
    run()
    await expect(session.start()).rejects.toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringContaining(`could not connect to ${urls[2]}: connect ECONNREFUSED`),
    })
    expect(delays).toEqual([1_000, 1_000])
    // The promise tells of the last one, and what to do.
    expect(log.visible).toHaveLength(2)
    vi.advanceTimersByTime(86_400_000)
    expect(session.connection.state.status).toBe('closed')
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('credentials', () => {
  it('are requested before every attempt; a rejection is a failed attempt with its cause', async () => {
    const users: (string | undefined)[] = []
    const guarded = await EmbeddedBroker.start({
      allowConnect: (_clientId, username, password) => {
        users.push(username)
        return password?.toString() === `${SECRET}-4`
      },
    })
    opened.push(guarded)
    let calls = 0
    const { session, log, delays, causes, run } = sessionOn(guarded.url, {
      credentials: async () => {
        calls += 1
        await nextTurn()
        if (calls === 1) throw new Error('the vault is sealed')
        if (calls === 2) throw undefined
        return { username: `user-${calls}`, password: `${SECRET}-${calls}` }
      },
    })
    run()
    await session.start()
    await session.connection.whenConnected()
    expect(users).toEqual(['user-3', 'user-4'])
    expect(delays).toEqual([1_000, 2_000, 4_000])
    expect(causes).toEqual([
      'could not connect: the vault is sealed',
      expect.stringContaining('could not connect: '),
      expect.stringContaining('0x05 Not authorized'),
    ])
    expect(JSON.stringify(log.lines)).not.toContain(SECRET)
    await session.close()
  })

  it('that do not settle are a failed attempt after connectTimeoutMs', async () => {
    const good = await broker()
    let calls = 0
    const { session, causes, run } = sessionOn(good.url, {
      connectTimeoutMs: 3_000,
      credentials: () => {
        calls += 1
        return calls === 1 ? new Promise(() => {}) : Promise.resolve({})
      },
    })
    run()
    await session.start()
    vi.advanceTimersByTime(2_999)
    await nextTurn()
    expect(session.connection.state.status).toBe('connecting')
    vi.advanceTimersByTime(1)
    await session.connection.whenConnected()
    expect(causes).toEqual([
      expect.stringContaining('credentials, address and proxy were not ready within 3000 ms'),
    ])
    await session.close()
  })

  it('never appear in an error, a log line or a state, wherever they are set', async () => {
    const url = `${(await nobody()).replace('mqtt://', `mqtt://${SECRET}-user:${SECRET}@`)}/?token=${SECRET}`
    const { session, log, run } = sessionOn(url, {
      connect: 'fail-fast',
      username: `${SECRET}-option`,
      password: SECRET,
      credentials: async () => ({
        username: SECRET,
        password: Buffer.from(SECRET),
        headers: { Authorization: SECRET },
      }),
    })
    run()
    const failure: unknown = await session.start().catch((error: unknown) => error)
    const shown = [failure, session.connection.state, session.health, log.lines]
    for (let cause = failure; cause instanceof Error; cause = cause.cause)
      shown.push(cause.message, cause.stack)
    expect(inspect(shown, { depth: 20, showHidden: true })).not.toContain(SECRET)
  })
})

describe('mqtt+srv', () => {
  it('looks up the name at each attempt, selects records by priority and weight, and keeps the one that works', async () => {
    const bad = Number(new URL(await nobody()).port)
    const [light, heavy] = [await broker(), await broker()]
    const record = (port: number, priority: number, weight: number) => ({
      name: '127.0.0.1',
      port,
      priority,
      weight,
    })
    const asked: string[] = []
    const resolver: SrvResolver = async service => {
      asked.push(service)
      if (asked.length === 1) throw new Error('queryServfail')
      return [
        record(Number(new URL(light.url).port), 20, 1),
        record(Number(new URL(heavy.url).port), 20, 9),
        record(bad, 10, 0),
      ]
    }
    const { session, causes, run } = sessionOn('mqtt+srv://fleet.example', {}, resolver)
    run()
    await session.start()
    await session.connection.whenConnected()
    expect(connectedTo(session)).toBe(heavy.url)
    expect(causes).toEqual([
      expect.stringContaining('queryServfail'),
      expect.stringContaining(`127.0.0.1:${bad}`),
    ])
    heavy.cut()
    await nextState(session, 'waiting')
    await session.connection.whenConnected()
    expect(connectedTo(session)).toBe(heavy.url)
    await stop(heavy)
    await nextState(session, 'waiting')
    await eventually(() => connectedTo(session) === light.url)
    expect(new Set(asked)).toEqual(new Set(['_mqtt._tcp.fleet.example']))
    // One look-up per attempt: one for each that has ended, and one for the current one.
    expect(asked.length).toBe(causes.length + 1)
    await session.close()
  })

  it('without a record is a failed attempt that names the service', async () => {
    const { session } = sessionOn('mqtts+srv://fleet.example', { connect: 'fail-fast' }, async () => [])
    await expect(session.start()).rejects.toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringContaining('there is no SRV record _secure-mqtt._tcp.fleet.example'),
    })
  })

  it('without a response is a failed attempt after connectTimeoutMs', async () => {
    const { session } = sessionOn(
      'mqtt+srv://fleet.example',
      { connect: 'fail-fast', connectTimeoutMs: 2_000 },
      () => new Promise(() => {}),
    )
    const failed = expect(session.start()).rejects.toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringContaining('within 2000 ms'),
    })
    await vi.advanceTimersByTimeAsync(2_000)
    await failed
  })
})

describe('localAddress', () => {
  it.each(['mqtt', 'ws'])('is the source address of a connection by %s', async protocol => {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    opened.push({ stop: () => stopServer(server) })
    const { session } = sessionOn(`${protocol}://127.0.0.1:${portOf(server)}`, { localAddress: '127.0.0.2' })
    const connected = once(server, 'connection')
    await session.start()
    const [socket] = await connected
    expect(socket.remoteAddress).toBe('127.0.0.2')
    if (protocol === 'mqtt') {
      const connection = new PeerConnection(socket)
      await connection.expect('connect')
      connection.send({ cmd: 'connack', returnCode: 0, sessionPresent: false })
      await session.connection.whenConnected()
    }
    await session.close()
    socket.destroy()
  })
})

describe('a refused subscription', () => {
  const route = (session: MqttSession, filter: string) =>
    session.addRoute(
      parseTopicFilter(filter),
      SUBSCRIBE_QOS_1,
      newHandler({ name: filter, run: async () => {} }),
    )

  it('is sent again with growing delays until it is granted, and appears in the health', async () => {
    const { peer, session, log, route: add } = sessionOnPeer({ connect: 'background', reconnect: GROWING })
    for (const filter of ['good', 'bad']) add(filter, async () => {})
    await session.listen()
    const connection = await peer.accept()
    await connection.grant(1)
    await connection.grant(0x87)
    await eventually(() => session.stats.subscriptions.refused === 1)
    for (const delayMs of [1_000, 2_000, 4_000, 4_000]) {
      expect(session.health).toMatchObject({ state: 'degraded', refusedSubscriptions: ['bad'] })
      const { length } = connection.received
      vi.advanceTimersByTime(delayMs - 1)
      await quiet()
      expect(connection.received).toHaveLength(length)
      vi.advanceTimersByTime(1)
      const { subscriptions } = await connection.grant(delayMs === 4_000 ? 0x97 : 0x87)
      expect(subscriptions.map(subscription => subscription.topic)).toEqual(['bad'])
      await quiet()
    }
    vi.advanceTimersByTime(4_000)
    await connection.grant(1)
    await eventually(() => session.stats.subscriptions.granted === 2)
    expect(session.health).toMatchObject({ state: 'up', refusedSubscriptions: [] })
    // Told once, whatever the broker says how often; and once when it is over.
    expect(log.visible.filter(line => line.includes('"bad"'))).toEqual([
      expect.stringContaining('refused the subscription "bad"'),
      expect.stringContaining('now grants the subscription "bad"'),
    ])
    vi.advanceTimersByTime(86_400_000)
    await quiet()
    expect(connection.received.filter(packet => packet.cmd === 'subscribe')).toHaveLength(7)
    expect(vi.getTimerCount()).toBe(0)
    await closeAnswering(session, connection)
  })

  it('on a real port: fails the start, except with "warn", and is granted once it is allowed', async () => {
    let isAllowed = false
    const guarded = await EmbeddedBroker.start({
      allowSubscribe: filter => filter !== 'secret' || isAllowed,
    })
    opened.push(guarded)
    const failing = sessionOn(guarded.url, { connect: 'fail-fast' })
    for (const filter of ['a', 'secret', 'b']) route(failing.session, filter)
    await expect(failing.session.listen()).rejects.toMatchObject({
      code: 'SUBSCRIBE_REFUSED',
      reasonCode: 0x80,
      message: expect.stringContaining('"secret"'),
    })
    expect(failing.session.connection.state.status).toBe('closed')

    const warned = sessionOn(guarded.url, { connect: 'fail-fast', refusedSubscription: 'warn' })
    for (const filter of ['a', 'secret', 'b']) route(warned.session, filter)
    await warned.session.listen()
    expect(warned.session.health).toMatchObject({ state: 'degraded', refusedSubscriptions: ['secret'] })
    expect(warned.session.stats.subscriptions).toEqual({
      granted: 2,
      refused: 1,
      pending: 0,
      unsubscribesRefused: 0,
    })
    isAllowed = true
    vi.advanceTimersByTime(1_000)
    await eventually(() => warned.session.health.state === 'up')
    await warned.session.close()
  })
})

describe('features that CONNACK rules out', () => {
  const limited = async (filters: readonly string[], properties: Readonly<Record<string, unknown>>) => {
    const parts = sessionOnPeer({ connect: 'background', reconnect: GROWING })
    for (const filter of filters) parts.route(filter, async () => {})
    await parts.session.listen()
    const connection = await parts.peer.accept({ properties })
    return { ...parts, connection }
  }

  const unable = [
    ['sharedSubscriptionAvailable', '$share/group/a', 'does not support Shared Subscriptions', 0x9e],
    ['wildcardSubscriptionAvailable', 'a/#', 'does not support wildcard subscriptions', 0xa2],
    ['wildcardSubscriptionAvailable', 'a/+/b', 'does not support wildcard subscriptions', 0xa2],
  ] as const

  it.each(unable)('%s: "%s" is not sent, and refused with a clear error', async (name, filter, why) => {
    const { session, connection, log } = await limited(['plain/1', filter, 'plain/2'], { [name]: false })
    const asked = [await connection.grant(), await connection.grant()]
    await eventually(() => session.stats.subscriptions.granted === 2)
    expect(asked.flatMap(packet => packet.subscriptions.map(({ topic }) => topic))).toEqual([
      'plain/1',
      'plain/2',
    ])
    expect(session.health).toMatchObject({ state: 'degraded', refusedSubscriptions: [filter] })
    expect(log.lines.filter(line => line.level === 'error')).toEqual([
      {
        level: 'error',
        text: expect.stringContaining(`cannot subscribe to "${filter}": the broker ${why}`),
      },
    ])
    await closeAnswering(session, connection)
  })

  it.each(unable)(
    '%s: "%s" fails a fail-fast start with the Reason Code that the broker would have sent',
    async (name, filter, _why, reasonCode) => {
      const { peer, session, route } = sessionOnPeer()
      route(filter, async () => {})
      const listening = session.listen()
      const failed = expect(listening).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED', reasonCode })
      await peer.accept({ properties: { [name]: false } })
      await failed
      expect(session.connection.state.status).toBe('closed')
    },
  )

  const MAXIMUM = 60
  const sizeOf = (packet: Parameters<typeof generate>[0]): number =>
    generate(packet, { protocolVersion: 5 }).length

  it.each([false, true])(
    'Maximum Packet Size: 300 filters are split into packets within the limit (identifiers: %s)',
    async subscriptionIdentifiersAvailable => {
      const filters = Array.from({ length: 300 }, (_, index) => `filter/${'x'.repeat(index % 30)}/${index}`)
      const { session, connection } = await limited(filters, {
        maximumPacketSize: MAXIMUM,
        subscriptionIdentifiersAvailable,
      })
      const asked: string[] = []
      let packets = 0
      while (asked.length < filters.length) {
        const packet = await connection.grant()
        packets += 1
        expect(sizeOf(packet)).toBeLessThanOrEqual(MAXIMUM)
        asked.push(...packet.subscriptions.map(({ topic }) => topic))
      }
      await eventually(() => session.stats.subscriptions.granted === filters.length)
      expect(asked).toEqual(filters)
      if (!subscriptionIdentifiersAvailable) expect(packets).toBeLessThan(filters.length)
      else expect(packets).toBe(filters.length)
      await closeAnswering(session, connection)
      const unsubscribes = connection.received.filter(packet => packet.cmd === 'unsubscribe')
      expect(unsubscribes.flatMap(packet => packet.unsubscriptions)).toEqual(filters)
      // The client must not send more than that, whatever the packet is [MQTT-3.2.2-15].
      expect(Math.max(...unsubscribes.map(sizeOf))).toBeLessThanOrEqual(MAXIMUM)
    },
  )

  it.each([false, true])(
    'Maximum Packet Size: a filter that is too long is refused, and does not affect the others (identifiers: %s)',
    async subscriptionIdentifiersAvailable => {
      const tooLong = `long/${'x'.repeat(MAXIMUM)}`
      const { session, connection } = await limited(['a', tooLong, 'b', 'c'], {
        maximumPacketSize: MAXIMUM,
        subscriptionIdentifiersAvailable,
      })
      void grantAll(connection)
      await eventually(() => session.stats.subscriptions.pending === 0)
      const { refusedSubscriptions } = session.health
      await closeAnswering(session, connection)
      expect(refusedSubscriptions).toEqual([tooLong])
    },
  )

  it('Maximum Packet Size: filters that the broker cannot serve do not count towards it', async () => {
    const shared = Array.from({ length: 10 }, (_, index) => `$share/group/${index}`)
    const { session, connection } = await limited([...shared, 'a', 'b'], {
      maximumPacketSize: MAXIMUM,
      sharedSubscriptionAvailable: false,
    })
    void grantAll(connection)
    await eventually(() => session.stats.subscriptions.pending === 0)
    const { refusedSubscriptions } = session.health
    await closeAnswering(session, connection)
    expect(refusedSubscriptions).toEqual(shared)
  })
})

/** Grants whatever is asked for, until the connection ends. */
async function grantAll(connection: PeerConnection): Promise<void> {
  try {
    for (;;) await connection.grant()
  } catch {
    // The end of the connection, or what is not a SUBSCRIBE.
  }
}

/** Answers every UNSUBSCRIBE of a session that closes. */
async function closeAnswering(session: MqttSession, connection: PeerConnection): Promise<void> {
  const answered = new Set<number | undefined>()
  let isClosed = false
  const closed = session.close().then(() => {
    isClosed = true
  })
  while (!isClosed) {
    for (const packet of connection.received) {
      if (packet.cmd !== 'unsubscribe' || answered.has(packet.messageId)) continue
      answered.add(packet.messageId)
      connection.send({
        cmd: 'unsuback',
        messageId: packet.messageId ?? 0,
        granted: packet.unsubscriptions.map(() => 0),
      })
    }
    await nextTurn()
  }
  await closed
}

function portOf(server: Server): number {
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('the server has no port')
  return address.port
}

async function stopServer(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  await closed
}

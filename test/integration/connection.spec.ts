import { describe, expect, it, vi } from 'vitest'
import { isMqttError } from '../../src/core/errors.js'
import { eventually } from '../support/eventually.js'
import { holdClock } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { closeWith, message, sessionOnPeer } from '../support/session-on-peer.js'

holdClock()

const NO_JITTER = { delayMs: { min: 1_000, max: 8_000, jitter: 'none' } } as const

describe('the first connection', () => {
  it('fail-fast rejects with the cause and closes', async () => {
    const { peer, session, log } = sessionOnPeer()
    peer.refuse(1)
    const failure = await session.start().then(
      () => undefined,
      (error: unknown) => error,
    )
    expect(isMqttError(failure, 'CONNECT_FAILED')).toBe(true)
    expect(failure).toMatchObject({ message: expect.stringContaining('ECONNREFUSED') })
    expect(session.connection.state).toMatchObject({ status: 'closed' })
    expect(failure).toMatchObject({
      message: expect.stringContaining("Set connect: 'background' to start without"),
    })
    expect(log.visible).toEqual([])
  })

  it.each([
    [0x86, 'Bad User Name or Password'],
    [0x87, 'Not authorized'],
  ])(
    'fail-fast rejects with the Reason Code %i of a refused CONNECT and says what to check',
    async (reasonCode, name) => {
      const { peer, session } = sessionOnPeer()
      const started = session.start()
      void peer.accept({ reasonCode })
      await expect(started).rejects.toMatchObject({ code: 'CONNECT_REFUSED', reasonCode })
      await expect(started).rejects.toThrow(
        new RegExp(`${name}; check the user name, the password and the access rules of the broker$`),
      )
    },
  )

  it('fail-fast says how to wait for a broker that is busy', async () => {
    const { peer, session } = sessionOnPeer()
    const started = session.start()
    void peer.accept({ reasonCode: 0x89 })
    await expect(started).rejects.toThrow(/Server busy\. Set connect: 'background'/)
  })

  it('says that a port which responds with HTTP does not speak MQTT', async () => {
    const { peer, session } = sessionOnPeer()
    const started = session.start()
    const connection = await peer.connection()
    await connection.expect('connect')
    connection.sendBytes(Buffer.from(`HTTP/1.0 403 Forbidden\r\n\r\n${'<p>No'.repeat(20)}`))
    await expect(started).rejects.toThrow(/not valid MQTT \(.*\); check the port and the scheme of "url"/)
  })

  it('background resolves at once and retries with the configured delays until the broker is available', async () => {
    const { peer, session } = sessionOnPeer({ connect: 'background', reconnect: NO_JITTER })
    peer.refuse(6)
    await session.start()
    const delays: number[] = []
    session.connection.attach({
      stateChanged: state => {
        if (state.status !== 'waiting') return
        delays.push(state.delayMs)
        queueMicrotask(() => vi.advanceTimersByTime(state.delayMs))
      },
    })
    await peer.accept()
    await session.connection.whenConnected()
    expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 8_000, 8_000])
    await session.close()
  })

  it('ends an attempt without CONNACK after connectTimeoutMs', async () => {
    const { peer, session } = sessionOnPeer({ connectTimeoutMs: 3_000 })
    const started = session.start()
    const connection = await peer.connection()
    await connection.expect('connect')
    vi.advanceTimersByTime(3_000)
    await expect(started).rejects.toMatchObject({ code: 'CONNECT_FAILED' })
    await connection.closed()
  })

  it('a createStream that throws is a failed attempt', async () => {
    const { session } = sessionOnPeer({
      createStream: () => {
        throw new Error('no tunnel')
      },
    })
    await expect(session.start()).rejects.toThrow('no tunnel')
  })
})

describe('the MQTT version', () => {
  it('auto falls back to 3.1.1 within the same attempt when the broker refuses 5', async () => {
    const { peer, session } = sessionOnPeer({ protocolVersion: 'auto' })
    const started = session.start()
    const first = await peer.connection()
    expect(await first.expect('connect')).toMatchObject({ protocolVersion: 5 })
    first.sendBytes(Buffer.from([0x20, 0x02, 0x00, 0x01]))
    const second = await peer.connection()
    expect(await second.expect('connect')).toMatchObject({ protocolVersion: 4 })
    second.send({ cmd: 'connack', returnCode: 0, sessionPresent: false })
    await started
    expect(session.connection.state).toMatchObject({ session: { protocolVersion: 4 }, attempt: 1 })
    await session.close()
  })

  it('auto falls back if the broker closes the connection after an MQTT 5 CONNECT', async () => {
    const { peer, session } = sessionOnPeer({ protocolVersion: 'auto' })
    const started = session.start()
    const first = await peer.connection()
    await first.expect('connect')
    first.cut()
    const second = await peer.connection()
    expect(await second.expect('connect')).toMatchObject({ protocolVersion: 4 })
    second.send({ cmd: 'connack', returnCode: 0, sessionPresent: false })
    await started
    await session.close()
  })

  it('keeps the version that worked if a later connection is cut', async () => {
    const { peer, session } = sessionOnPeer({
      protocolVersion: 'auto',
      connect: 'background',
      reconnect: NO_JITTER,
    })
    await session.start()
    const first = await peer.accept()
    await session.connection.whenConnected()
    first.cut()
    await first.closed()
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(1_000)
    const second = await peer.connection()
    expect(await second.expect('connect')).toMatchObject({ protocolVersion: 5 })
    await session.close()
  })
})

describe('after a lost connection', () => {
  it('every subscription is restored, and a refused one does not affect the others', async () => {
    const { peer, session, route, log } = sessionOnPeer({ connect: 'background', reconnect: NO_JITTER })
    for (const filter of ['a/+', 'b/#', 'c']) route(filter, async () => {})
    await session.listen()
    const first = await peer.accept()
    for (const code of [1, 0x87, 1]) await first.grant(code)
    await eventually(() => session.stats.subscriptions.pending === 0)
    expect(session.stats.subscriptions).toEqual({
      granted: 2,
      refused: 1,
      pending: 0,
      unsubscribesRefused: 0,
    })
    expect(log.lines.filter(line => line.level === 'error')).toEqual([
      { level: 'error', text: expect.stringMatching(/"b\/#".*0x87 Not authorized/) },
    ])
    first.cut()
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(1_000)
    const second = await peer.accept()
    const filters: string[] = []
    for (let count = 0; count < 3; count += 1) {
      filters.push(...(await second.grant()).subscriptions.map(subscription => subscription.topic))
    }
    expect(filters.sort()).toEqual(['a/+', 'b/#', 'c'])
    await eventually(() => session.stats.subscriptions.granted === 3)
    await closeWith(session, second)
  })

  it('the subscriptions of a resumed session are not sent again', async () => {
    const { peer, session, route } = sessionOnPeer({
      connect: 'background',
      reconnect: NO_JITTER,
      clean: false,
      clientId: 'kept',
    })
    route('a', async () => {})
    await session.listen()
    const first = await peer.accept()
    await first.grant()
    await eventually(() => session.stats.subscriptions.granted === 1)
    first.cut()
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(1_000)
    const second = await peer.accept({ sessionPresent: true })
    await session.connection.whenConnected()
    // The response to a QoS 1 publish arrives after any SUBSCRIBE that was sent before it.
    const published = session.publish({ topic: 'x', payload: Buffer.from('1'), qos: 1, retain: false })
    const packet = await second.expect('publish')
    second.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 })
    expect(await published).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await session.close()
  })

  // mosquitto 2.0 keeps a persistent session over a restart, but not its Shared Subscriptions.
  it('the Shared Subscriptions of a resumed session are sent again, since brokers may have lost them', async () => {
    const { peer, session, route } = sessionOnPeer({
      connect: 'background',
      reconnect: NO_JITTER,
      clean: false,
      clientId: 'kept',
    })
    for (const filter of ['a', '$share/group/b']) route(filter, async () => {})
    await session.listen()
    const first = await peer.accept()
    await first.grant()
    await first.grant()
    await eventually(() => session.stats.subscriptions.granted === 2)
    first.cut()
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(1_000)
    const second = await peer.accept({ sessionPresent: true })
    const { subscriptions } = await second.grant()
    expect(subscriptions.map(({ topic }) => topic)).toEqual(['$share/group/b'])
    await eventually(() => session.stats.subscriptions.granted === 2)
    await session.close()
  })

  it('sends a SUBSCRIBE again if its SUBACK did not arrive', async () => {
    const { peer, session, route } = sessionOnPeer({ connect: 'background', reconnect: NO_JITTER })
    route('a', async () => {})
    await session.listen()
    const first = await peer.accept()
    await first.expect('subscribe')
    first.cut()
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(1_000)
    const second = await peer.accept()
    await second.grant()
    await eventually(() => session.stats.subscriptions.granted === 1)
    await closeWith(session, second)
  })

  it('fail-fast rejects if the broker closes the connection after a SUBSCRIBE at the start', async () => {
    const { peer, session, route } = sessionOnPeer({ reconnect: NO_JITTER })
    route('a', async () => {})
    const listening = session.listen()
    const connection = await peer.accept()
    await connection.expect('subscribe')
    connection.cut()
    await expect(listening).rejects.toMatchObject({ code: 'CONNECTION_LOST' })
    expect(session.connection.state).toMatchObject({ status: 'closed' })
    expect(peer.dials).toBe(1)
  })

  it('the client closes the connection if the broker sends DISCONNECT and leaves it open', async () => {
    const { peer, session, log } = sessionOnPeer({ reconnect: NO_JITTER })
    const started = session.start()
    const connection = await peer.accept()
    await started
    connection.send({ cmd: 'disconnect', reasonCode: 0x8b, properties: { reasonString: 'upgrade' } })
    await connection.closed()
    await nextState(session, 'waiting')
    expect(log.visible.at(-1)).toBe(
      'connection lost: the broker sent DISCONNECT: 0x8B Server shutting down, "upgrade"; next attempt in 1000 ms',
    )
    await session.close()
  })

  it('a malformed packet ends the connection, and the next connection works', async () => {
    const { peer, session } = sessionOnPeer({ reconnect: NO_JITTER })
    const started = session.start()
    const first = await peer.accept()
    await started
    first.sendBytes(Buffer.from([0x00, 0x00, 0xff]))
    await first.closed()
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(1_000)
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
  })
})

describe('whenConnected', () => {
  it('rejects with TIMEOUT, with ABORTED or at the close, and leaves no listener or timer', async () => {
    const { session, peer } = sessionOnPeer({ connect: 'background' })
    peer.refuse(100)
    await session.start()
    const timeout = session.connection.whenConnected({ timeoutMs: 20 }).catch((error: unknown) => error)
    vi.advanceTimersByTime(20)
    expect(isMqttError(await timeout, 'TIMEOUT')).toBe(true)
    const aborting = new AbortController()
    const aborted = session.connection.whenConnected({ signal: aborting.signal })
    aborting.abort()
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' })
    await expect(session.connection.whenConnected({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ABORTED',
    })
    const closed = session.connection.whenConnected()
    await Promise.all([session.close(), expect(closed).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })])
  })
})

describe('closing', () => {
  it.each(['before anything', 'while dialling', 'without CONNACK', 'while waiting'])(
    '%s ends at once',
    async when => {
      const { peer, session } = sessionOnPeer({ connect: 'background', reconnect: NO_JITTER })
      if (when !== 'before anything') await session.start()
      if (when === 'without CONNACK') await (await peer.connection()).expect('connect')
      if (when === 'while waiting') {
        ;(await peer.connection()).cut()
        await nextState(session, 'waiting')
      }
      await session.close()
      expect(session.connection.state).toEqual({ status: 'closed' })
    },
  )

  it('sends DISCONNECT after everything else', async () => {
    const { peer, session } = sessionOnPeer()
    const started = session.start()
    const connection = await peer.accept()
    await started
    session.publish({ topic: 'last', payload: Buffer.from('words'), qos: 0, retain: false })
    await session.close()
    const commands = connection.received.map(packet => packet.cmd).filter(cmd => cmd !== 'pingreq')
    expect(commands).toEqual(['connect', 'publish', 'disconnect'])
  })

  it('ends within drainTimeoutMs if the peer does not respond', async () => {
    const { peer, session, log } = sessionOnPeer({ drainTimeoutMs: 2_000, connect: 'background' })
    await session.start()
    const connection = await peer.accept()
    await session.connection.whenConnected()
    connection.stall()
    const outcomes = [1, 2].map(() =>
      session.publish({ topic: 'x', payload: Buffer.alloc(10), qos: 1, retain: false }),
    )
    const closed = session.close()
    await vi.advanceTimersByTimeAsync(1_600)
    await vi.advanceTimersByTimeAsync(400)
    await closed
    expect(await Promise.all(outcomes)).toMatchObject([{ status: 'lost' }, { status: 'lost' }])
    expect(log.visible).toContainEqual(expect.stringContaining('2 publishes without an acknowledgement'))
  })
})

describe('the log of an outage', () => {
  it('has one line per change of state, with cause and delay, and no secret', async () => {
    const { peer, session, log } = sessionOnPeer({
      connect: 'background',
      reconnect: NO_JITTER,
      username: 'user',
      password: 'hunter2',
    })
    await session.start()
    const first = await peer.accept()
    await session.connection.whenConnected()
    peer.refuse(2)
    first.cut()
    for (const delayMs of [1_000, 2_000, 4_000]) {
      await nextState(session, 'waiting')
      vi.advanceTimersByTime(delayMs)
    }
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
    expect(log.visible).toEqual([
      'connected to the stream from createStream() with MQTT 5, new session',
      'connection lost: the broker or the network closed the connection; next attempt in 1000 ms',
      'attempt 1 failed: could not connect to the stream from createStream(): connect ECONNREFUSED (scripted); next attempt in 2000 ms',
      'attempt 2 failed: could not connect to the stream from createStream(): connect ECONNREFUSED (scripted); next attempt in 4000 ms',
      'connected to the stream from createStream() with MQTT 5 at attempt 3, new session',
      'connection to the stream from createStream() closed',
    ])
    expect(JSON.stringify(log.lines)).not.toContain('hunter2')
  })
})

it('an error in the receiver of a message does not stop the parser permanently', async () => {
  const { peer, session } = sessionOnPeer({ reconnect: NO_JITTER })
  session.connection.attach({
    connected: link =>
      link.deliverTo({
        message: () => {
          throw new Error('a bug')
        },
        mayStore: () => true,
      }),
  })
  const started = session.start()
  const connection = await peer.accept()
  await started
  connection.send(message('a'))
  await connection.closed()
  await nextState(session, 'waiting')
  expect(session.connection.state).toMatchObject({ cause: { message: 'internal error: a bug' } })
  await session.close()
})

import { Duplex } from 'node:stream'
import { describe, expect, it, vi } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { listenersOf } from '../support/listeners-of.js'
import { nextState } from '../support/next-state.js'
import { closeWith, message, sessionOnPeer } from '../support/session-on-peer.js'

const DRAIN_MS = 5_000
/** The clock moves by this, and the event loop runs dry in between. */
const STEP_MS = 50
const MEGABYTE = 1_048_576

holdClock()

const never = () => new Promise<never>(() => {})
const publish = (qos: 0 | 1 | 2, bytes = 1) => ({
  topic: 'out',
  payload: Buffer.alloc(bytes),
  qos,
  retain: false,
})

/** A session whose streams are kept, to see what is left of them. */
function watched(options: MqttModuleOptions = {}) {
  const streams: Duplex[] = []
  const peer = new ScriptedPeer()
  const createStream = (): Duplex => {
    const stream = (options.createStream ?? peer.createStream)()
    streams.push(stream)
    return stream
  }
  const parts = sessionOnPeer({
    connect: 'background',
    reconnect: { delayMs: [60_000] },
    drainTimeoutMs: DRAIN_MS,
    ...options,
    createStream,
  })
  const listeners = listenersOf(parts.session)
  return { ...parts, peer, streams, listeners }
}

type Watched = ReturnType<typeof watched>

async function connected(options: MqttModuleOptions = {}) {
  const parts = watched(options)
  await parts.session.start()
  const connection = await parts.peer.accept()
  await parts.session.connection.whenConnected()
  return { ...parts, connection }
}

/** One route whose handler never ends, subscribed and granted. */
async function listening(options: MqttModuleOptions = {}) {
  const parts = watched(options)
  const handled: string[] = []
  parts.route('in', packet => {
    handled.push(packet.topic)
    return never()
  })
  await parts.session.listen()
  const connection = await parts.peer.accept()
  await connection.grant()
  await eventually(() => parts.session.stats.subscriptions.granted === 1)
  return { ...parts, connection, handled }
}

/** Closes, and returns how much time went by until it had. Fails where that is more than the deadline. */
async function timeToClose({ session }: Pick<Watched, 'session'>, deadlineMs = DRAIN_MS): Promise<number> {
  const start = performance.now()
  let took: number | undefined
  const closed = session.close().then(() => {
    took = performance.now() - start
  })
  await settle()
  while (took === undefined && performance.now() - start < deadlineMs) {
    vi.advanceTimersByTime(STEP_MS)
    await settle()
  }
  expect(took, 'close() did not resolve within its deadline').toBeDefined()
  await closed
  return took ?? Number.NaN
}

/** Nothing is left of a closed session: no timer, no open stream, no listener, and nothing comes later. */
async function expectNothingLeft({ session, streams, listeners }: Watched): Promise<void> {
  expect(session.connection.state).toEqual({ status: 'closed' })
  vi.advanceTimersByTime(200)
  await quiet()
  expect(vi.getTimerCount()).toBe(0)
  expect(streams.filter(stream => !stream.destroyed)).toEqual([])
  // What hears of bytes is what could still act on them.
  expect(streams.map(stream => stream.listenerCount('readable'))).toEqual(streams.map(() => 0))
  expect(listenersOf(session)).toBe(listeners)
  const dials = streams.length
  vi.advanceTimersByTime(86_400_000)
  await quiet()
  expect(streams).toHaveLength(dials)
  expect(session.stats.outbound.inFlight).toBe(0)
  expect(await session.publish(publish(1))).toEqual({ status: 'dropped', reason: 'closed' })
  await expect(session.connection.whenConnected()).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
}

describe('close() at once', () => {
  it('before the start', async () => {
    const parts = watched()
    expect(await timeToClose(parts)).toBe(0)
    await expectNothingLeft(parts)
  })

  it('while a stream never connects', async () => {
    const parts = watched({ createStream: () => new Duplex({ read() {}, write() {} }) })
    await parts.session.start()
    await eventually(() => parts.streams.length === 1)
    const waiting = expect(parts.session.connection.whenConnected()).rejects.toMatchObject({
      code: 'CONNECTION_CLOSED',
    })
    expect(await timeToClose(parts)).toBe(0)
    await waiting
    await expectNothingLeft(parts)
  })

  it('without CONNACK', async () => {
    const parts = watched()
    await parts.session.start()
    const connection = await parts.peer.connection()
    await connection.expect('connect')
    expect(await timeToClose(parts)).toBe(0)
    await connection.closed()
    // Before CONNACK there is no session to end [MQTT-3.14].
    expect(connection.received.map(packet => packet.cmd)).toEqual(['connect'])
    await expectNothingLeft(parts)
  })

  it('while waiting for the next attempt', async () => {
    const parts = watched()
    parts.peer.refuse(1)
    await parts.session.start()
    await nextState(parts.session, 'waiting')
    expect(await timeToClose(parts)).toBe(0)
    await expectNothingLeft(parts)
  })

  it.each(['the first attempt', 'a later attempt'])(
    'while credentials() never settles at %s',
    async attempt => {
      let calls = 0
      const parts = watched({
        credentials: () => {
          calls += 1
          if (attempt === 'the first attempt' || calls > 1) return never()
          return Promise.resolve({})
        },
      })
      await parts.session.start()
      if (attempt === 'a later attempt') {
        ;(await parts.peer.connection()).cut()
        await nextState(parts.session, 'waiting')
        vi.advanceTimersByTime(60_000)
      }
      expect(parts.session.connection.state.status).toBe('connecting')
      expect(await timeToClose(parts)).toBe(0)
      await expectNothingLeft(parts)
    },
  )

  it('and ignores credentials that arrive afterwards', async () => {
    let give = (_credentials: { username: string }): void => {}
    const parts = watched({
      credentials: () =>
        new Promise(resolve => {
          give = resolve
        }),
    })
    await parts.session.start()
    expect(await timeToClose(parts)).toBe(0)
    give({ username: 'late' })
    await expectNothingLeft(parts)
    expect(parts.streams).toEqual([])
  })

  it('of an idle connection, with DISCONNECT', async () => {
    const parts = await connected()
    expect(await timeToClose(parts)).toBe(0)
    expect(parts.connection.received.at(-1)).toMatchObject({ cmd: 'disconnect', reasonCode: 0 })
    await expectNothingLeft(parts)
  })

  it.each([
    ['a start', 'CONNECTION_CLOSED'],
    ['a listen', 'CONNECTION_CLOSED'],
  ])('ends %s that has no CONNACK yet, with %s', async (what, code) => {
    const parts = watched({ connect: 'fail-fast' })
    parts.route('in', async () => {})
    const starting = what === 'a start' ? parts.session.start() : parts.session.listen()
    const rejected = expect(starting).rejects.toMatchObject({ code })
    await (await parts.peer.connection()).expect('connect')
    expect(await timeToClose(parts)).toBe(0)
    await rejected
    await expectNothingLeft(parts)
  })

  it('of an abandoned start that connects; the start never settles, nor does another one', async () => {
    const parts = watched({ connect: 'fail-fast' })
    const settled: string[] = []
    const note = (what: string) => () => settled.push(what)
    parts.session.start().then(note('resolved'), note('rejected'))
    await (await parts.peer.connection()).expect('connect')
    parts.session.shutdown.abandonStart()
    await eventually(() => parts.session.connection.state.status === 'closed')
    parts.session.listen().then(note('resolved'), note('rejected'))
    expect(await timeToClose(parts)).toBe(0)
    await expectNothingLeft(parts)
    expect(settled).toEqual([])
  })

  it('ends a listen() without a SUBACK', async () => {
    const parts = watched({ connect: 'fail-fast' })
    parts.route('in', async () => {})
    const rejected = expect(parts.session.listen()).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
    const connection = await parts.peer.accept()
    await connection.expect('subscribe')
    expect(await timeToClose(parts)).toBe(0)
    await rejected
    await expectNothingLeft(parts)
  })

  it('ends the retries of a refused subscription', async () => {
    const parts = watched()
    parts.route('in', async () => {})
    await parts.session.listen()
    await (await parts.peer.accept()).grant(0x87)
    await eventually(() => parts.session.stats.subscriptions.refused === 1)
    expect(await timeToClose(parts)).toBe(0)
    await expectNothingLeft(parts)
  })
})

describe('close() within its deadline', () => {
  it('of a peer that stalls with 1 MB unsent', async () => {
    const parts = await connected()
    parts.connection.stall()
    for (let count = 0; count < 16; count += 1) parts.session.publish(publish(0, MEGABYTE / 16))
    const pending = parts.session.publish(publish(1, MEGABYTE))
    const took = await timeToClose(parts)
    expect(took).toBeLessThanOrEqual(DRAIN_MS)
    const outcome = await pending
    expect(['dropped', 'lost']).toContain(outcome.status)
    const { attempted, sent, lost, dropped } = parts.session.stats.outbound
    expect(sent + lost + dropped.backlog).toBe(attempted)
    await expectNothingLeft(parts)
  })

  it('of a peer that stalls after one message of 1 MB: after exactly the time for DISCONNECT', async () => {
    const parts = await connected()
    parts.connection.stall()
    expect(await parts.session.publish(publish(0, MEGABYTE))).toEqual({ status: 'sent' })
    expect(await timeToClose(parts)).toBe(DRAIN_MS * 0.2)
    await expectNothingLeft(parts)
  })

  it('of a peer that stalls with an unacknowledged publish of 1 MB: exactly at the deadline', async () => {
    const parts = await connected()
    parts.connection.stall()
    const pending = parts.session.publish(publish(1, MEGABYTE))
    expect(await timeToClose(parts)).toBe(DRAIN_MS)
    expect(await pending).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_CLOSED' } })
    await expectNothingLeft(parts)
  })

  it.each([false, true])(
    'of 5 publishes that are never acknowledged (persistent session: %s)',
    async keepsSession => {
      const parts = await connected(keepsSession ? { clean: false, clientId: 'kept' } : {})
      const outcomes = Array.from({ length: 5 }, () => parts.session.publish(publish(1)))
      expect(await timeToClose(parts)).toBe(DRAIN_MS * 0.8)
      expect(await Promise.all(outcomes)).toEqual(
        Array.from({ length: 5 }, () =>
          expect.objectContaining({
            status: 'lost',
            cause: expect.objectContaining({ code: 'CONNECTION_CLOSED' }),
          }),
        ),
      )
      expect(parts.connection.received.at(-1)).toMatchObject({ cmd: 'disconnect' })
      expect(parts.session.stats.outbound).toMatchObject({ attempted: 5, lost: 5, inFlight: 0 })
      expect(parts.log.visible).toContainEqual(
        expect.stringContaining('5 publishes without an acknowledgement'),
      )
      await expectNothingLeft(parts)
    },
  )

  it('of a handler that never ends', async () => {
    const parts = await listening()
    parts.connection.send(message('in', { qos: 1, messageId: 9 }))
    await eventually(() => parts.handled.length === 1)
    void answerUnsubscribe(parts.connection)
    expect(await timeToClose(parts)).toBe(DRAIN_MS * 0.8)
    // It did not end, so it is not acknowledged.
    expect(parts.connection.received.map(packet => packet.cmd)).not.toContain('puback')
    expect(parts.log.visible).toContainEqual(expect.stringContaining('1 message in handlers'))
    await expectNothingLeft(parts)
  })

  it('of an UNSUBACK that never arrives', async () => {
    const parts = await listening()
    expect(await timeToClose(parts)).toBe(DRAIN_MS * 0.4)
    expect(parts.connection.received.slice(-2).map(packet => packet.cmd)).toEqual([
      'unsubscribe',
      'disconnect',
    ])
    await expectNothingLeft(parts)
  })

  it('of all of these at once: exactly at the deadline', async () => {
    const parts = await listening()
    parts.connection.send(message('in'))
    await eventually(() => parts.handled.length === 1)
    parts.connection.stall()
    const outcomes = Array.from({ length: 5 }, () => parts.session.publish(publish(1, MEGABYTE)))
    expect(await timeToClose(parts)).toBe(DRAIN_MS)
    for (const outcome of await Promise.all(outcomes)) expect(['lost', 'dropped']).toContain(outcome.status)
    await expectNothingLeft(parts)
  })

  it('of a stream whose end() and destroy() never complete', async () => {
    const parts = watched({
      createStream: () => new Duplex({ read() {}, write() {}, final() {}, destroy() {} }),
    })
    await parts.session.start()
    await eventually(() => parts.streams.length === 1)
    expect(await timeToClose(parts)).toBe(0)
    await expectNothingLeft(parts)
  })

  it('of a client with drainTimeoutMs 0', async () => {
    const parts = await connected({ drainTimeoutMs: 0 })
    const outcome = parts.session.publish(publish(1))
    parts.connection.stall()
    expect(await timeToClose(parts, 0)).toBe(0)
    expect(await outcome).toMatchObject({ status: 'lost' })
    await expectNothingLeft(parts)
  })

  it('of a connection that is lost during the close, without a reconnect', async () => {
    const parts = await listening()
    const pending = parts.session.publish(publish(1))
    const closed = timeToClose(parts)
    await parts.connection.find('unsubscribe')
    parts.connection.cut()
    expect(await closed).toBeLessThanOrEqual(DRAIN_MS)
    expect(await pending).toMatchObject({ status: 'lost' })
    await expectNothingLeft(parts)
  })

  it('of a connection that is lost while a handler runs in a shutdown', async () => {
    const parts = await listening()
    parts.connection.send(message('in'))
    await eventually(() => parts.handled.length === 1)
    const answered = answerUnsubscribe(parts.connection)
    const closed = timeToClose(parts)
    await answered
    parts.connection.cut()
    await nextState(parts.session, 'waiting')
    expect(await closed).toBe(DRAIN_MS * 0.8)
    await expectNothingLeft(parts)
  })
})

describe('a publish after a drain', () => {
  it('is acknowledged before DISCONNECT', async () => {
    const parts = await connected()
    await parts.session.drain()
    const pending = parts.session.publish(publish(1))
    const closed = parts.session.close()
    const { messageId = 0 } = await parts.connection.find('publish')
    expect(parts.session.connection.state.status).toBe('connected')
    parts.connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
    await closed
    expect(await pending).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await expectNothingLeft(parts)
  })

  it('is lost and logged if the broker does not acknowledge it within the time that the drain has left', async () => {
    const parts = await connected()
    await parts.session.drain()
    const pending = parts.session.publish(publish(1))
    expect(await timeToClose(parts)).toBe(DRAIN_MS * 0.8)
    expect(await pending).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_CLOSED' } })
    expect(parts.log.visible).toContainEqual(expect.stringContaining('1 publish without an acknowledgement'))
    await expectNothingLeft(parts)
  })
})

describe('a shutdown without a call of close()', () => {
  it('closes after the drain time, and does not wait for later publishes', async () => {
    const parts = await connected()
    await parts.session.shutdown.begin()
    const pending = parts.session.publish(publish(1))
    await parts.connection.find('publish')
    vi.advanceTimersByTime(DRAIN_MS * 0.8 - 1)
    await settle()
    expect(parts.session.connection.state.status).toBe('connected')
    vi.advanceTimersByTime(1)
    expect(await pending).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_CLOSED' } })
    expect(parts.log.visible).toContainEqual(expect.stringContaining('1 publish without an acknowledgement'))
    await nextState(parts.session, 'closed')
    await parts.session.close()
    await expectNothingLeft(parts)
  })

  it('leaves no timer if close() is called', async () => {
    const parts = await connected()
    await parts.session.shutdown.begin()
    await parts.session.close()
    await expectNothingLeft(parts)
  })
})

describe('close() more than once', () => {
  it('shares one promise while it closes, and after it', async () => {
    const parts = await connected()
    void parts.session.publish(publish(1))
    const first = parts.session.close()
    expect(parts.session.close()).toBe(first)
    expect(await timeToClose(parts)).toBe(DRAIN_MS * 0.8)
    expect(parts.session.close()).toBe(first)
    await expectNothingLeft(parts)
    expect(parts.connection.received.filter(packet => packet.cmd === 'disconnect').length).toBeLessThan(2)
  })

  it('sends one UNSUBSCRIBE and one DISCONNECT', async () => {
    const parts = await listening()
    void answerUnsubscribe(parts.connection)
    const drained = parts.session.drain()
    await Promise.all([parts.session.close(), parts.session.close(), drained, parts.session.drain()])
    expect(parts.connection.received.map(packet => packet.cmd)).toEqual([
      'connect',
      'subscribe',
      'unsubscribe',
      'disconnect',
    ])
    await expectNothingLeft(parts)
  })

  it('after a permanent stop ends at once, and keeps the cause', async () => {
    const parts = await connected()
    parts.connection.send({ cmd: 'disconnect', reasonCode: 0x8e })
    await nextState(parts.session, 'closed')
    expect(await timeToClose(parts)).toBe(0)
    expect(parts.session.connection.state).toMatchObject({ status: 'closed', cause: { reasonCode: 0x8e } })
  })
})

describe('start()', () => {
  it.each(['background', 'fail-fast'] as const)('calls share one connection (%s)', async connect => {
    const parts = watched({ connect })
    parts.route('in', async () => {})
    const starts = Promise.all([parts.session.start(), parts.session.start(), parts.session.listen()])
    const connection = await parts.peer.accept()
    await connection.grant()
    await starts
    await parts.session.start()
    await quiet()
    expect(parts.streams).toHaveLength(1)
    expect(connection.received.map(packet => packet.cmd)).toEqual(['connect', 'subscribe'])
    await eventually(() => parts.session.stats.subscriptions.granted === 1)
    await closeWith(parts.session, connection)
    await expectNothingLeft(parts)
  })

  it('does not end the delay before the next attempt', async () => {
    const parts = watched()
    parts.peer.refuse(1)
    await parts.session.start()
    await nextState(parts.session, 'waiting')
    await parts.session.start()
    await quiet()
    expect(parts.streams).toHaveLength(1)
    expect(await timeToClose(parts)).toBe(0)
    await expectNothingLeft(parts)
  })

  it.each(['background', 'fail-fast'] as const)(
    'rejects while it closes, and after it (%s)',
    async connect => {
      const parts = watched({ connect })
      const first = parts.session.start()
      await parts.peer.accept()
      await first
      await parts.session.connection.whenConnected()
      const closed = parts.session.close()
      const hasClosed = {
        code: 'CONNECTION_CLOSED',
        message: 'this client is closed and cannot be used again; create a new one to connect again',
      }
      await expect(parts.session.start()).rejects.toMatchObject(hasClosed)
      await closed
      await expect(parts.session.start()).rejects.toMatchObject(hasClosed)
      await expect(parts.session.listen()).rejects.toMatchObject(hasClosed)
      expect(parts.peer.dials).toBe(1)
      await expectNothingLeft(parts)
    },
  )

  it('failed calls share the failure', async () => {
    const parts = watched({ connect: 'fail-fast' })
    parts.peer.refuse(1)
    const starts = await Promise.allSettled([parts.session.start(), parts.session.start()])
    expect(starts).toEqual([
      { status: 'rejected', reason: expect.objectContaining({ code: 'CONNECT_FAILED' }) },
      { status: 'rejected', reason: expect.objectContaining({ code: 'CONNECT_FAILED' }) },
    ])
    expect(parts.streams).toHaveLength(1)
  })

  it.each(['idle', 'connecting', 'waiting'])('rejects after a close while %s', async when => {
    const parts = watched()
    if (when !== 'idle') await parts.session.start()
    if (when === 'waiting') {
      ;(await parts.peer.connection()).cut()
      await nextState(parts.session, 'waiting')
    }
    await parts.session.close()
    const { dials } = parts.peer
    await expect(parts.session.start()).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
    expect(parts.peer.dials).toBe(dials)
    await expectNothingLeft(parts)
  })
})

async function answerUnsubscribe(connection: PeerConnection): Promise<void> {
  const { messageId = 0 } = await connection.find('unsubscribe')
  connection.send({ cmd: 'unsuback', messageId, granted: [0] })
}

/** Lets everything happen that is due now, also what a timer of no length holds back. */
async function settle(): Promise<void> {
  for (let round = 0; round < 5; round += 1) {
    await quiet()
    vi.advanceTimersByTime(0)
  }
  await quiet()
}

import mqttPacket from 'mqtt-packet'
import { describe, expect, it, vi } from 'vitest'
import type { MqttSession } from '../../src/client/mqtt-session.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

const KEEPALIVE = 10
const KEEPALIVE_MS = KEEPALIVE * 1_000
const STEP_MS = 100

holdClock()

/** A session with one subscription; the broker sends nothing after the SUBACK. */
async function connected(
  options: MqttModuleOptions = {},
  properties: Readonly<Record<string, unknown>> = {},
) {
  const parts = sessionOnPeer({
    connect: 'background',
    keepalive: KEEPALIVE,
    reconnect: { delayMs: [1_000] },
    drainTimeoutMs: 100,
    ...options,
  })
  let handled = 0
  parts.route('in', async () => {
    handled += 1
  })
  await parts.session.listen()
  const connection = await parts.peer.accept({ properties })
  connection.respondsToPings = false
  await connection.grant()
  await eventually(() => parts.session.stats.subscriptions.granted === 1)
  return { ...parts, connection, handled: () => handled }
}

type Parts = Awaited<ReturnType<typeof connected>>

const publish = (qos: 0 | 1) => ({ topic: 'out', payload: Buffer.alloc(100), qos, retain: false })

/** Lets time pass, step by step, with work at each step. */
async function pass(timeMs: number, work: (elapsedMs: number) => void = () => {}): Promise<void> {
  for (let elapsed = STEP_MS; elapsed <= timeMs; elapsed += STEP_MS) {
    vi.advanceTimersByTime(STEP_MS)
    work(elapsed)
    await quiet()
  }
}

/** When the connection is given up, from now; undefined where it is not within the time. */
async function givenUpAfter(
  { session }: Pick<Parts, 'session'>,
  timeMs: number,
  work?: () => void,
): Promise<number | undefined> {
  const start = performance.now()
  let end: number | undefined
  session.connection.attach({
    stateChanged: state => {
      if (state.status === 'waiting') end ??= performance.now() - start
    },
  })
  await pass(timeMs, () => {
    if (end === undefined) work?.()
  })
  return end
}

const pings = (connection: PeerConnection): number =>
  connection.received.filter(packet => packet.cmd === 'pingreq').length

/** Sends a PINGRESP for each new PINGREQ. */
function pongFor(connection: PeerConnection): () => void {
  let sent = 0
  return () => {
    for (; sent < pings(connection); sent += 1) connection.send({ cmd: 'pingresp' })
  }
}

const LOADS: readonly (readonly [string, (parts: Parts) => () => void])[] = [
  ['idle', () => () => {}],
  [
    'under outbound QoS 0 load',
    ({ session }) =>
      () => {
        for (let count = 0; count < 10; count += 1) session.tryPublish({ ...publish(0), qos: 0 })
      },
  ],
  [
    'under outbound QoS 1 load',
    ({ session }) =>
      () =>
        void session.publish(publish(1)),
  ],
  [
    'under inbound QoS 0 load',
    ({ connection }) =>
      () => {
        for (let count = 0; count < 10; count += 1) connection.send(message('in'))
      },
  ],
  [
    'under inbound QoS 1 load, which is acknowledged into nowhere',
    ({ connection }) => {
      let messageId = 0
      return () => {
        messageId += 1
        connection.send(message('in', { qos: 1, messageId }))
      }
    },
  ],
  [
    'under inbound QoS 2 load without PUBREL',
    ({ connection }) => {
      let messageId = 0
      return () => {
        messageId += 1
        if (messageId <= 20) connection.send(message('in', { qos: 2, messageId }))
      }
    },
  ],
  [
    'under QoS 0 load both ways',
    ({ connection, session }) =>
      () => {
        connection.send(message('in'))
        session.tryPublish({ ...publish(0), qos: 0 })
      },
  ],
]

describe('a link that accepts bytes and returns nothing is closed within 1.5 x keepalive', () => {
  it.each(LOADS)('%s', async (_what, load) => {
    const parts = await connected()
    const { session, peer, connection, log } = parts
    const took = await givenUpAfter(parts, 2 * KEEPALIVE_MS, load(parts))
    expect(took).toBeDefined()
    expect(took).toBeLessThanOrEqual(1.5 * KEEPALIVE_MS)
    // It is asked first.
    expect(took).toBeGreaterThan(KEEPALIVE_MS)
    expect(pings(connection)).toBeGreaterThan(0)
    expect(log.visible).toContainEqual(expect.stringMatching(/connection lost: Keepalive timeout/i))
    // And it is back, and works.
    const again = await peer.accept()
    await again.grant()
    await eventually(() => session.stats.subscriptions.granted === 1)
    await ended(session)
  })

  it.each(LOADS)('if the peer does not read either: %s', async (_what, load) => {
    const parts = await connected()
    parts.connection.stall()
    const took = await givenUpAfter(parts, 2 * KEEPALIVE_MS, load(parts))
    expect(took).toBeLessThanOrEqual(1.5 * KEEPALIVE_MS)
    await parts.peer.accept()
    await parts.session.connection.whenConnected()
    await ended(parts.session)
  })

  it('also after hours of normal operation', async () => {
    const parts = await connected()
    const pong = pongFor(parts.connection)
    await pass(60 * KEEPALIVE_MS, pong)
    expect(parts.session.connection.state.status).toBe('connected')
    const took = await givenUpAfter(parts, 2 * KEEPALIVE_MS)
    expect(took).toBeLessThanOrEqual(1.5 * KEEPALIVE_MS)
    await ended(parts.session)
  })

  it('with pending publishes, which end as lost', async () => {
    const parts = await connected()
    const outcome = parts.session.publish(publish(1))
    expect(await givenUpAfter(parts, 1.5 * KEEPALIVE_MS)).toBeDefined()
    expect(await outcome).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_LOST' } })
    await ended(parts.session)
  })
})

describe('a link with responses stays connected', () => {
  it.each(LOADS.filter(([what]) => !what.includes('QoS 1') && !what.includes('QoS 2')))(
    '%s',
    async (_what, load) => {
      const parts = await connected()
      const work = load(parts)
      const pong = pongFor(parts.connection)
      await pass(20 * KEEPALIVE_MS, () => {
        work()
        pong()
      })
      expect(parts.session.connection.state.status).toBe('connected')
      expect(parts.session.stats.connection.losses).toBe(0)
      await ended(parts.session)
    },
  )

  it('if PINGRESP takes almost half of the keepalive', async () => {
    const parts = await connected()
    let sent = 0
    let sinceMs = 0
    await pass(20 * KEEPALIVE_MS, () => {
      if (pings(parts.connection) === sent) return
      sinceMs += STEP_MS
      if (sinceMs < 0.4 * KEEPALIVE_MS) return
      sinceMs = 0
      sent += 1
      parts.connection.send({ cmd: 'pingresp' })
    })
    expect(sent).toBeGreaterThan(10)
    expect(parts.session.stats.connection.losses).toBe(0)
    await ended(parts.session)
  })

  it('with keepalive 0 forever, without a PINGREQ', async () => {
    const parts = await connected({ keepalive: 0 })
    vi.advanceTimersByTime(86_400_000)
    await quiet()
    expect(parts.session.connection.state.status).toBe('connected')
    expect(pings(parts.connection)).toBe(0)
    await ended(parts.session)
  })
})

describe('a PINGRESP behind data that still arrives', () => {
  const packetOf = (bytes: number) =>
    mqttPacket.generate(message('in', { payload: Buffer.alloc(bytes) }), { protocolVersion: 5 })

  /** Sends a part of a packet in each step, as a slow link does. */
  function inParts(connection: PeerConnection, packet: Buffer, bytes: number): () => void {
    let at = 0
    return () => {
      connection.sendBytes(packet.subarray(at, at + bytes))
      at += bytes
    }
  }

  it.each([
    ['one large packet', 1_000_000, 500],
    ['a packet that arrives in small parts', 20_000, 10],
  ])('is not late: %s', async (_what, size, bytes) => {
    const parts = await connected()
    const part = inParts(parts.connection, packetOf(size), bytes)
    await pass(15 * KEEPALIVE_MS, part)
    expect(parts.session.stats.connection.losses).toBe(0)
    expect(pings(parts.connection)).toBeGreaterThan(15)
    await ended(parts.session)
  })

  it('is not late: many small packets', async () => {
    const parts = await connected()
    const packet = packetOf(400)
    await pass(10 * KEEPALIVE_MS, () => parts.connection.sendBytes(packet))
    expect(parts.session.stats.connection.losses).toBe(0)
    // What arrives before the next check shows that the link still delivers.
    const took = await givenUpAfter(parts, 3 * KEEPALIVE_MS)
    expect(took).toBeLessThanOrEqual(1.5 * KEEPALIVE_MS)
    await ended(parts.session)
  })

  it('is late once no more data arrives, even in the middle of a packet', async () => {
    const parts = await connected()
    const part = inParts(parts.connection, packetOf(1_000_000), 500)
    await pass(5 * KEEPALIVE_MS, part)
    expect(parts.session.stats.connection.losses).toBe(0)
    const took = await givenUpAfter(parts, 3 * KEEPALIVE_MS)
    expect(took).toBeLessThanOrEqual(1.5 * KEEPALIVE_MS)
    await ended(parts.session)
  })
})

describe('the client is never silent for longer than the keepalive allows [MQTT-3.1.2-20]', () => {
  /** The longest time in which the broker got nothing. */
  async function longestSilence(parts: Parts, timeMs: number, work: (elapsedMs: number) => void) {
    let longest = 0
    let last = 0
    let count = parts.connection.received.length
    await pass(timeMs, elapsed => {
      if (parts.connection.received.length > count) last = elapsed
      count = parts.connection.received.length
      longest = Math.max(longest, elapsed - last)
      work(elapsed)
    })
    return longest
  }

  it('on an idle connection', async () => {
    const parts = await connected()
    const pong = pongFor(parts.connection)
    expect(await longestSilence(parts, 10 * KEEPALIVE_MS, pong)).toBeLessThanOrEqual(
      KEEPALIVE_MS + 2 * STEP_MS,
    )
    await ended(parts.session)
  })

  it('if the broker acknowledges a publish late and nothing else is sent', async () => {
    const parts = await connected()
    const outcome = parts.session.publish(publish(1))
    const { messageId = 0 } = await parts.connection.expect('publish')
    const pong = pongFor(parts.connection)
    const longest = await longestSilence(parts, 3 * KEEPALIVE_MS, elapsed => {
      pong()
      if (elapsed === KEEPALIVE_MS - STEP_MS) parts.connection.send({ cmd: 'puback', messageId })
    })
    expect(await outcome).toMatchObject({ status: 'acknowledged' })
    await ended(parts.session)
    // A broker hangs up after 1.5 times the keepalive [MQTT-3.1.2-22].
    expect(longest).toBeLessThan(1.5 * KEEPALIVE_MS)
  })
})

describe('Server Keep Alive of CONNACK', () => {
  it.each([
    ['shorter', 60, 4],
    ['longer', 10, 20],
  ])(
    'that is %s than the client setting determines the interval of PINGREQs',
    async (_what, keepalive, serverKeepAlive) => {
      const parts = await connected({ keepalive }, { serverKeepAlive })
      const pong = pongFor(parts.connection)
      const at: number[] = []
      await pass(5 * serverKeepAlive * 1_000 + 10 * STEP_MS, elapsed => {
        if (pings(parts.connection) > at.length) at.push(elapsed)
        pong()
      })
      const gaps = at.map((time, index) => time - (at[index - 1] ?? 0))
      expect(gaps).toHaveLength(5)
      for (const gap of gaps) {
        expect(gap).toBeGreaterThanOrEqual(serverKeepAlive * 1_000 - STEP_MS)
        expect(gap).toBeLessThanOrEqual(serverKeepAlive * 1_000 + 2 * STEP_MS)
      }
      await ended(parts.session)
    },
  )

  it('determines the time after which a dead link is closed', async () => {
    const parts = await connected({ keepalive: 60 }, { serverKeepAlive: 4 })
    expect(await givenUpAfter(parts, 10_000)).toBeLessThanOrEqual(6_000)
    await ended(parts.session)
  })

  it('applies to one connection: the next one uses the client setting if its CONNACK has none', async () => {
    const parts = await connected({}, { serverKeepAlive: 4 })
    parts.connection.cut()
    await nextState(parts.session, 'waiting')
    vi.advanceTimersByTime(1_000)
    const again = await parts.peer.accept()
    again.respondsToPings = false
    expect(again.received[0]).toMatchObject({ keepalive: KEEPALIVE })
    await again.grant()
    await eventually(() => parts.session.stats.subscriptions.granted === 1)
    await pass(KEEPALIVE_MS - STEP_MS)
    expect(pings(again)).toBe(0)
    await pass(2 * STEP_MS)
    expect(pings(again)).toBe(1)
    await ended(parts.session)
  })

  it('also applies if the client setting is 0 [MQTT-3.2.2-21]', async () => {
    const parts = await connected({ keepalive: 0 }, { serverKeepAlive: 4 })
    await pass(4_000 + STEP_MS)
    const sent = pings(parts.connection)
    await ended(parts.session)
    expect(sent).toBe(1)
  })
})

/** Closes; the UNSUBSCRIBE gets no response. */
async function ended(session: MqttSession): Promise<void> {
  let isClosed = false
  const closed = session.close().then(() => {
    isClosed = true
  })
  while (!isClosed) {
    vi.advanceTimersByTime(10)
    await quiet()
  }
  await closed
}

import type { Duplex } from 'node:stream'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { MqttSession } from '../../src/client/mqtt-session.js'
import type { ConnectionState } from '../../src/core/connection/connection-state.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { holdClock } from '../support/held-clock.js'
import { listenersOf } from '../support/listeners-of.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

const HOUR_MS = 3_600_000
const GROWING = { delayMs: { min: 500, max: 30_000, jitter: 'none' } } as const
const FIRST_DELAYS = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

holdClock()

/** A session that counts its dials, and knows which of their streams are still in memory. */
function watched(options: MqttModuleOptions = {}) {
  const peer = new ScriptedPeer()
  const dials: WeakRef<Duplex>[] = []
  const createStream = (): Duplex => {
    const stream = peer.createStream()
    dials.push(new WeakRef(stream))
    return stream
  }
  const parts = sessionOnPeer({ connect: 'background', reconnect: GROWING, ...options, createStream })
  return { ...parts, peer, dials }
}

type Waiting = Extract<ConnectionState, { status: 'waiting' }>

/** The session waits for its next attempt. */
function nextWait(session: MqttSession): Promise<Waiting> {
  return new Promise(resolve => {
    const detach = session.connection.attach({
      stateChanged: state => {
        if (state.status !== 'waiting') return
        detach()
        resolve(state)
      },
    })
  })
}

/** How many delays of such a list, whose last value repeats, fit into a time. */
function delaysWithin(timeMs: number): number {
  let count = 0
  for (let elapsed = 0; elapsed <= timeMs; count += 1) {
    elapsed += FIRST_DELAYS[Math.min(count, FIRST_DELAYS.length - 1)] ?? 0
  }
  return count
}

describe('a broker that is unavailable for 24 hours', () => {
  it('is retried with the configured delays, without a growing resource, and connected again', {
    timeout: 60_000,
  }, async () => {
    const { session, peer, dials, log, route } = watched()
    const handled: string[] = []
    const filters = Array.from({ length: 50 }, (_, index) => `in/${index}`)
    for (const filter of filters)
      route(filter, async packet => {
        handled.push(packet.topic)
      })
    await session.listen()
    const first = await peer.accept()
    for (const _ of filters) await first.grant()
    await eventually(() => session.stats.subscriptions.granted === 50)
    const listeners = listenersOf(session)
    const start = performance.now()
    peer.refuse(Number.POSITIVE_INFINITY)
    log.lines.length = 0

    const delays: number[] = []
    const lines = { visible: 0, all: 0 }
    const heap: number[] = []
    let wait = nextWait(session)
    first.cut()
    for (;;) {
      const { delayMs } = await wait
      delays.push(delayMs)
      lines.visible += log.visible.length
      lines.all += log.lines.length
      log.lines.length = 0
      expect(await session.publish({ topic: 'x', payload: Buffer.from('x'), qos: 1, retain: false })).toEqual(
        {
          status: 'dropped',
          reason: 'offline',
        },
      )
      // What `mqtt` leaves of an attempt ends 200 ms after it; then there is the delay alone.
      vi.advanceTimersByTime(Math.min(200, delayMs - 1))
      expect(vi.getTimerCount()).toBe(1)
      expect(listenersOf(session)).toBe(listeners)
      // The attempts of an hour are 120 of 30 s.
      if (delays.length % 240 === 0) {
        await nextTurn()
        collectGarbage()
        heap.push(process.memoryUsage().heapUsed)
      }
      if (performance.now() - start + delayMs > 24 * HOUR_MS) break
      wait = nextWait(session)
      vi.advanceTimersByTime(delayMs - Math.min(200, delayMs - 1))
    }

    expect(delays.slice(0, FIRST_DELAYS.length)).toEqual(FIRST_DELAYS)
    expect(new Set(delays.slice(FIRST_DELAYS.length))).toEqual(new Set([30_000]))
    expect(delays).toHaveLength(delaysWithin(24 * HOUR_MS))
    // One dial before the outage, one for each delay that went by.
    expect(dials).toHaveLength(delays.length)
    // The lost connection, one line per failed attempt, and one for the publishes dropped in the meantime.
    expect(lines.visible).toBe(2_886)
    expect(lines.visible).toBe(delays.length + 1)
    expect(session.stats.connection).toEqual({ connects: 1, losses: 1, ackTimeouts: 0, sessionsLost: 0 })

    await nextTurn()
    collectGarbage()
    expect(dials.filter(stream => stream.deref() !== undefined).length).toBeLessThan(5)
    const [settled = 0] = heap
    expect((heap.at(-1) ?? 0) - settled).toBeLessThan(2_000_000)

    peer.refuse(0)
    vi.advanceTimersByTime(30_000)
    const again = await peer.accept()
    const granted: string[] = []
    for (const _ of filters)
      granted.push(...(await again.grant()).subscriptions.map(subscription => subscription.topic))
    expect(granted.sort()).toEqual([...filters].sort())
    await eventually(() => session.stats.subscriptions.granted === 50)
    again.send(message('in/7'))
    await eventually(() => handled.length === 1)
    expect(handled).toEqual(['in/7'])
    // What was dropped during the last minute of the outage is its only trace.
    expect(session.health).toMatchObject({
      state: 'degraded',
      reasons: [expect.stringMatching(/^publishes dropped in the last minute: \d+$/)],
    })
    await closeAnswered(session, again)
    // With debug, one more line for the beginning of each attempt: a cause is told once. And one for the drops.
    expect(lines.all).toBe(2 * delays.length)
  })

  it('is retried once per delay of a list, whose last value repeats', async () => {
    const { session, peer, dials } = watched({ reconnect: { delayMs: [0, 10, 3_000] } })
    peer.refuse(Number.POSITIVE_INFINITY)
    const delays: number[] = []
    let wait = nextWait(session)
    await session.start()
    for (let count = 0; count < 6; count += 1) {
      const { delayMs } = await wait
      delays.push(delayMs)
      wait = nextWait(session)
      vi.advanceTimersByTime(delayMs)
    }
    await wait
    expect(delays).toEqual([0, 10, 3_000, 3_000, 3_000, 3_000])
    expect(dials).toHaveLength(7)
    await session.close()
  })

  it('lets 1,000 waits for the connection end without a leak', async () => {
    const { session, peer } = watched()
    peer.refuse(Number.POSITIVE_INFINITY)
    const wait = nextWait(session)
    await session.start()
    await wait
    const listeners = listenersOf(session)
    const aborting = Array.from({ length: 1_000 }, () => new AbortController())
    const waits = aborting.map(({ signal }, index) =>
      session.connection
        .whenConnected(index % 2 === 0 ? { timeoutMs: 100 } : { signal })
        .catch((error: { code: string }) => error.code),
    )
    for (const controller of aborting) controller.abort()
    vi.advanceTimersByTime(100)
    expect(new Set(await Promise.all(waits))).toEqual(new Set(['ABORTED', 'TIMEOUT']))
    expect(listenersOf(session)).toBe(listeners)
    await session.close()
  })
})

/** Accepts a connection and drops it after a time. @returns the delay, which has elapsed, before the next attempt */
async function lossAfter({ session, peer }: ReturnType<typeof watched>, lastsMs: number): Promise<number> {
  const connection = await peer.accept()
  await session.connection.whenConnected()
  vi.advanceTimersByTime(lastsMs)
  const wait = nextWait(session)
  connection.cut()
  const { delayMs } = await wait
  vi.advanceTimersByTime(delayMs)
  return delayMs
}

describe('a broker that flaps', () => {
  /** Accepts and drops at once, or after a time; returns the delays of an hour. */
  async function flap(lastsMs: number): Promise<number[]> {
    const parts = watched()
    const { session, peer, dials } = parts
    const delays: number[] = []
    await session.start()
    while (performance.now() < end()) delays.push(await lossAfter(parts, lastsMs))
    // The delay that went by last has led to one more dial.
    await peer.connection()
    expect(dials).toHaveLength(delays.length + 1)
    expect(session.stats.connection.losses).toBe(delays.length)
    await session.close()
    return delays
  }
  let started = 0
  const end = (): number => started + HOUR_MS
  beforeEach(() => {
    started = performance.now()
  })

  it('is retried with growing delays, as if it had never accepted', async () => {
    const delays = await flap(0)
    expect(delays.slice(0, FIRST_DELAYS.length)).toEqual(FIRST_DELAYS)
    expect(new Set(delays.slice(FIRST_DELAYS.length))).toEqual(new Set([30_000]))
    expect(delays).toHaveLength(delaysWithin(HOUR_MS))
  })

  it('is also retried with growing delays if each connection lasts a little less than resetAfterMs', async () => {
    const delays = await flap(9_999)
    expect(delays.slice(0, FIRST_DELAYS.length)).toEqual(FIRST_DELAYS)
    expect(delays.at(-1)).toBe(30_000)
  })

  it('is retried with the first delay if each connection lasts resetAfterMs', async () => {
    expect(new Set(await flap(10_000))).toEqual(new Set([500]))
  })

  it('is retried with the first delay again after one good connection between failures', async () => {
    const parts = watched()
    const delays: number[] = []
    await parts.session.start()
    for (const lastsMs of [0, 0, 0, 10_000, 0, 0, 10_000]) delays.push(await lossAfter(parts, lastsMs))
    expect(delays).toEqual([500, 1_000, 2_000, 500, 1_000, 2_000, 500])
    await parts.session.close()
  })

  it('increases one common count by DISCONNECT, by silence and by refusal', async () => {
    const { session, peer } = watched({ connectTimeoutMs: 1_000 })
    const delays: number[] = []
    const wait = async (): Promise<void> => {
      const { delayMs } = await nextWait(session)
      delays.push(delayMs)
      vi.advanceTimersByTime(delayMs)
    }
    await session.start()
    const disconnected = await peer.accept()
    await session.connection.whenConnected()
    let waited = wait()
    disconnected.send({ cmd: 'disconnect', reasonCode: 0x8b })
    await waited

    const silent = await peer.connection()
    await silent.expect('connect')
    waited = wait()
    vi.advanceTimersByTime(1_000)
    await waited

    const refused = await peer.connection()
    await refused.expect('connect')
    waited = wait()
    refused.send({ cmd: 'connack', reasonCode: 0x88, sessionPresent: false })
    await waited

    const cut = await peer.accept()
    await session.connection.whenConnected()
    waited = wait()
    cut.cut()
    await waited
    expect(delays).toEqual([500, 1_000, 2_000, 4_000])
    await session.close()
  })
})

type Connection = Awaited<ReturnType<ScriptedPeer['accept']>>

/** Answers UNSUBSCRIBE of 50 filters, which go in one packet. */
async function closeAnswered(session: MqttSession, connection: Connection): Promise<void> {
  const closed = session.close()
  const { messageId = 0, unsubscriptions } = await connection.find('unsubscribe')
  connection.send({ cmd: 'unsuback', messageId, granted: unsubscriptions.map(() => 0) })
  await closed
}

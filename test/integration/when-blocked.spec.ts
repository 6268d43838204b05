import { describe, expect, it, vi } from 'vitest'
import type { PublishOptions } from '../../src/options/client-options.js'
import type { WhenBlocked } from '../../src/options/options.js'
import { holdClock, quiet } from '../support/held-clock.js'
import {
  arrived,
  comeBack,
  droppedAs,
  expectAddsUp,
  FIRST_WINDOW,
  finish,
  flow,
  goOffline,
  pass,
  publisherOnPeer,
  SlowLink,
  Watched,
} from '../support/publisher-on-peer.js'
import { SeededRandom } from '../support/seeded-random.js'

holdClock()

const SENT = { status: 'sent' }
const LONG_OUTAGE_MS = 50_000
const DAY_MS = 86_400_000
const PLACES = ['connection', 'publish'] as const

/** A session for which the mode is said in one place or the other, and how it publishes. */
async function blocked(mode: WhenBlocked, place: (typeof PLACES)[number]) {
  const other = mode === 'drop' ? 'queue' : 'drop'
  const whenBlocked = place === 'connection' ? mode : other
  const parts = await publisherOnPeer({ outbound: { whenBlocked } })
  const own: PublishOptions = place === 'connection' ? {} : { whenBlocked: mode }
  const publish = (topic: string, value: number, options: PublishOptions = {}) =>
    new Watched(parts.mqtt.publish(topic, value, { ...own, ...options }))
  return { ...parts, publish }
}

describe.each(PLACES)('without a connection, set for the %s', place => {
  it('drop drops at once', async () => {
    const parts = await blocked('drop', place)
    await goOffline(parts)
    for (const qos of [0, 1, 2] as const)
      expect(await parts.publish('t', 1, { qos }).promise).toEqual(droppedAs('offline'))
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 3, accepted: 0, queued: 0 })
    const connection = await comeBack(parts)
    await quiet()
    expect(arrived(connection)).toEqual([])
    await finish(parts)
  })

  it('latest keeps the newest message of each topic over a long outage, in the order of the topics', async () => {
    const parts = await blocked('latest', place)
    await goOffline(parts)
    parts.peer.refuse(1_000_000)
    const old = [parts.publish('a', 1), parts.publish('b', 2), parts.publish('a', 3)]
    await pass(DAY_MS, LONG_OUTAGE_MS * 100)
    const last = parts.publish('a', 4)
    await quiet()
    expect([...old, last].map(({ outcome }) => outcome)).toEqual([
      droppedAs('superseded'),
      undefined,
      droppedAs('superseded'),
      undefined,
    ])
    expect(parts.mqtt.stats().outbound.queued).toBe(2)
    expectAddsUp(parts.mqtt)
    const connection = await comeBack(parts)
    expect(await last.promise).toEqual(SENT)
    await quiet()
    expect(arrived(connection)).toEqual([4, 2])
    await finish(parts)
  })

  it('queue keeps all messages over an outage, in order', async () => {
    const parts = await blocked('queue', place)
    await goOffline(parts)
    parts.peer.refuse(1_000_000)
    const waiting = [1, 2, 3, 4, 5].map(value => parts.publish('t', value))
    await pass(LONG_OUTAGE_MS, 1_000)
    expect(waiting.map(({ outcome }) => outcome)).toEqual(Array(5).fill(undefined))
    expectAddsUp(parts.mqtt)
    const connection = await comeBack(parts)
    expect(await Promise.all(waiting.map(({ promise }) => promise))).toEqual(Array(5).fill(SENT))
    await quiet()
    expect(arrived(connection)).toEqual([1, 2, 3, 4, 5])
    await finish(parts)
  })

  it('wait waits without a limit', async () => {
    const parts = await blocked('wait', place)
    await goOffline(parts)
    parts.peer.refuse(1_000_000)
    const waiting = [1, 2].map(value => parts.publish('t', value))
    await pass(DAY_MS, LONG_OUTAGE_MS * 100)
    expect(waiting.map(({ outcome }) => outcome)).toEqual([undefined, undefined])
    const connection = await comeBack(parts)
    expect(await Promise.all(waiting.map(({ promise }) => promise))).toEqual([SENT, SENT])
    await quiet()
    expect(arrived(connection)).toEqual([1, 2])
    await finish(parts)
  })
})

describe.each(PLACES)('on a slow link, set for the %s', place => {
  it('drop waits for at most maxDelayMs', async () => {
    const parts = await blocked('drop', place)
    await SlowLink.of(parts)
    const first = parts.publish('t', 1)
    await pass(900)
    const second = parts.publish('t', 2, { qos: 1 })
    await pass(99)
    expect(first.outcome).toBeUndefined()
    await pass(1)
    expect(first.outcome).toEqual(droppedAs('backlog'))
    await pass(899)
    expect(second.outcome).toBeUndefined()
    await pass(1)
    expect(second.outcome).toEqual(droppedAs('backlog'))
    await finish(parts)
    expect(arrived(parts.connection)).toEqual([])
  })

  it('drop writes no late publish, even if the link is free before its deadline timer fires', async () => {
    const parts = await blocked('drop', place)
    const link = await SlowLink.of(parts)
    const first = parts.publish('t', 1)
    await pass(5)
    const second = parts.publish('t', 2)
    await pass(995)
    expect([first.outcome, second.outcome]).toEqual([droppedAs('backlog'), undefined])
    await pass(7)
    await link.free()
    expect(second.outcome).toEqual(droppedAs('backlog'))
    await finish(parts)
    expect(arrived(parts.connection)).toEqual([])
  })

  it('drop writes the publish if the link is free in time', async () => {
    const parts = await blocked('drop', place)
    const link = await SlowLink.of(parts)
    const waiting = parts.publish('t', 1)
    await pass(500)
    expect(waiting.outcome).toBeUndefined()
    await link.free()
    expect(waiting.outcome).toEqual(SENT)
    expect(arrived(parts.connection)).toEqual([1])
    await finish(parts)
  })

  it.each(['latest', 'queue', 'wait'] as const)(
    '%s waits longer, and writes the publish when the link is free',
    async mode => {
      const parts = await blocked(mode, place)
      const link = await SlowLink.of(parts)
      const waiting = [parts.publish('a', 1), parts.publish('b', 2), parts.publish('a', 3)]
      await pass(20_000, 1_000)
      const isReplaced = mode === 'latest'
      expect(waiting.map(({ outcome }) => outcome)).toEqual([
        isReplaced ? droppedAs('superseded') : undefined,
        undefined,
        undefined,
      ])
      expectAddsUp(parts.mqtt)
      await link.free()
      expect(waiting.slice(1).map(({ outcome }) => outcome)).toEqual([SENT, SENT])
      expect(arrived(parts.connection)).toEqual(isReplaced ? [3, 2] : [1, 2, 3])
      await finish(parts)
    },
  )

  it.each(['drop', 'latest', 'queue', 'wait'] as const)('%s after the loss of the connection', async mode => {
    const parts = await blocked(mode, place)
    await SlowLink.of(parts)
    const waiting = parts.publish('t', 1)
    await quiet()
    await goOffline(parts)
    await quiet()
    expect(waiting.outcome).toEqual(mode === 'drop' ? droppedAs('offline') : undefined)
    const connection = await comeBack(parts)
    await quiet()
    expect(waiting.outcome).toEqual(mode === 'drop' ? droppedAs('offline') : SENT)
    expect(arrived(connection)).toEqual(mode === 'drop' ? [] : [1])
    await finish(parts)
  })
})

describe('tryPublish', () => {
  it('accepts a publish that may wait, and otherwise returns the reason', async () => {
    const parts = await publisherOnPeer({ outbound: { maxQueued: 2 } })
    const { mqtt } = parts
    await goOffline(parts)
    expect(mqtt.tryPublish('t', 0)).toEqual(droppedAs('offline'))
    expect(mqtt.tryPublish('a', 1, { whenBlocked: 'latest' })).toEqual({ status: 'accepted' })
    expect(mqtt.tryPublish('a', 2, { whenBlocked: 'latest' })).toEqual({ status: 'accepted' })
    expect(mqtt.tryPublish('t', 3, { whenBlocked: 'queue' })).toEqual({ status: 'accepted' })
    expect(mqtt.tryPublish('b', 4, { whenBlocked: 'latest' })).toEqual(droppedAs('queue-full'))
    expectAddsUp(mqtt)
    const connection = await comeBack(parts)
    await quiet()
    expect(arrived(connection)).toEqual([2, 3])
    expect(mqtt.stats().outbound).toMatchObject({ attempted: 5, accepted: 3, sent: 2 })
    expect(mqtt.stats().outbound.dropped).toMatchObject({ offline: 1, superseded: 1, 'queue-full': 1 })
    await finish(parts)
  })

  it('does not wait if the option of the connection is wait', async () => {
    const parts = await publisherOnPeer({ outbound: { whenBlocked: 'wait' } })
    await goOffline(parts)
    expect(parts.mqtt.tryPublish('t', 0)).toEqual(droppedAs('offline'))
    await finish(parts)
  })

  it('counts a publish that is dropped while it waits', async () => {
    const parts = await publisherOnPeer()
    await SlowLink.of(parts)
    expect(parts.mqtt.tryPublish('t', 0)).toEqual({ status: 'accepted' })
    await pass(1_000)
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 2, accepted: 2, sent: 1, queued: 0 })
    expect(parts.mqtt.stats().outbound.dropped.backlog).toBe(1)
    await finish(parts)
  })
})

describe('the window', () => {
  it('accepts 2,048 bytes before the first PINGRESP', async () => {
    const parts = await publisherOnPeer()
    const link = await SlowLink.of(parts, FIRST_WINDOW - 200)
    const outcomes = [1, 2, 3].map(value => new Watched(parts.mqtt.publish('t', Buffer.alloc(250, value))))
    await quiet()
    expect(outcomes.map(({ outcome }) => outcome)).toEqual([SENT, undefined, undefined])
    await link.free()
    expect(outcomes.map(({ outcome }) => outcome)).toEqual([SENT, SENT, SENT])
    await finish(parts)
  })

  it('does not stay closed after one lost PINGRESP, or after ten', async () => {
    const parts = await publisherOnPeer()
    for (let lost = 1; lost <= 10; lost += 1) {
      parts.connection.respondsToPings = false
      await parts.mqtt.publish('filler', Buffer.alloc(FIRST_WINDOW / 2))
      await flow()
      parts.connection.respondsToPings = true
      for (let elapsed = 0; elapsed < 5_000; elapsed += 500) {
        parts.mqtt.tryPublish('t', Buffer.alloc(100))
        await pass(500, 50)
      }
      const outcome = new Watched(parts.mqtt.publish('t', Buffer.alloc(100)))
      await pass(500, 50)
      expect(outcome.outcome).toEqual(SENT)
    }
    expect(parts.mqtt.stats().outbound.dropped.backlog).toBe(0)
    await finish(parts)
  })
})

describe('under drop', () => {
  it.each([1, 2, 3])('nothing older than maxDelayMs is written, with seed %i', async seed => {
    const random = new SeededRandom(seed)
    const parts = await publisherOnPeer({ outbound: { maxDelayMs: 400 } })
    const { mqtt, connection } = parts
    const link = await SlowLink.of(parts, 0)
    let seen = 0
    let oldest = 0
    for (let turn = 0; turn < 400; turn += 1) {
      for (let count = random.below(4); count > 0; count -= 1)
        mqtt.tryPublish('t', Buffer.from(String(performance.now()).padEnd(500)))
      await pass(10 + random.below(40))
      if (random.chance(0.2)) await link.answer(1 + random.below(3))
      const ages = arrived(connection)
        .slice(seen)
        .map(atMs => performance.now() - atMs)
      seen += ages.length
      oldest = Math.max(oldest, ...ages)
      expectAddsUp(mqtt)
    }
    // A message may wait for its whole time limit, and is then dropped.
    expect(oldest).toBeLessThanOrEqual(400)
    expect(oldest).toBeGreaterThan(100)
    expect(seen).toBeGreaterThan(20)
    expect(mqtt.stats().outbound.dropped.backlog).toBeGreaterThan(100)
    await finish(parts)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('a burst that the operating system accepts a moment later is written, with flowControl "kernel"', async () => {
    const outbound = { flowControl: 'kernel', maxInFlight: 1_000 } as const
    const parts = await publisherOnPeer({ outbound })
    const { mqtt, connection } = parts
    const outcomes = Array.from({ length: 1_200 }, () => mqtt.publish('t', 'x'.repeat(1_000), { qos: 1 }))
    await pass(2_000, 50)
    // What is dropped has waited for acknowledgements, not for the link.
    expect(mqtt.stats().outbound).toMatchObject({
      inFlight: 1_000,
      dropped: { backlog: 0, 'in-flight-full': 200 },
    })
    await connection.cut()
    await finish(parts)
    expect(await Promise.all(outcomes)).toHaveLength(1_200)
  })
})

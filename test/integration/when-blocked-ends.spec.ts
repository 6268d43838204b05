import type { Duplex } from 'node:stream'
import { describe, expect, it, vi } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import type { OutboundOptions } from '../../src/options/options.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import {
  arrived,
  comeBack,
  droppedAs,
  expectAddsUp,
  finish,
  goOffline,
  type PublisherOnPeer,
  pass,
  publisherOnPeer,
  RECONNECT_MS,
  SlowLink,
  Watched,
} from '../support/publisher-on-peer.js'
import { sessionOnPeer } from '../support/session-on-peer.js'

holdClock()

const SENT = { status: 'sent' }
const ACKNOWLEDGED = { status: 'acknowledged', reasonCode: 0 }
const WAITING = undefined

/** Offline, with publishes under one mode. */
async function offline(outbound: OutboundOptions) {
  const parts = await publisherOnPeer({ outbound })
  await goOffline(parts)
  parts.peer.refuse(1_000_000)
  const publish = (value: number, topic = 't') => new Watched(parts.mqtt.publish(topic, value))
  return { ...parts, publish }
}

const outcomesOf = (all: readonly Watched[]) => all.map(({ outcome }) => outcome)

/** What arrived, with what a test looks at. */
const publishesOf = (connection: PeerConnection) =>
  connection.received.flatMap(packet =>
    packet.cmd === 'publish' && packet.topic !== 'filler'
      ? [{ value: Number(packet.payload.toString()), qos: packet.qos, retain: packet.retain }]
      : [],
  )

describe('queue-full', () => {
  it('is the outcome of the oldest publish under queue', async () => {
    const parts = await offline({ whenBlocked: 'queue', maxQueued: 3 })
    const waiting = [1, 2, 3, 4, 5].map(value => parts.publish(value))
    await quiet()
    const full = droppedAs('queue-full')
    expect(outcomesOf(waiting)).toEqual([full, full, WAITING, WAITING, WAITING])
    expectAddsUp(parts.mqtt)
    const connection = await comeBack(parts)
    await quiet()
    expect(arrived(connection)).toEqual([3, 4, 5])
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 5, accepted: 5, sent: 3 })
    await finish(parts)
  })

  it.each([
    { whenBlocked: 'queue', overflow: 'drop-newest' },
    { whenBlocked: 'latest' },
    { whenBlocked: 'wait' },
  ] as const)('is the outcome of the new publish with %j', async outbound => {
    const parts = await offline({ ...outbound, maxQueued: 3 })
    const waiting = [1, 2, 3, 4, 5].map(value => parts.publish(value, `topic/${value}`))
    await quiet()
    const full = droppedAs('queue-full')
    expect(outcomesOf(waiting)).toEqual([WAITING, WAITING, WAITING, full, full])
    const connection = await comeBack(parts)
    await quiet()
    expect(arrived(connection)).toEqual([1, 2, 3])
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 5, accepted: 3, sent: 3 })
    await finish(parts)
  })

  it('also depends on the bytes', async () => {
    const parts = await offline({ whenBlocked: 'queue', maxQueuedBytes: 1_000 })
    const waiting = [300, 300, 300, 500, 2_000].map(
      length => new Watched(parts.mqtt.publish('t', Buffer.alloc(length))),
    )
    await quiet()
    const full = droppedAs('queue-full')
    expect(outcomesOf(waiting)).toEqual([full, full, WAITING, WAITING, full])
    expect(parts.mqtt.stats().outbound.queuedBytes).toBeLessThanOrEqual(1_000)
    await comeBack(parts)
    await finish(parts)
  })
})

describe('expired', () => {
  it('is the outcome of a publish that waited for maxAgeMs under queue', async () => {
    const parts = await offline({ whenBlocked: 'queue', maxAgeMs: 5_000 })
    const first = parts.publish(1)
    await pass(4_000)
    const second = parts.publish(2)
    await pass(999)
    expect(outcomesOf([first, second])).toEqual([WAITING, WAITING])
    await pass(1)
    expect(outcomesOf([first, second])).toEqual([droppedAs('expired'), WAITING])
    const connection = await comeBack(parts)
    await quiet()
    expect(arrived(connection)).toEqual([2])
    await finish(parts)
  })

  it.each([5, 4] as const)(
    'is the outcome of a publish that waited for its Message Expiry Interval, on version %i',
    async version => {
      const parts = await publisherOnPeer({ protocolVersion: version, outbound: { maxDelayMs: 10_000 } })
      await SlowLink.of(parts)
      const properties = { messageExpiryInterval: 2 }
      const waiting = (['drop', 'latest', 'queue', 'wait'] as const).map(
        whenBlocked => new Watched(parts.mqtt.publish(whenBlocked, 1, { whenBlocked, properties })),
      )
      await pass(1_999)
      expect(outcomesOf(waiting)).toEqual(Array(4).fill(WAITING))
      await pass(1)
      expect(outcomesOf(waiting)).toEqual(Array(4).fill(droppedAs('expired')))
      await finish(parts)
      expect(arrived(parts.connection)).toEqual([])
    },
  )

  it.each(['drop', 'latest', 'queue', 'wait'] as const)(
    'is the outcome of a publish that waited for its timeoutMs under %s',
    async mode => {
      const parts = await publisherOnPeer({ outbound: { whenBlocked: mode } })
      const link = await SlowLink.of(parts)
      const [short, long] = [700, 900].map(
        timeoutMs => new Watched(parts.mqtt.publish(`${timeoutMs}`, timeoutMs, { timeoutMs })),
      )
      await pass(699)
      expect(short?.outcome).toBe(WAITING)
      await pass(1)
      expect(short?.outcome).toEqual(droppedAs('expired'))
      await link.free()
      expect(long?.outcome).toEqual(SENT)
      expect(arrived(parts.connection)).toEqual([900])
      await finish(parts)
    },
  )
})

describe('a Message Expiry Interval', () => {
  it('is written without the seconds of the wait, and not at all on 3.1.1', async () => {
    for (const protocolVersion of [5, 4] as const) {
      const parts = await publisherOnPeer({ protocolVersion, outbound: { whenBlocked: 'queue' } })
      const link = await SlowLink.of(parts)
      const properties = { messageExpiryInterval: 60, userProperties: { key: 'value' } }
      const waiting = new Watched(parts.mqtt.publish('t', 1, { properties, qos: 1 }))
      await pass(17_900)
      await link.free()
      const packet = await parts.connection.expect('publish')
      expect(packet.properties).toEqual(
        protocolVersion === 5
          ? { ...properties, messageExpiryInterval: 43, userProperties: { key: 'value' } }
          : undefined,
      )
      parts.connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 })
      expect(await waiting.promise).toMatchObject({ status: 'acknowledged' })
      await finish(parts)
    }
  })
})

describe('aborted', () => {
  it('before it started: nothing is written', async () => {
    const parts = await publisherOnPeer()
    const { mqtt } = parts
    const signal = AbortSignal.abort()
    for (const qos of [0, 1, 2] as const)
      expect(await mqtt.publish('t', 1, { qos, signal })).toEqual(droppedAs('aborted'))
    expect(mqtt.stats().outbound.dropped.aborted).toBe(3)
    await goOffline(parts)
    expect(await mqtt.publish('t', 1, { signal })).toEqual(droppedAs('aborted'))
    await finish(parts)
    expect(arrived(parts.connection)).toEqual([])
  })

  it.each(['drop', 'latest', 'queue', 'wait'] as const)('while it waits under %s', async mode => {
    const parts = await publisherOnPeer({ outbound: { whenBlocked: mode } })
    const link = await SlowLink.of(parts)
    const aborting = new AbortController()
    const aborted = new Watched(parts.mqtt.publish('a', 1, { signal: aborting.signal }))
    const other = new Watched(parts.mqtt.publish('b', 2, { signal: new AbortController().signal }))
    aborting.abort()
    await quiet()
    expect(outcomesOf([aborted, other])).toEqual([droppedAs('aborted'), WAITING])
    expectAddsUp(parts.mqtt)
    await link.free()
    expect(other.outcome).toEqual(SENT)
    expect(arrived(parts.connection)).toEqual([2])
    await finish(parts)
  })

  it.each([1, 2] as const)(
    'after it was written, at QoS %i: it is lost, and the response has no effect',
    async qos => {
      const parts = await publisherOnPeer()
      const aborting = new AbortController()
      const aborted = new Watched(parts.mqtt.publish('t', 1, { qos, signal: aborting.signal }))
      const { messageId = 0 } = await parts.connection.expect('publish')
      aborting.abort(new Error('enough'))
      await quiet()
      expect(aborted.outcome).toMatchObject({ status: 'lost', cause: { code: 'ABORTED' } })
      expect(parts.mqtt.stats().outbound).toMatchObject({ lost: 1, inFlight: 0 })
      if (qos === 2) {
        parts.connection.send({ cmd: 'pubrec', messageId, reasonCode: 0 })
        expect(await parts.connection.expect('pubrel')).toMatchObject({ messageId })
      }
      parts.connection.send({ cmd: qos === 1 ? 'puback' : 'pubcomp', messageId, reasonCode: 0 })
      await quiet()
      expect(parts.mqtt.stats().outbound).toMatchObject({ lost: 1, acknowledged: 0 })
      expect(aborted.settlements).toBe(1)
      await finish(parts)
    },
  )

  it('after it has settled changes nothing', async () => {
    const parts = await publisherOnPeer()
    const aborting = new AbortController()
    expect(await parts.mqtt.publish('t', 1, { signal: aborting.signal })).toEqual(SENT)
    aborting.abort()
    await quiet()
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 1, sent: 1 })
    await finish(parts)
  })
})

describe('closed', () => {
  it('is the outcome of waiting and later publishes when the application closes', async () => {
    const parts = await offline({ whenBlocked: 'wait' })
    const waiting = parts.publish(1)
    await finish(parts)
    expect(waiting.outcome).toEqual(droppedAs('closed'))
    expect(await parts.mqtt.publish('t', 2)).toEqual(droppedAs('closed'))
    expect(parts.mqtt.tryPublish('t', 3)).toEqual(droppedAs('closed'))
    expectAddsUp(parts.mqtt)
  })

  it('also applies while the link is slow; written publishes are lost', async () => {
    const parts = await publisherOnPeer({ outbound: { whenBlocked: 'queue' } })
    const written = new Watched(parts.mqtt.publish('t', 1, { qos: 1 }))
    await SlowLink.of(parts)
    const waiting = new Watched(parts.mqtt.publish('t', 2, { qos: 1 }))
    await finish(parts)
    expect(waiting.outcome).toEqual(droppedAs('closed'))
    expect(written.outcome).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_CLOSED' } })
  })
})

describe('a waiting publish keeps', () => {
  it('its QoS and retain; only a retained value replaces a retained one', async () => {
    const parts = await publisherOnPeer({ outbound: { whenBlocked: 'latest' } })
    const link = await SlowLink.of(parts)
    const publish = (value: number, qos: 0 | 1 | 2, retain: boolean) =>
      new Watched(parts.mqtt.publish('t', value, { qos, retain }))
    const waiting = [publish(1, 1, true), publish(2, 1, false), publish(3, 2, false), publish(4, 1, true)]
    await quiet()
    const superseded = droppedAs('superseded')
    expect(outcomesOf(waiting)).toEqual([superseded, superseded, WAITING, WAITING])
    await link.free()
    expect(publishesOf(parts.connection)).toEqual([
      { value: 4, qos: 1, retain: true },
      { value: 3, qos: 2, retain: false },
    ])
    await acknowledgeBoth(parts)
    expect(outcomesOf(waiting.slice(2))).toEqual([ACKNOWLEDGED, ACKNOWLEDGED])
    await finish(parts)
  })
})

async function acknowledgeBoth({ connection }: PublisherOnPeer): Promise<void> {
  const [first, second] = [await connection.expect('publish'), await connection.expect('publish')]
  connection.send({ cmd: 'puback', messageId: first.messageId ?? 0, reasonCode: 0 })
  connection.send({ cmd: 'pubrec', messageId: second.messageId ?? 0, reasonCode: 0 })
  connection.send({ cmd: 'pubcomp', messageId: second.messageId ?? 0, reasonCode: 0 })
  await quiet()
}

describe('a connection that fails while publishes wait for the network', () => {
  it.each([0, 1] as const)('keeps those of QoS %i for the next connection', async qos => {
    const peer = new ScriptedPeer()
    const writes: ((error?: Error) => void)[] = []
    let isStuck = false
    const createStream = (): Duplex => {
      const stream = peer.createStream()
      const write = stream._write.bind(stream)
      stream._write = (chunk, encoding, done) => (isStuck ? writes.push(done) : write(chunk, encoding, done))
      return stream
    }
    const parts = sessionOnPeer({
      createStream,
      connect: 'background',
      reconnect: { delayMs: [RECONNECT_MS], resetAfterMs: 0 },
      drainTimeoutMs: 0,
      outbound: { whenBlocked: 'queue', flowControl: 'kernel' },
    })
    const mqtt = new MqttService(parts.session)
    await parts.session.start()
    await peer.accept()
    await parts.session.connection.whenConnected()
    isStuck = true
    expect(await mqtt.publish('filler', Buffer.alloc(100_000))).toEqual(SENT)
    await pass(10)
    const waiting = [1, 2, 3].map(value => new Watched(mqtt.publish('t', value, { qos })))
    await quiet()
    expect(outcomesOf(waiting)).toEqual([WAITING, WAITING, WAITING])
    isStuck = false
    for (const done of writes) done(new Error('write EPIPE'))
    await nextState(parts.session, 'waiting')
    await quiet()
    expect(outcomesOf(waiting)).toEqual([WAITING, WAITING, WAITING])
    vi.advanceTimersByTime(RECONNECT_MS)
    const connection = await peer.accept()
    await parts.session.connection.whenConnected()
    await pass(10)
    expect(arrived(connection)).toEqual([1, 2, 3])
    await finish({ mqtt, session: parts.session })
  })
})

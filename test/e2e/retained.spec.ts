import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient, type MqttConnectOptions, type Retained } from '../../src/client/index.js'
import { CuttableLink } from '../support/cuttable-link.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'

let broker: Mosquitto
let publisher: MqttClient
/** Number of messages after which no further synchronisation begins. */
const MOST_SENT = 10_000
const open: { close(): Promise<void> }[] = []

beforeEach(async () => {
  // By default mosquitto drops what exceeds 1,000 messages per client, retained ones included.
  broker = await Mosquitto.start({ config: ['max_queued_messages 0'] })
  publisher = await connect()
})
afterEach(async () => {
  for (const resource of open.splice(0).reverse()) await resource.close()
  await broker.stop()
})

async function connect(options: Partial<MqttConnectOptions> = {}): Promise<MqttClient> {
  const client = await MqttClient.connect({ url: broker.url, reconnect: { delayMs: [10] }, ...options })
  open.push(client)
  return client
}

async function retain(topic: string, payload: unknown): Promise<void> {
  const { status } = await publisher.publish(topic, payload, { qos: 1, retain: true })
  expect(status).toBe('acknowledged')
}

/** In portions, because a busy link drops what waits too long. */
async function retainMany(count: number): Promise<void> {
  for (let start = 0; start < count; start += 100) {
    const numbers = Array.from({ length: Math.min(100, count - start) }, (_, offset) => start + offset)
    await Promise.all(numbers.map(number => retain(`sites/${number}/state`, number)))
  }
}

const clear = (topic: string): Promise<void> => retain(topic, Buffer.alloc(0))
const contents = (cache: Retained): Record<string, unknown> => Object.fromEntries(cache.entries())

describe.each([4, 5] as const)('retained() on mosquitto, MQTT version %d', protocolVersion => {
  it('is complete when every retained message has arrived', async () => {
    await retainMany(3_000)
    await retain('sites/last/state', 'last')
    const client = await connect({ protocolVersion })
    const cache = client.retained('sites/+/state', { quietMs: 0 })
    expect(cache.isComplete).toBe(false)
    await cache.whenComplete()
    expect(cache.size).toBe(3_001)
    expect(cache.get('sites/2999/state')).toBe(2_999)
    expect(client.stats().retained).toMatchObject({ caches: 1, topics: 3_001, dropped: 0 })
  })

  it('is complete at QoS 1 too, where the broker sends the messages in portions', async () => {
    await retainMany(500)
    await retain('sites/last/state', 'last')
    const client = await connect({ protocolVersion })
    const cache = client.retained('sites/+/state', { qos: 1, quietMs: 0 })
    await cache.whenComplete()
    expect(cache.size).toBe(501)
  })

  it('is complete and empty if there are no retained messages', async () => {
    const client = await connect({ protocolVersion })
    const cache = client.retained('sites/+/state', { quietMs: 0 })
    await cache.whenComplete()
    expect(cache.size).toBe(0)
  })

  it('follows what is published later, and what is cleared', async () => {
    await retain('sites/1/state', 'old')
    const client = await connect({ protocolVersion })
    const cache = client.retained('sites/+/state', { quietMs: 0 })
    const changes = cache.changes()
    await cache.whenComplete()
    await retain('sites/1/state', 'new')
    await retain('sites/2/state', 'two')
    await clear('sites/1/state')
    await eventually(() => cache.size === 1 && cache.has('sites/2/state'))
    await cache.close()
    const seen: unknown[] = []
    for await (const change of changes) seen.push(change)
    expect(seen).toEqual([
      { type: 'set', topic: 'sites/2/state', value: 'two' },
      { type: 'removed', topic: 'sites/1/state', reason: 'cleared' },
    ])
    expect(contents(cache)).toEqual({ 'sites/2/state': 'two' })
  })

  it.each([
    ['a new session', {}],
    ['a resumed session', { clean: false, clientId: 'observer' }],
  ] as const)('removes what was cleared during an outage, with %s', async (_name, session) => {
    for (const site of [1, 2, 3]) await retain(`sites/${site}/state`, site)
    const link = new CuttableLink(broker.port)
    const client = await connect({ protocolVersion, createStream: link.createStream, ...session })
    const cache = client.retained('sites/+/state', { quietMs: 0 })
    await cache.whenComplete()
    const changes = cache.changes()
    link.cut()
    await eventually(() => client.state.status !== 'connected')
    expect(cache.isComplete).toBe(false)
    expect(cache.size).toBe(3)
    await clear('sites/1/state')
    await retain('sites/2/state', 'two')
    await cache.whenComplete()
    expect(contents(cache)).toEqual({ 'sites/2/state': 'two', 'sites/3/state': 3 })
    await cache.close()
    const removed: unknown[] = []
    for await (const change of changes) if (change.type === 'removed') removed.push(change.topic)
    expect(removed).toEqual(['sites/1/state'])
  })

  it('delivers no retained message twice to other handlers of the filter', async () => {
    for (const site of [1, 2, 3]) await retain(`sites/${site}/state`, site)
    const client = await connect({ protocolVersion })
    const received: unknown[] = []
    const wide: unknown[] = []
    await client.subscribe('sites/#', ({ payload }) => void wide.push(payload)).whenGranted()
    await eventually(() => wide.length === 3)
    await client.subscribe('sites/+/state', ({ payload }) => void received.push(payload)).whenGranted()
    // On MQTT 3.1.1 a message does not name the filter that it was sent for, so every handler that matches receives it.
    const before = protocolVersion === 5 ? 3 : 6
    await eventually(() => received.length === 3 && wide.length === before)
    const cache = client.retained('sites/+/state', { quietMs: 0 })
    await cache.whenComplete()
    expect(cache.size).toBe(3)
    await retain('sites/4/state', 4)
    await eventually(() => received.includes(4) && wide.includes(4) && cache.size === 4)
    expect(received).toEqual([1, 2, 3, 4])
    expect(wide).toHaveLength(before + 1)
    await cache.close()
    await retain('sites/5/state', 5)
    await eventually(() => received.includes(5))
  })

  it.each(['sites/+/state', 'sites/#', '#', '+/#'])(
    'delivers each live message of "%s" once to other handlers while it is synchronised',
    async filter => {
      const client = await connect({ protocolVersion })
      const received: unknown[] = []
      await client
        .subscribe(filter, ({ payload }) => void received.push(payload), { order: 'none' })
        .whenGranted()
      const sent: string[] = []
      let isStopped = false
      // Many connections, because the broker processes one packet of each between two packets of the client.
      const stream = async (index: number): Promise<void> => {
        const mine = await connect()
        for (let number = 0; !isStopped; number += 5) {
          const names = Array.from({ length: 5 }, (_, offset) => `${index} ${number + offset}`)
          sent.push(...names)
          const terms = { qos: 1, retain: true } as const
          await Promise.all(names.map(name => mine.publish(`sites/${name}/state`, name, terms)))
        }
      }
      const streams = Array.from({ length: 10 }, (_, index) => stream(index))
      // Each round takes longer than the last one, because more messages are retained.
      for (let round = 0; round < 20 && sent.length < MOST_SENT; round += 1) {
        const cache = client.retained(filter, { quietMs: 0 })
        const before = sent.length
        await eventually(() => sent.length > before)
        await cache.whenComplete()
        await cache.close()
      }
      isStopped = true
      await Promise.all(streams)
      await eventually(() => received.length >= sent.length)
      expect([...received].sort()).toEqual([...sent].sort())
      const cache = client.retained(filter, { quietMs: 0, maxTopics: 100_000, maxBytes: 100_000_000 })
      await cache.whenComplete()
      expect([...cache.entries()].map(([, value]) => value).sort()).toEqual([...sent].sort())
    },
  )

  it('leaves handlers the retained messages that are still on the way to them', async () => {
    await retainMany(500)
    await retain('sites/500/state', 500)
    const client = await connect({ protocolVersion })
    const received: unknown[] = []
    await client
      .subscribe('sites/+/state', ({ payload }) => void received.push(payload), { qos: 1 })
      .whenGranted()
    const cache = client.retained('sites/+/state', { quietMs: 0 })
    await cache.whenComplete()
    expect(cache.size).toBe(501)
    await eventually(() => received.length >= 501)
    const numbers = received.map(Number).sort((one, other) => one - other)
    expect(numbers).toEqual(Array.from({ length: 501 }, (_, index) => index))
  })

  it('delivers all retained messages to a second cache of the filter', async () => {
    await retain('sites/1/state', 1)
    const client = await connect({ protocolVersion })
    const first = client.retained('sites/+/state', { quietMs: 0 })
    await first.whenComplete()
    const second = client.retained('sites/+/state', { quietMs: 0 })
    await second.whenComplete()
    expect(contents(second)).toEqual({ 'sites/1/state': 1 })
    await first.close()
    await retain('sites/1/state', 2)
    await eventually(() => second.get('sites/1/state') === 2)
    expect(first.get('sites/1/state')).toBe(1)
  })
})

import { AsyncLocalStorage } from 'node:async_hooks'
import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type ClientEvents, openClients } from '../../src/client/events.js'
import { defineTopic, MQTT_CHANNELS, MqttClient, type StandardSchema } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { RecordingLog } from '../support/recording-log.js'
import { sessionOnPeer } from '../support/session-on-peer.js'

let broker: EmbeddedBroker
let client: MqttClient
let log: RecordingLog
let events: ClientEvents

beforeEach(async () => {
  broker = await EmbeddedBroker.start()
  log = new RecordingLog()
  client = new MqttClient({ url: broker.url, protocolVersion: 4, logger: log })
  events = client.session.events
})

afterEach(async () => {
  await client.close()
  await broker.stop()
})

describe('the events of a client', () => {
  it('report the messages of presence', async () => {
    const presence = { topic: 'presence/7', online: 'on', offline: 'off' }
    const present = new MqttClient({ url: broker.url, clientId: '7', presence })
    const heard: unknown[] = []
    present.session.events.publish.listen(event => {
      heard.push([
        event.type,
        event.topic,
        event.purpose,
        'outcome' in event ? event.outcome?.status : undefined,
      ])
    })
    await present.start()
    await eventually(() => heard.length === 2)
    await present.close()
    expect(heard).toEqual([
      ['start', 'presence/7', 'presence', undefined],
      ['end', 'presence/7', 'presence', 'acknowledged'],
      ['start', 'presence/7', 'presence', undefined],
      ['end', 'presence/7', 'presence', 'acknowledged'],
    ])
  })

  it('report a publish that is dropped while its schema validates', async () => {
    const validate = () => new Promise<never>(() => {})
    const schema: StandardSchema = { '~standard': { version: 1, vendor: 'test', validate } }
    const heard: unknown[] = []
    events.publish.listen(event => {
      heard.push([event.type, event.topic, event.qos, 'outcome' in event ? event.outcome : undefined])
    })
    await client.start()
    const signal = AbortSignal.abort()
    await client.publish(defineTopic('slow', { schema, qos: 1 }).at(), 1, { signal })
    expect(heard).toEqual([
      ['start', 'slow', 1, undefined],
      ['end', 'slow', 1, { status: 'dropped', reason: 'aborted' }],
    ])
    expect(client.stats().outbound).toMatchObject({ attempted: 1, dropped: { aborted: 1 } })
  })

  it('report the connection, each publish, and the start and the end of each delivery', async () => {
    const heard: unknown[] = []
    const keys: object[] = []
    events.connection.listen(({ state }) => heard.push(state.status))
    events.publish.listen(event => {
      const { type, topic, qos, purpose, bytes } = event
      heard.push([type, topic, qos, purpose, bytes, 'outcome' in event ? event.outcome?.status : undefined])
    })
    events.delivery.listen(event => {
      const { type, key, kind, pattern, topic } = event
      heard.push([type, kind, pattern, topic, 'outcome' in event ? event.outcome : undefined])
      keys.push(key)
    })
    await client.start()
    await client.publish('other', 1, { qos: 1 })
    client.tryPublish('other', 20)
    client.subscribe('rooms/+room', ({ payload }) => {
      if (payload === 'bad') throw new Error('broken')
    })
    await broker.deliver('rooms/7', '"good"')
    await broker.deliver('rooms/8', '"bad"')
    expect(heard).toEqual([
      'connecting',
      'connected',
      ['start', 'other', 1, 'message', 1, undefined],
      ['end', 'other', 1, 'message', 1, 'acknowledged'],
      ['start', 'other', 0, 'message', 2, undefined],
      ['end', 'other', 0, 'message', 2, 'sent'],
      ['start', 'event', 'rooms/+room', 'rooms/7', undefined],
      ['end', 'event', 'rooms/+room', 'rooms/7', 'handled'],
      ['start', 'event', 'rooms/+room', 'rooms/8', undefined],
      ['attempt-failed', 'event', 'rooms/+room', 'rooms/8', undefined],
      ['end', 'event', 'rooms/+room', 'rooms/8', 'failed'],
    ])
    expect(keys[0]).toBe(keys[1])
    expect(keys[2]).toBe(keys[4])
  })

  it('report how a publish without a promise ended, also if it waited or was dropped', async () => {
    const { peer, session } = sessionOnPeer()
    const heard: unknown[] = []
    session.events.publish.listen(event => heard.push('outcome' in event ? event.outcome : event.type))
    session.tryPublish({ topic: 'a', payload: Buffer.from('1'), qos: 0, retain: false }, 'drop')
    session.tryPublish({ topic: 'a', payload: Buffer.from('2'), qos: 0, retain: false }, 'queue')
    expect(heard).toEqual(['start', { status: 'dropped', reason: 'offline' }, 'start'])
    const started = session.start()
    await peer.accept()
    await started
    expect(heard.slice(3)).toEqual([{ status: 'sent' }])
    await session.close()
  })

  it('report a publish that is rejected', async () => {
    const { peer, session } = sessionOnPeer()
    const heard: unknown[] = []
    session.events.publish.listen(event => heard.push('error' in event ? String(event.error) : event.type))
    const started = session.start()
    await peer.accept({ properties: { maximumPacketSize: 20 } })
    await started
    const large = { topic: 'a', payload: Buffer.alloc(100), qos: 1, retain: false } as const
    await expect(session.publish(large)).rejects.toMatchObject({ code: 'PACKET_TOO_LARGE' })
    expect(heard).toEqual(['start', expect.stringContaining('the broker accepts at most 20')])
    await session.close()
  })

  it('let a listener add User Properties before the message leaves', async () => {
    const { peer, session } = sessionOnPeer()
    session.events.publish.listen(event => {
      if (event.type === 'start') event.addUserProperties({ trace: 'new' })
    })
    const started = session.start()
    const connection = await peer.accept()
    await started
    const properties = { contentType: 'text/plain', userProperties: { trace: 'old', own: 'kept' } }
    void session.publish({ topic: 'a', payload: Buffer.from('1'), qos: 0, retain: false, properties })
    expect((await connection.find('publish')).properties).toMatchObject({
      contentType: 'text/plain',
      userProperties: { trace: 'new', own: 'kept' },
    })
    await session.close()
  })

  it('report the start and the end of a request, its responses and its error', async () => {
    const heard: unknown[] = []
    events.request.listen(event => {
      const end = event.type === 'end' ? [event.responses, event.error?.name] : []
      heard.push([event.type, event.topic, event.protocol, event.isStream, ...end])
    })
    await client.start()
    client.respond('numbers', async function* () {
      yield 1
      yield 2
    })
    await expect(client.request('nobody', 1, { timeoutMs: 1 })).rejects.toThrow()
    const numbers: unknown[] = []
    for await (const number of client.requestStream('numbers', 0)) numbers.push(number)
    expect(numbers).toEqual([1, 2])
    expect(heard).toEqual([
      ['start', 'nobody', 'nest', false],
      ['end', 'nobody', 'nest', false, 0, 'MqttError'],
      ['start', 'numbers', 'nest', true],
      ['end', 'numbers', 'nest', true, 2, undefined],
    ])
  })

  it('report the start and the end of a stream of responses, and why it ended', async () => {
    const heard: unknown[] = []
    events.stream.listen(event => {
      const end = event.type === 'end' ? [event.reason, event.values, event.error] : []
      heard.push([event.type, event.pattern, event.topic, ...end])
    })
    await client.start()
    const broken = new Error('broken')
    client.respond('numbers/+kind', async function* ({ params }) {
      yield 1
      if (params['kind'] === 'broken') throw broken
    })
    for await (const _ of client.requestStream('numbers/good', 0));
    await expect(client.request('numbers/broken', 0)).rejects.toThrow('broken')
    await eventually(() => heard.length === 4)
    expect(heard).toEqual([
      ['start', 'numbers/+kind', 'numbers/good'],
      ['end', 'numbers/+kind', 'numbers/good', 'finished', 1, undefined],
      ['start', 'numbers/+kind', 'numbers/broken'],
      ['end', 'numbers/+kind', 'numbers/broken', 'finished', 1, broken],
    ])
  })

  it('run a handler, its retries and its dead letter within the wrapper of a listener', async () => {
    const store = new AsyncLocalStorage<string>()
    const heard: unknown[] = []
    events.delivery.listen(event => {
      if (event.type === 'start') event.wrap(work => store.run(event.pattern, work))
      if (event.type === 'attempt-failed') heard.push(['failed', event.attempt, event.error])
      if (event.type === 'end') heard.push([event.outcome, event.error])
    })
    events.publish.listen(({ type, purpose }) => {
      if (type === 'start') heard.push([purpose, store.getStore()])
    })
    await client.start()
    const broken = new Error('broken')
    client.subscribe(
      'a',
      (_message, { attempt }) => {
        heard.push([attempt, store.getStore()])
        throw broken
      },
      { qos: 1, retries: { attempts: 1, delayMs: [0] }, onFailure: { deadLetter: 'letters' } },
    )
    await broker.deliver('a', '1')
    expect(heard).toEqual([
      [1, 'a'],
      ['failed', 1, broken],
      [2, 'a'],
      ['failed', 2, broken],
      ['dead-letter', 'a'],
      ['deadLettered', broken],
    ])
  })

  it('run a handler once, whatever the wrappers of its listeners do', async () => {
    const runs: unknown[] = []
    const listeners: unknown[] = []
    events.delivery.listen(event => {
      if (event.type !== 'start') return
      event.wrap(work => {
        listeners.push('outer')
        return work()
      })
      event.wrap(work => {
        listeners.push('inner')
        work()
        work()
        throw new Error('no span')
      })
    })
    await client.start()
    client.subscribe('a', ({ payload }) => runs.push(payload))
    await broker.deliver('a', '1')
    await broker.deliver('a', '2')
    expect(runs).toEqual([1, 2])
    expect(listeners).toEqual(['outer', 'inner', 'outer', 'inner'])
    expect(log.lines).toContainEqual({ level: 'error', text: 'a listener of the client failed: no span' })
  })

  it('report the age of each marker', async () => {
    const { peer, session } = sessionOnPeer()
    const ages: number[] = []
    session.events.link.listen(({ ageMs }) => ages.push(ageMs))
    const started = session.start()
    const connection = await peer.accept()
    await started
    void session.publish({ topic: 'a', payload: Buffer.alloc(20_000), qos: 0, retain: false })
    await connection.find('pingreq')
    await eventually(() => ages.length > 0)
    expect(ages[0]).toBeGreaterThan(0)
    await session.close()
  })

  it('continue if a listener throws, and log its error', async () => {
    events.publish.listen(() => {
      throw new Error('no meter')
    })
    await client.start()
    expect(await client.publish('a', 1, { qos: 1 })).toMatchObject({ status: 'acknowledged' })
    expect(log.lines).toContainEqual({ level: 'error', text: 'a listener of the client failed: no meter' })
  })

  it('reach a listener until it is removed', () => {
    const { publish } = events
    const leave = publish.listen(() => {})
    expect(publish.hasListeners).toBe(true)
    leave()
    expect(publish.hasListeners).toBe(false)
  })

  it('name their client, with its counters and without its secrets', async () => {
    const { client: observed } = events
    expect(openClients.has(observed)).toBe(false)
    await client.start()
    expect(openClients.has(observed)).toBe(true)
    expect(observed).toMatchObject({
      clientId: client.session.options.clientId,
      broker: broker.url,
      protocolVersion: 4,
      state: { status: 'connected' },
      handlerSlots: { inUse: 0, limit: client.session.options.inbound.concurrency },
    })
    expect(observed.stats()).toEqual(client.stats())
    expect(inspect(observed, { showHidden: true, depth: 9 })).not.toContain('options')
    await client.close()
    expect(openClients.has(observed)).toBe(false)
    expect(observed.broker).toBe(broker.url)
  })
})

describe('the diagnostics channels', () => {
  it('publish the events of all clients while they have subscribers', async () => {
    const heard: unknown[] = []
    const hear = (event: unknown): void => void heard.push(event)
    const channels = ['connection', 'publish', 'delivery', 'request'].map(name => `nestjs-mqtt:${name}`)
    for (const name of channels) subscribe(name, hear)
    await client.start()
    await client.publish('a', 1, { qos: 1 })
    client.subscribe('b', () => {})
    await broker.deliver('b', '1')
    await eventually(() => heard.length === 6)
    for (const name of channels) unsubscribe(name, hear)
    await client.publish('a', 2, { qos: 1 })
    const { client: observed } = events
    expect(heard).toMatchObject([
      { client: observed, state: { status: 'connecting' } },
      { client: observed, state: { status: 'connected' } },
      { client: observed, type: 'start', topic: 'a' },
      { client: observed, type: 'end', topic: 'a', outcome: { status: 'acknowledged' } },
      { client: observed, type: 'start', topic: 'b' },
      { client: observed, type: 'end', topic: 'b', outcome: 'handled' },
    ])
  })

  it('run a handler in the stores that are bound to the channel', async () => {
    const store = new AsyncLocalStorage<string>()
    const delivery = channel(MQTT_CHANNELS.delivery)
    delivery.bindStore(store, event => {
      // Seam: the declared type of a message is unknown.
      const { topic } = event as { readonly topic: string }
      return topic
    })
    const stored: unknown[] = []
    await client.start()
    client.subscribe('a/+b', async () => {
      await Promise.resolve()
      stored.push(store.getStore())
    })
    await broker.deliver('a/1', '1')
    await broker.deliver('a/2', '1')
    delivery.unbindStore(store)
    await broker.deliver('a/3', '1')
    expect(stored).toEqual(['a/1', 'a/2', undefined])
  })
})

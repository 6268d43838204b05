import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { RecordingLog } from '../support/recording-log.js'

let broker: EmbeddedBroker
let clients: MqttClient[]

beforeEach(async () => {
  broker = await EmbeddedBroker.start()
  clients = []
})

afterEach(async () => {
  await Promise.all(clients.map(client => client.close()))
  await broker.stop()
})

async function connect(options = {}): Promise<MqttClient> {
  const client = await MqttClient.connect({ url: broker.url, ...options })
  clients.push(client)
  return client
}

describe('a client without Nest', () => {
  it('is connected when connect() resolves, and delivers to handlers and loops', async () => {
    const client = await connect()
    expect(client.state.status).toBe('connected')
    const handled: unknown[] = []
    const subscription = client.subscribe('rooms/+room/temperature', ({ payload, params }) => {
      handled.push([params, payload])
    })
    const messages = client.messages<{ celsius: number }>('rooms/#')
    await subscription.whenGranted()
    expect(await client.publish('rooms/7/temperature', { celsius: 21 }, { qos: 1 })).toMatchObject({
      status: 'acknowledged',
    })
    for await (const { topic, payload } of messages) {
      expect({ topic, payload }).toEqual({ topic: 'rooms/7/temperature', payload: { celsius: 21 } })
      break
    }
    await eventually(() => handled.length === 1)
    expect(handled).toEqual([[{ room: '7' }, { celsius: 21 }]])
  })

  it('accepts handlers before it connects', async () => {
    const client = new MqttClient({ url: broker.url })
    clients.push(client)
    expect(client.state.status).toBe('idle')
    const topics: string[] = []
    client.subscribe('a', ({ topic }) => topics.push(topic))
    await client.start()
    await client.publish('a', 1, { qos: 1 })
    await eventually(() => topics.length === 1)
    expect(client.stats().subscriptions.granted).toBe(1)
  })

  it('rejects connect() when the first attempt fails', async () => {
    await broker.stop()
    await expect(connect()).rejects.toMatchObject({ code: 'CONNECT_FAILED' })
  })

  it('resolves connect() at once with connect: "background"', async () => {
    await broker.stop()
    const client = await connect({ connect: 'background' })
    expect(client.state.status).not.toBe('connected')
  })

  it('reports its state to listeners until they are removed', async () => {
    const client = new MqttClient({ url: broker.url, protocolVersion: 4 })
    const seen: string[] = []
    const leave = client.onState(({ status }) => seen.push(status))
    await client.start()
    expect(seen).toEqual(['connecting', 'connected'])
    leave()
    await client.close()
    expect(seen).toHaveLength(2)
  })

  it('closes at the end of its scope, after publishes have settled', async () => {
    const client = await connect()
    const published = client.publish('a', 1, { qos: 1 })
    await client[Symbol.asyncDispose]()
    expect(await published).toMatchObject({ status: 'acknowledged' })
    expect(client.state).toEqual({ status: 'closed' })
    expect(await client.publish('a', 2)).toEqual({ status: 'dropped', reason: 'closed' })
  })
})

describe('the logger of a client', () => {
  it('receives its log lines', async () => {
    const logger = new RecordingLog()
    const client = await connect({ logger })
    await client.close()
    expect(logger.visible).toEqual([
      expect.stringMatching(/^connected to mqtt:\/\/.+ with MQTT 3\.1\.1, new session$/),
      expect.stringMatching(/^connection to .+ closed$/),
    ])
  })

  it('must have a function for each level', () => {
    const logger = { log: () => {} }
    // @ts-expect-error A caller in JavaScript may give anything.
    expect(() => new MqttClient({ url: broker.url, logger })).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining('"logger"') }),
    )
  })
})

describe('a client that has closed', () => {
  const uses: readonly [string, (client: MqttClient) => unknown][] = [
    ['subscribe()', client => client.subscribe('a', () => {})],
    ['respond()', client => client.respond('a', () => 1)],
    ['messages()', client => client.messages('a')],
    ['retained()', client => client.retained('a')],
  ]

  it.each(uses)(
    'throws CONNECTION_CLOSED from %s, with the advice to create a new client',
    async (_, use) => {
      const client = await connect()
      await client.close()
      expect(() => use(client)).toThrow(
        expect.objectContaining({
          code: 'CONNECTION_CLOSED',
          message: expect.stringContaining('create a new one'),
        }),
      )
      expect(client.stats().subscriptions).toMatchObject({ granted: 0, pending: 0 })
    },
  )

  it('throws from subscribe() with the cause if it has closed by itself', async () => {
    const client = new MqttClient({ url: 'mqtt://localhost:1', connectTimeoutMs: 1_000 })
    const cause = await client.start().catch((error: unknown) => error)
    expect(cause).toBeInstanceOf(Error)
    expect(() => client.subscribe('a', () => {})).toThrow(
      expect.objectContaining({
        code: 'CONNECTION_CLOSED',
        cause: expect.objectContaining({ code: 'CONNECT_FAILED' }),
      }),
    )
  })

  it('fails requests with CONNECTION_CLOSED, and drops publishes as closed', async () => {
    const client = await connect()
    await client.close()
    const closed = { code: 'CONNECTION_CLOSED' }
    await expect(client.request('a', 1)).rejects.toMatchObject(closed)
    await expect(client.requestStream('a', 1).next()).rejects.toMatchObject(closed)
    expect(await client.publish('a', 1)).toEqual({ status: 'dropped', reason: 'closed' })
  })

  it('ignores unsubscribe() and the end of a loop and of a cache', async () => {
    const client = await connect()
    const subscription = client.subscribe('a', () => {})
    const loop = client.messages('b')
    const cache = client.retained('c')
    await subscription.whenGranted()
    await client.close()
    await Promise.all([subscription.unsubscribe(), cache.close(), loop.return?.()])
    expect(await loop.next()).toEqual({ done: true, value: undefined })
  })

  it('lets a handler that still runs use it until close() has ended', async () => {
    const client = await connect()
    const closings: Promise<void>[] = []
    const results: unknown[] = []
    const subscription = client.subscribe('a', async () => {
      closings.push(client.close())
      results.push(typeof client.subscribe('b', () => {}).unsubscribe)
      results.push(await client.messages('c').next())
      results.push(await client.publish('d', 1, { qos: 1 }))
    })
    await subscription.whenGranted()
    await client.publish('a', 1)
    await eventually(() => closings.length === 1)
    await Promise.all(closings)
    expect(results).toEqual([
      'function',
      { done: true, value: undefined },
      { status: 'acknowledged', reasonCode: 0 },
    ])
  })

  it('rejects start() with the advice to create a new client', async () => {
    const client = await connect()
    await client.close()
    await expect(client.start()).rejects.toMatchObject({
      code: 'CONNECTION_CLOSED',
      message: 'this client is closed and cannot be used again; create a new one to connect again',
    })
    expect((await connect()).state.status).toBe('connected')
  })

  it('rejects start() with the cause if it has closed by itself', async () => {
    await broker.stop()
    const client = new MqttClient({ url: broker.url })
    await expect(client.start()).rejects.toMatchObject({ code: 'CONNECT_FAILED' })
    await expect(client.start()).rejects.toMatchObject({
      code: 'CONNECTION_CLOSED',
      cause: { code: 'CONNECT_FAILED' },
    })
  })
})

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { RecordingLog } from '../support/recording-log.js'

let broker: EmbeddedBroker
let client: MqttClient
let log: RecordingLog

beforeEach(async () => {
  broker = await EmbeddedBroker.start()
  log = new RecordingLog()
  client = new MqttClient({ url: broker.url, protocolVersion: 4, logger: log })
})

afterEach(async () => {
  await client.close()
  await broker.stop()
})

describe('the events of a client', () => {
  it('report the connection, each publish, and the start and the end of each delivery', async () => {
    const { events } = client.session
    const heard: unknown[] = []
    const keys: object[] = []
    events.connection.listen(({ state }) => heard.push(state.status))
    events.publish.listen(({ topic, qos, outcome }) => heard.push(['publish', topic, qos, outcome.status]))
    events.delivery.listen(({ type, key, pattern, topic, outcome }) => {
      heard.push([type, pattern, topic, outcome])
      keys.push(key)
    })
    await client.start()
    await client.publish('other', 1, { qos: 1 })
    client.tryPublish('other', 2)
    client.subscribe('rooms/+room', ({ payload }) => {
      if (payload === 'bad') throw new Error('broken')
    })
    await broker.deliver('rooms/7', '"good"')
    await broker.deliver('rooms/8', '"bad"')
    expect(heard).toEqual([
      'connecting',
      'connected',
      ['publish', 'other', 1, 'acknowledged'],
      ['publish', 'other', 0, 'accepted'],
      ['start', 'rooms/+room', 'rooms/7', undefined],
      ['end', 'rooms/+room', 'rooms/7', 'handled'],
      ['start', 'rooms/+room', 'rooms/8', undefined],
      ['end', 'rooms/+room', 'rooms/8', 'failed'],
    ])
    expect(keys[0]).toBe(keys[1])
  })

  it('report the start and the end of a request, and its error', async () => {
    const heard: unknown[] = []
    client.session.events.request.listen(({ type, topic, protocol, error }) =>
      heard.push([type, topic, protocol, error === undefined ? undefined : String(error)]),
    )
    await client.start()
    await expect(client.request('nobody', 1, { timeoutMs: 1 })).rejects.toThrow()
    expect(heard).toEqual([
      ['start', 'nobody', 'nest', undefined],
      ['end', 'nobody', 'nest', expect.any(String)],
    ])
  })

  it('wrap each attempt of a handler', async () => {
    const wrapped: unknown[] = []
    client.session.events.aroundRun = (info, work) => {
      wrapped.push(info)
      return work()
    }
    await client.start()
    client.subscribe(
      'a',
      (_message, { attempt }) => {
        if (attempt === 1) throw new Error('broken')
      },
      { retries: { attempts: 1, delayMs: [0] } },
    )
    await broker.deliver('a', '1')
    expect(wrapped).toEqual([
      { pattern: 'a', topic: 'a', attempt: 1 },
      { pattern: 'a', topic: 'a', attempt: 2 },
    ])
  })

  it('continue if a listener throws, and log its error', async () => {
    client.session.events.publish.listen(() => {
      throw new Error('no meter')
    })
    await client.start()
    expect(await client.publish('a', 1, { qos: 1 })).toMatchObject({ status: 'acknowledged' })
    expect(log.lines).toContainEqual({ level: 'error', text: 'a listener of the client failed: no meter' })
  })

  it('reach a listener until it is removed', async () => {
    const { publish } = client.session.events
    const leave = publish.listen(() => {})
    expect(publish.isHeard).toBe(true)
    leave()
    expect(publish.isHeard).toBe(false)
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
    await eventually(() => heard.length === 5)
    for (const name of channels) unsubscribe(name, hear)
    await client.publish('a', 2, { qos: 1 })
    const { clientId } = client.session.events
    expect(heard).toMatchObject([
      { clientId, state: { status: 'connecting' } },
      { clientId, state: { status: 'connected' } },
      { clientId, topic: 'a', outcome: { status: 'acknowledged' } },
      { clientId, type: 'start', topic: 'b' },
      { clientId, type: 'end', topic: 'b', outcome: 'handled' },
    ])
  })
})

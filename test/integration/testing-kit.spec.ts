import { Controller, type INestMicroservice } from '@nestjs/common'
import { Ctx, EventPattern, Payload } from '@nestjs/microservices'
import { connectAsync } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  handle,
  type MqttContext,
  type MqttModuleOptions,
  type MqttService,
  TopicParam,
} from '../../src/index.js'
import { EmbeddedBroker, FaultLink, ScriptedPeer } from '../../src/testing/index.js'
import { startMicroservice } from '../support/nest-app.js'

@Controller()
class Devices {
  static readonly handled: unknown[] = []

  @EventPattern<string>('devices/+deviceId/telemetry', handle({ qos: 1 }))
  async onTelemetry(@Payload() reading: unknown, @TopicParam('deviceId') deviceId: string): Promise<void> {
    await new Promise(resolve => setImmediate(resolve))
    Devices.handled.push({ deviceId, reading })
  }

  @EventPattern<string>('devices/+deviceId/log', handle({ qos: 0 }))
  onLog(@Ctx() context: MqttContext): void {
    Devices.handled.push(context.getTopic())
  }
}

let broker: EmbeddedBroker
let link: FaultLink
let app: INestMicroservice | undefined
beforeEach(async () => {
  Devices.handled.length = 0
  broker = await EmbeddedBroker.start()
  link = await FaultLink.start({ port: Number(new URL(broker.url).port) })
})
afterEach(async () => {
  vi.useRealTimers()
  await app?.close()
  app = undefined
  await link.stop()
  await broker.stop()
})

async function start(options: MqttModuleOptions): Promise<MqttService> {
  const started = await startMicroservice(
    { protocolVersion: 4, reconnect: { delayMs: [1] }, ...options },
    { controllers: [Devices] },
  )
  app = started.app
  return started.mqtt
}

describe('a cut that is awaited', () => {
  it.each(['url', 'createStream'] as const)('of a broker, by %s: the client has noticed it', async way => {
    const mqtt = await start(way === 'url' ? { url: broker.url } : { createStream: broker.createStream })
    await broker.cut()
    expect(mqtt.state.status).not.toBe('connected')
    await mqtt.whenConnected()
    expect(broker.connectedClients).toBe(1)
  })

  it('of a link: the client has noticed it', async () => {
    const mqtt = await start({ url: link.url })
    await link.cut()
    expect(mqtt.state.status).not.toBe('connected')
    await mqtt.whenConnected()
    expect(link.dials).toBe(2)
  })

  it('of a scripted peer: the client has noticed it', async () => {
    const peer = new ScriptedPeer()
    const [connection, mqtt] = await Promise.all([
      peer.accept(),
      start({ createStream: peer.createStream, connect: 'background' }),
    ])
    await mqtt.whenConnected()
    await connection.cut()
    expect(mqtt.state.status).not.toBe('connected')
  })

  it('needs no running timers', async () => {
    const mqtt = await start({ url: broker.url, reconnect: { delayMs: [60_000] } })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] })
    await broker.cut()
    expect(mqtt.state.status).toBe('waiting')
    await vi.advanceTimersByTimeAsync(60_000)
    await mqtt.whenConnected()
  })

  it('resolves at once without a connected client', async () => {
    await broker.cut()
    await link.cut()
  })
})

describe('a stall that is awaited', () => {
  it('lets nothing arrive afterwards, and everything after heal()', async () => {
    const client = await connectAsync(link.url, { reconnectPeriod: 0, protocolVersion: 4 })
    const received: string[] = []
    client.on('message', (_topic, payload) => received.push(payload.toString()))
    await client.subscribeAsync('t')
    for (let index = 0; index < 200; index += 1) void broker.publish('t', String(index))
    await link.stall('to-client')
    const before = received.length
    await broker.publish('t', 'late')
    for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate)
    expect(received).toHaveLength(before)
    link.heal()
    await vi.waitFor(() => expect(received).toHaveLength(201))
    await client.endAsync()
  })
})

describe('the record of a broker', () => {
  it('contains the published messages, and returns each once', async () => {
    const mqtt = await start({ url: broker.url })
    await mqtt.publish('devices/1/config', { rate: 5 }, { qos: 1, retain: true })
    await mqtt.publish('devices/2/config', { rate: 6 })
    const first = await broker.nextMessage('devices/+/config')
    expect(first).toMatchObject({ topic: 'devices/1/config', qos: 1, retain: true })
    expect(JSON.parse(first.payload.toString())).toEqual({ rate: 5 })
    expect(await broker.nextMessage('devices/+/config')).toMatchObject({ topic: 'devices/2/config' })
    expect(broker.published.map(message => message.topic)).toEqual(['devices/1/config', 'devices/2/config'])
  })

  it('waits for a message that is published later, under fake timers too', async () => {
    const mqtt = await start({ url: broker.url })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] })
    const next = broker.nextMessage('a/#')
    await mqtt.publish('b', 1)
    await mqtt.publish('a/b', 2)
    expect(await next).toMatchObject({ topic: 'a/b' })
  })

  it('reports within the deadline what was published instead', async () => {
    const mqtt = await start({ url: broker.url })
    await expect(broker.nextMessage('a', { timeoutMs: 1 })).rejects.toThrow(
      'no message on "a" was published within 1 ms; none was published on any topic',
    )
    await mqtt.publish('devices/1/config', 1)
    await broker.nextMessage('#')
    await expect(broker.nextMessage('a', { timeoutMs: 1 })).rejects.toThrow(
      'published so far: "devices/1/config"',
    )
  })

  it('keeps the last 1,000 messages', async () => {
    const client = await connectAsync(broker.url, { reconnectPeriod: 0, protocolVersion: 4 })
    for (let index = 0; index < 1_001; index += 1) client.publish('t', String(index))
    await client.publishAsync('t', 'last', { qos: 1 })
    expect(broker.published).toHaveLength(1_000)
    expect(broker.published.at(-1)?.payload.toString()).toBe('last')
    await client.endAsync()
  })
})

describe('deliver', () => {
  it('resolves when the handlers of the message have ended', async () => {
    await start({ url: broker.url })
    await broker.deliver('devices/7/telemetry', { celsius: 4 })
    expect(Devices.handled).toEqual([{ deviceId: '7', reading: { celsius: 4 } }])
    expect(broker.acknowledged.map(message => message.topic)).toEqual(['devices/7/telemetry'])
  })

  it('waits for the subscriptions to come back after an outage', async () => {
    const mqtt = await start({ url: broker.url })
    for (let outage = 0; outage < 10; outage += 1) {
      await broker.cut()
      await mqtt.whenConnected()
      await broker.deliver('devices/7/telemetry', outage)
    }
    expect(Devices.handled).toHaveLength(10)
  })

  it('waits for the subscriptions to come back after a cut of the link', async () => {
    await start({ url: link.url })
    await link.cut()
    await broker.deliver('devices/7/telemetry', 1)
    expect(Devices.handled).toHaveLength(1)
  })

  it('rejects if no client subscribes to the topic at QoS 1', async () => {
    await start({ url: broker.url })
    await expect(broker.deliver('devices/7/log', 'text', { timeoutMs: 20 })).rejects.toThrow(
      'the message on "devices/7/log" was not handled within 20 ms: no client has a matching subscription at QoS 1',
    )
  })

  it('rejects with a Shared Subscription, and says that the broker does not support it', async () => {
    await start({ url: broker.url, sharedGroup: 'readers' })
    await expect(broker.deliver('devices/7/telemetry', 1, { timeoutMs: 20 })).rejects.toThrow(
      'no client has a matching subscription at QoS 1, except "$share/readers/devices/+/telemetry", and this broker does not support Shared Subscriptions: leave out "sharedGroup" in this test, or use another broker',
    )
  })

  it('rejects if no client acknowledges the message', async () => {
    const client = await connectAsync(broker.url, { reconnectPeriod: 0, protocolVersion: 4 })
    await client.subscribeAsync('t', { qos: 1 })
    client.handleMessage = () => {}
    await expect(broker.deliver('t', 'text', { timeoutMs: 50 })).rejects.toThrow(
      'the message on "t" was not handled within 50 ms: no client has acknowledged it',
    )
    await client.endAsync(true)
  })
})

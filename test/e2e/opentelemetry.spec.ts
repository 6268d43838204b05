import 'reflect-metadata'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import {
  type CallHandler,
  Controller,
  type ExecutionContext,
  type NestInterceptor,
  UseInterceptors,
} from '@nestjs/common'
import { EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { defineTopic, handle, MqttClient } from '../../src/index.js'
import { contextOf } from '../../src/opentelemetry/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'
import { Telemetry } from '../support/telemetry.js'

/** Debian's interpreter, which has the package python3-paho-mqtt. */
const PYTHON = '/usr/bin/python3'
const WORKER = fileURLToPath(new URL('apps/traced-worker.mjs', import.meta.url))

/** A device in another language: it passes the User Properties of a command on with its telemetry. */
const DEVICE = `
import sys, paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
device = mqtt.Client(protocol=mqtt.MQTTv5)
def on_message(client, data, message):
    client.publish('devices/7/telemetry', b'21', qos=1, properties=passed_on(message))
def passed_on(message):
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = message.properties.UserProperty
    return properties
device.on_message = on_message
device.on_subscribe = lambda *granted: print('ready', flush=True)
device.connect('127.0.0.1', int(sys.argv[1]))
device.subscribe('devices/7/commands', 1)
device.loop_forever()
`

let broker: Mosquitto
let telemetry: Telemetry
let client: MqttClient
const children: ChildProcess[] = []

beforeAll(async () => {
  broker = await Mosquitto.start()
})
beforeEach(async () => {
  telemetry = new Telemetry({
    topics: ['rooms/+room', defineTopic('devices/+deviceId/commands'), 'jobs/+id'],
  })
  client = await MqttClient.connect({ url: broker.url, protocolVersion: 5 })
})
afterEach(async () => {
  await client.close()
  await telemetry.stop()
  for (const child of children.splice(0)) {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
})
afterAll(() => broker.stop())

/** Starts a program, and waits until it is ready. */
async function start(command: string, args: readonly string[]): Promise<void> {
  const child = spawn(command, args, {
    env: { ...process.env, MQTT_URL: broker.url },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  let errors = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  if (child.stdout === null) throw new Error('the program has no output')
  for await (const line of createInterface({ input: child.stdout })) if (line === 'ready') return
  throw new Error(`${command} did not start; the device needs python3-paho-mqtt: ${errors}`)
}

const parentOf = (span: ReadableSpan) => span.parentSpanContext?.spanId
const idOf = (span: ReadableSpan) => span.spanContext().spanId

describe('spans', () => {
  it('of a publish and its handler have the pattern as their name, and belong together', async () => {
    const active: (string | undefined)[] = []
    const rooms = client.subscribe('rooms/+room', async () => {
      await Promise.resolve()
      active.push(trace.getActiveSpan()?.spanContext().spanId)
    })
    await rooms.whenGranted()
    const outer = telemetry.tracers.getTracer('test').startSpan('outer')
    await context.with(trace.setSpan(context.active(), outer), () =>
      client.publish('rooms/7', { celsius: 21 }, { qos: 1 }),
    )
    outer.end()
    const published = await telemetry.only('publish rooms/+room')
    const processed = await telemetry.only('process rooms/+room')
    expect([published.kind, processed.kind]).toEqual([SpanKind.PRODUCER, SpanKind.CONSUMER])
    expect(parentOf(published)).toBe(outer.spanContext().spanId)
    expect(parentOf(processed)).toBe(idOf(published))
    expect(processed.spanContext().traceId).toBe(outer.spanContext().traceId)
    expect(active).toEqual([idOf(processed)])
    expect(published.attributes).toEqual({
      'messaging.system': 'mqtt',
      'server.address': '127.0.0.1',
      'server.port': broker.port,
      'messaging.operation.name': 'publish',
      'messaging.operation.type': 'send',
      'messaging.destination.template': 'rooms/+room',
      'messaging.message.body.size': 14,
      'mqtt.qos': 1,
    })
    expect(processed.attributes).toMatchObject({
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
      'messaging.destination.template': 'rooms/+room',
      'mqtt.outcome': 'handled',
    })
    expect(JSON.stringify([published.attributes, processed.attributes])).not.toContain('rooms/7')
    expect([published.status.code, processed.status.code]).toEqual([
      SpanStatusCode.UNSET,
      SpanStatusCode.UNSET,
    ])
  })

  it('of a publish without a known pattern have no topic in their name', async () => {
    await client.publish('somewhere/else', 1)
    const span = await telemetry.only('publish')
    expect(span.attributes).not.toHaveProperty('messaging.destination.template')
    expect(span.attributes).not.toHaveProperty('messaging.destination.name')
  })

  it('have the topic and the Client Identifier if they are asked for', async () => {
    telemetry.instrumentation.setConfig({ recordTopic: true, recordClientId: true })
    await client.publish('somewhere/else', 1)
    expect((await telemetry.only('publish')).attributes).toMatchObject({
      'messaging.destination.name': 'somewhere/else',
      'messaging.client.id': client.session.options.clientId,
    })
  })

  it('of a failed handler have each attempt as an event, a dead letter as a child, and no text of the error', async () => {
    const letters = client.subscribe('letters', () => {})
    const rooms = client.subscribe(
      'rooms/+room',
      () => {
        throw new TypeError('secret 4711')
      },
      { qos: 1, retries: { attempts: 1, delayMs: [0] }, onFailure: { deadLetter: 'letters' } },
    )
    await Promise.all([letters.whenGranted(), rooms.whenGranted()])
    await client.publish('rooms/7', 1, { qos: 1 })
    const processed = await telemetry.only('process rooms/+room')
    expect(processed.events.map(({ name, attributes }) => [name, attributes])).toEqual([
      ['attempt failed', { 'mqtt.attempt': 1, 'error.type': 'TypeError' }],
      ['attempt failed', { 'mqtt.attempt': 2, 'error.type': 'TypeError' }],
    ])
    expect(processed.status).toEqual({ code: SpanStatusCode.ERROR, message: 'TypeError' })
    expect(processed.attributes).toMatchObject({ 'error.type': 'TypeError', 'mqtt.outcome': 'deadLettered' })
    const letter = await telemetry.only('dead-letter letters')
    expect(letter.kind).toBe(SpanKind.PRODUCER)
    expect(parentOf(letter)).toBe(idOf(processed))
    const handled = await telemetry.only('process letters')
    expect(parentOf(handled)).toBe(idOf(letter))
    const all = telemetry.spans.map(({ attributes, events, status }) => ({ attributes, events, status }))
    expect(JSON.stringify(all)).not.toContain('4711')
  })

  it('of a dropped publish have the reason', async () => {
    await client.close()
    await client.publish('rooms/7', 1)
    const { status, attributes } = await telemetry.only('publish rooms/+room')
    expect(status).toEqual({ code: SpanStatusCode.ERROR, message: 'closed' })
    expect(attributes).toMatchObject({ 'error.type': 'closed' })
  })

  it('of a request are client and server, and a stream of responses is a child of the server', async () => {
    const responder = client.respond('rooms/+room', async function* () {
      yield 1
      yield 2
    })
    await responder.whenGranted()
    const numbers: unknown[] = []
    for await (const number of client.requestStream('rooms/7', 1)) numbers.push(number)
    expect(numbers).toEqual([1, 2])
    const request = await telemetry.only('request rooms/+room')
    const process = await telemetry.only('process rooms/+room')
    const stream = await telemetry.only('stream rooms/+room')
    expect([request.kind, process.kind, stream.kind]).toEqual([
      SpanKind.CLIENT,
      SpanKind.SERVER,
      SpanKind.INTERNAL,
    ])
    expect(parentOf(process)).toBe(idOf(request))
    expect(parentOf(stream)).toBe(idOf(process))
    expect(request.attributes).toMatchObject({ 'mqtt.responses': 2 })
    expect(stream.attributes).toMatchObject({ 'mqtt.responses': 2, 'mqtt.stream.end': 'finished' })
    await expect(client.request('nobody', 1, { qos: 1 })).rejects.toMatchObject({ code: 'NO_RESPONDER' })
    const failed = await telemetry.only('request')
    expect(failed.status).toEqual({ code: SpanStatusCode.ERROR, message: 'NO_RESPONDER' })
  })

  it('of a retained message start a trace, with a link to the publisher', async () => {
    await client.publish('rooms/7', 1, { qos: 1, retain: true })
    client.subscribe('rooms/#', () => {})
    const published = await telemetry.only('publish rooms/+room')
    const processed = await telemetry.only('process rooms/#')
    await client.publish('rooms/7', '', { qos: 1, retain: true, codec: 'text' })
    expect(parentOf(processed)).toBeUndefined()
    expect(processed.links.map(link => link.context.spanId)).toEqual([idOf(published)])
  })

  it('start a new trace if continueTraces is false', async () => {
    telemetry.instrumentation.setConfig({ continueTraces: false })
    await client.subscribe('rooms/+room', () => {}).whenGranted()
    await client.publish('rooms/7', 1, { qos: 1 })
    const published = await telemetry.only('publish')
    const processed = await telemetry.only('process rooms/+room')
    expect(parentOf(processed)).toBeUndefined()
    expect(processed.links.map(link => link.context.spanId)).toEqual([idOf(published)])
  })

  it('are the parents of what a loop does, with the context of its message', async () => {
    const messages = client.messages('rooms/+room', { qos: 1 })
    const [, next] = await Promise.all([
      eventually(() => client.stats().subscriptions.granted > 0).then(() =>
        client.publish('rooms/7', 1, { qos: 1 }),
      ),
      messages.next(),
    ])
    const sent = trace.getSpanContext(contextOf(next.value?.properties))
    expect(sent?.spanId).toBe(idOf(await telemetry.only('publish rooms/+room')))
    await messages.return?.()
  })
})

class Remembering implements NestInterceptor {
  static readonly spans: (string | undefined)[] = []

  intercept(_context: ExecutionContext, next: CallHandler) {
    Remembering.spans.push(trace.getActiveSpan()?.spanContext().spanId)
    return next.handle()
  }
}

describe('with Nest', () => {
  it('the span is active in interceptors, handlers and batches, and links to every message of a batch', async () => {
    const spans: (string | undefined)[] = []
    const payloads: unknown[] = []
    @Controller()
    class Rooms {
      @UseInterceptors(Remembering)
      @EventPattern('rooms/+room')
      onRoom(_celsius: number): void {
        spans.push(trace.getActiveSpan()?.spanContext().spanId)
      }

      @EventPattern('jobs/+id', handle({ qos: 1, batch: { maxMessages: 2, maxWaitMs: 60_000 } }))
      onJobs(@Payload() jobs: unknown[]): void {
        payloads.push(...jobs)
        spans.push(trace.getActiveSpan()?.spanContext().spanId)
      }

      @MessagePattern('devices/+deviceId/commands')
      onCommand(): string {
        return 'ok'
      }
    }
    const { app } = await startMicroservice({ url: broker.url, protocolVersion: 5 }, { controllers: [Rooms] })
    try {
      await client.publish('rooms/7', 1, { qos: 1 })
      const processed = await telemetry.only('process rooms/+room')
      expect([...Remembering.spans, ...spans]).toEqual([idOf(processed), idOf(processed)])
      await client.publish('jobs/1', 1, { qos: 1 })
      await client.publish('jobs/2', 2, { qos: 1 })
      const batch = await telemetry.only('process jobs/+id')
      const published = await telemetry.named('publish jobs/+id', 2)
      expect(payloads).toEqual([1, 2])
      expect(spans.at(-1)).toBe(idOf(batch))
      expect(parentOf(batch)).toBeUndefined()
      expect(batch.links.map(link => link.context.spanId)).toEqual(published.map(idOf))
      expect(batch.attributes).toMatchObject({ 'messaging.batch.message_count': 2 })
      expect(await client.request('devices/7/commands', 1)).toBe('ok')
      const server = await telemetry.only('process devices/+deviceId/commands')
      expect(parentOf(server)).toBe(idOf(await telemetry.only('request devices/+deviceId/commands')))
      expect(telemetry.spans.filter(({ name }) => name.startsWith('stream'))).toEqual([])
    } finally {
      await app.close()
    }
  })
})

describe('a trace', () => {
  it('continues in another process', async () => {
    await start(process.execPath, [WORKER])
    const done: { traceId: string; spanId: string; parent: string }[] = []
    await client.subscribe<(typeof done)[number]>('done', ({ payload }) => done.push(payload)).whenGranted()
    await client.publish('jobs/1', 1, { qos: 1 })
    const published = await telemetry.only('publish jobs/+id')
    const processed = await telemetry.only('process done')
    expect(done[0]).toMatchObject({ traceId: published.spanContext().traceId, parent: idOf(published) })
    expect(processed.spanContext().traceId).toBe(published.spanContext().traceId)
  })

  it('passes through a device in Python', async () => {
    await start(PYTHON, ['-c', DEVICE, String(broker.port)])
    await client.subscribe('devices/+deviceId/telemetry', () => {}, { qos: 1 }).whenGranted()
    await client.publish('devices/7/commands', 'measure', { qos: 1 })
    const command = await telemetry.only('publish devices/+deviceId/commands')
    const measured = await telemetry.only('process devices/+deviceId/telemetry')
    expect(measured.spanContext().traceId).toBe(command.spanContext().traceId)
    expect(parentOf(measured)).toBe(idOf(command))
  })

  it('adds nothing to messages on MQTT 3.1.1', async () => {
    const old = await MqttClient.connect({ url: broker.url, protocolVersion: 4 })
    const received: unknown[] = []
    await client
      .subscribe('rooms/+room', ({ payload, properties }) =>
        received.push([payload, properties.userProperties]),
      )
      .whenGranted()
    await old.publish('rooms/7', { celsius: 21 }, { qos: 1 })
    await eventually(() => received.length === 1)
    await old.close()
    expect(received).toEqual([[{ celsius: 21 }, undefined]])
    expect((await telemetry.named('process rooms/+room')).map(parentOf)).toEqual([undefined])
  })
})

describe('metrics', () => {
  it('count what was sent, consumed and handled, with bounded attributes', async () => {
    await client
      .subscribe('rooms/+room', ({ payload }) => {
        if (payload === 'bad') throw new RangeError('bad')
      })
      .whenGranted()
    for (let room = 0; room < 20; room += 1) await client.publish(`rooms/${room}`, room, { qos: 1 })
    await client.publish('rooms/7', 'bad', { qos: 1 })
    await telemetry.named('process rooms/+room', 21)
    const server = { 'server.address': '127.0.0.1', 'server.port': broker.port }
    const shared = { 'messaging.system': 'mqtt', ...server, 'messaging.destination.template': 'rooms/+room' }
    const send = { ...shared, 'messaging.operation.name': 'publish', 'messaging.operation.type': 'send' }
    const process = {
      ...shared,
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
    }
    expect(await telemetry.points('messaging.client.sent.messages')).toEqual([
      { attributes: send, value: 21 },
    ])
    expect(await telemetry.points('messaging.client.operation.duration')).toEqual([
      { attributes: send, value: 21 },
    ])
    expect(await telemetry.points('messaging.client.consumed.messages')).toEqual([
      { attributes: process, value: 21 },
    ])
    expect(await telemetry.points('messaging.process.duration')).toEqual([
      { attributes: process, value: 20 },
      { attributes: { ...process, 'error.type': 'RangeError' }, value: 1 },
    ])
    expect(await telemetry.points('mqtt.client.deliveries')).toEqual([
      { attributes: { ...process, 'mqtt.outcome': 'handled' }, value: 20 },
      { attributes: { ...process, 'mqtt.outcome': 'failed' }, value: 1 },
    ])
    expect(await telemetry.points('mqtt.client.publishes')).toEqual([
      { attributes: { 'messaging.system': 'mqtt', ...server, 'mqtt.outcome': 'acknowledged' }, value: 21 },
    ])
  })

  it('count a publish that was not sent by its reason, and not as sent', async () => {
    await client.close()
    await client.publish('rooms/7', 1)
    client.tryPublish('rooms/7', 1)
    expect(await telemetry.points('messaging.client.sent.messages')).toEqual([])
    expect(await telemetry.points('mqtt.client.publishes')).toMatchObject([
      { attributes: { 'mqtt.outcome': 'dropped', 'mqtt.reason': 'closed' }, value: 2 },
    ])
  })

  it('show the link, the slots and the connections, and count losses', async () => {
    await client.publish('rooms/7', Buffer.alloc(100_000), { qos: 1, codec: 'bytes' })
    await eventually(async () => (await telemetry.points('mqtt.client.link.age')).length > 0)
    const slots = await telemetry.points('mqtt.client.handler.slots')
    expect(slots.map(({ value }) => value)).toEqual([0, client.session.options.inbound.concurrency])
    expect(await telemetry.points('mqtt.client.connections')).toMatchObject([
      { attributes: { 'mqtt.connection.state': 'connected' }, value: 1 },
    ])
    for (const name of ['in_flight', 'queued', 'link.rate'])
      for (const { value } of await telemetry.points(`mqtt.client.${name}`)) expect(value).toBe(0)
    client.unwrap<{ stream: { destroy(): void } }>().stream.destroy()
    await eventually(async () => (await telemetry.points('mqtt.client.connection.losses')).length > 0)
    expect((await telemetry.points('mqtt.client.connection.losses'))[0]?.value).toBe(1)
  })
})

describe('the instrumentation', () => {
  it('has the version of the package', () => {
    const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    expect(manifest).toMatchObject({ version: telemetry.instrumentation.instrumentationVersion })
  })

  it('records nothing while it is disabled', async () => {
    telemetry.instrumentation.disable()
    await client.publish('rooms/7', 1, { qos: 1 })
    expect(telemetry.spans).toEqual([])
    expect(client.session.events.publish.hasListeners).toBe(false)
    expect(telemetry.instrumentation.getConfig()).toMatchObject({ enabled: false })
  })
})

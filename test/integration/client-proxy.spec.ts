import { Logger } from '@nestjs/common'
import { MqttRecordBuilder } from '@nestjs/microservices'
import { take } from 'rxjs'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { type MqttClientOptions, MqttClientProxy } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { heardFrom } from '../support/askers.js'
import { publishesOf, responseTo } from '../support/asking.js'
import { eventually } from '../support/eventually.js'

let client: MqttClientProxy
beforeAll(() => Logger.overrideLogger(false))
afterAll(() => Logger.overrideLogger(['log', 'warn', 'error']))
afterEach(() => client.close())

function proxyOn(options: MqttClientOptions = {}) {
  const peer = new ScriptedPeer()
  client = new MqttClientProxy({
    createStream: peer.createStream,
    protocolVersion: 5,
    keepalive: 0,
    drainTimeoutMs: 10,
    ...options,
  })
  return peer
}

it('connects once, with the first send(), and accepts any number of responses', async () => {
  const peer = proxyOn()
  const both = [1, 2].map(value => heardFrom(client.send('ask', value)))
  const connection = await peer.accept()
  await connection.grant()
  for (const _request of both) {
    const request = await connection.find('publish')
    expect({ ...request.properties?.userProperties }).toEqual({ stream: 'true', lease: '30' })
    connection.send(responseTo(request, { value: `to ${request.payload}`, status: 'next' }))
    connection.send(responseTo(request, { status: 'end' }))
  }
  expect(await Promise.all(both)).toEqual([
    { values: ['to 1'], error: undefined },
    { values: ['to 2'], error: undefined },
  ])
  expect(peer.dials).toBe(1)
})

it('cancels at the responder when the last subscriber unsubscribes', async () => {
  const peer = proxyOn()
  const heard = heardFrom(client.send('ask', 1).pipe(take(1)))
  const connection = await peer.accept()
  await connection.grant()
  const request = await connection.find('publish')
  const properties = { userProperties: { status: 'next' }, responseTopic: 'responders/7' }
  connection.send(responseTo(request, { value: 'first', properties }))
  expect(await heard).toEqual({ values: ['first'], error: undefined })
  const cancel = await connection.find('publish')
  expect(cancel).toMatchObject({ topic: 'responders/7', qos: 1 })
  expect({ ...cancel.properties?.userProperties }).toEqual({ status: 'cancel' })
  expect(cancel.properties?.correlationData).toEqual(request.properties?.correlationData)
})

it('sends nothing before the Observable is subscribed', async () => {
  const peer = proxyOn()
  client.send('ask', 1)
  const connecting = client.connect()
  const connection = await peer.accept()
  await connecting
  await client.close()
  await connection.closed()
  expect(publishesOf(connection)).toEqual([])
})

it('passes a failure other than an error response as an MqttError', async () => {
  const peer = proxyOn()
  const heard = heardFrom(client.send('ask', 1))
  const connection = await peer.accept()
  await connection.grant()
  await connection.find('publish')
  connection.cut()
  expect(await heard).toMatchObject({ values: [], error: { code: 'CONNECTION_LOST' } })
})

it('connects again after a failed attempt', async () => {
  const peer = proxyOn()
  peer.refuse(1)
  expect(await heardFrom(client.send('ask', 1))).toMatchObject({ error: { code: 'CONNECT_FAILED' } })
  const heard = heardFrom(client.send('ask', 2))
  const connection = await peer.accept()
  await connection.grant()
  connection.send(responseTo(await connection.find('publish'), { value: 'there' }))
  expect(await heard).toEqual({ values: ['there'], error: undefined })
})

it('logs once for many failed attempts that it connects again, and not that it has stopped', async () => {
  const lines: string[] = []
  const keep = (text: unknown): number => lines.push(String(text))
  Logger.overrideLogger({ log: keep, warn: keep, error: keep })
  const peer = proxyOn()
  peer.refuse(5)
  for (let attempt = 0; attempt < 5; attempt += 1)
    expect(await heardFrom(client.emit('event', 1))).toMatchObject({ error: { code: 'CONNECT_FAILED' } })
  Logger.overrideLogger(false)
  const line = expect.stringMatching(/^not connected: .*; the next send\(\) or emit\(\) connects again/)
  expect(lines).toEqual([line])
})

it('fails the Observable of an event that was not delivered', async () => {
  const peer = proxyOn({ reconnect: { delayMs: [60_000] } })
  const connecting = client.connect()
  const connection = await peer.accept()
  await connecting
  const states: string[] = []
  client.on('state', ({ status }) => states.push(status))
  connection.cut()
  await eventually(() => states.includes('waiting'))
  expect(await heardFrom(client.emit('event', 1))).toMatchObject({
    error: { code: 'NOT_SENT', message: 'the event on "event" was not delivered: dropped: offline' },
  })
})

it('completes emit() with eventQos 1 only after the acknowledgement', async () => {
  const peer = proxyOn({ eventQos: 1 })
  let isDone = false
  const heard = heardFrom(client.emit('event', 1)).finally(() => {
    isDone = true
  })
  const connection = await peer.accept()
  const event = await connection.find('publish')
  expect(event.qos).toBe(1)
  expect(isDone).toBe(false)
  connection.send({ cmd: 'puback', messageId: event.messageId ?? 0, reasonCode: 0 })
  expect(await heard).toMatchObject({ error: undefined })
})

it('keeps the QoS of a record, and of requests, with eventQos', async () => {
  const peer = proxyOn({ eventQos: 1 })
  const record = new MqttRecordBuilder(1).setQoS(0).build()
  const heard = heardFrom(client.emit('event', record))
  const connection = await peer.accept()
  expect(await connection.find('publish')).toMatchObject({ topic: 'event', qos: 0 })
  expect(await heard).toMatchObject({ error: undefined })
  const asked = heardFrom(client.send('ask', 1))
  await connection.grant()
  const request = await connection.find('publish')
  expect(request).toMatchObject({ topic: 'ask', qos: 0 })
  connection.send(responseTo(request, { value: 1 }))
  await asked
})

it('fails emit() with the outcome of an event that the broker refused, or that was lost', async () => {
  const peer = proxyOn({ eventQos: 1, reconnect: { delayMs: [60_000] } })
  const refused = heardFrom(client.emit('event', 1))
  const connection = await peer.accept()
  const first = await connection.find('publish')
  connection.send({ cmd: 'puback', messageId: first.messageId ?? 0, reasonCode: 0x87 })
  expect(await refused).toMatchObject({
    error: { code: 'NOT_SENT', reasonCode: 0x87, outcome: { status: 'refused', reasonCode: 0x87 } },
  })
  const lost = heardFrom(client.emit('event', 2))
  await connection.find('publish')
  await client.close()
  expect(await lost).toMatchObject({ error: { code: 'NOT_SENT', outcome: { status: 'lost' } } })
})

it('fails the Observable for an invalid topic', async () => {
  const peer = proxyOn()
  const connecting = client.connect()
  await peer.accept()
  await connecting
  for (const responses of [client.send('ask/#', 1), client.emit('ask/+', 1)])
    expect(await heardFrom(responses)).toMatchObject({ error: { code: 'INVALID_TOPIC_NAME' } })
})

it('refuses an unknown peer and an unknown option', () => {
  proxyOn()
  const wrong = [
    { peer: 'nats' },
    { url: 'mqtt://unused', eventQos: 3 },
    { url: 'mqtt://unused', speed: 1 },
    {},
  ]
  for (const options of wrong)
    expect(() => Reflect.construct(MqttClientProxy, [options])).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
})

it('opens a new connection after a close, and reports it to the same listeners', async () => {
  const peer = proxyOn()
  const states: string[] = []
  client.on('state', ({ status }) => states.push(status))
  for (let round = 0; round < 2; round += 1) {
    const connecting = client.connect()
    await peer.accept()
    await connecting
    await client.close()
  }
  expect(peer.dials).toBe(2)
  const life = ['connecting', 'connected', 'closing', 'closed']
  expect(states).toEqual([...life, ...life])
})

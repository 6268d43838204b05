import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Transport } from '@nestjs/microservices'
import { describe, expect, it, vi } from 'vitest'
import { MqttClient, MqttError } from '../../src/client/index.js'
import { defineTopic, MqttTransport, type StandardSchema } from '../../src/index.js'
import type { MqttService } from '../../src/mqtt.service.js'
import type { RequestOptions } from '../../src/options/client-options.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { droppedAs, finish, publisherOnPeer, Watched } from '../support/publisher-on-peer.js'
import { acks, json, qos1, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

holdClock()

/** A schema that does what a test wants. */
function schemaOf(validate: (value: unknown) => unknown): StandardSchema {
  // Seam: a schema of JavaScript may return anything.
  return { '~standard': { version: 1, vendor: 'test', validate: validate as never } }
}

/** An asynchronous schema that remembers weakly what it has returned. */
function remembering() {
  const outputs: WeakRef<object>[] = []
  const schema = schemaOf(async value => {
    const output = { value }
    outputs.push(new WeakRef(output))
    return { value: output }
  })
  return { outputs, schema }
}

const MESSAGES = 50
/** The last messages may still be referred to by the stack of a loop. */
const FEW = 5

async function leftOf(outputs: readonly WeakRef<object>[]): Promise<number> {
  await nextTurn()
  await nextTurn()
  collectGarbage()
  return outputs.filter(output => output.deref() !== undefined).length
}

describe('an asynchronous schema', () => {
  it('does not keep the payloads of a loop in memory', async () => {
    const parts = await subscriberOnPeer()
    const client = new MqttClient(parts.session)
    const { outputs, schema } = remembering()
    const messages = client.messages(defineTopic('a/b', { schema }))
    await parts.connection.grant()
    for (let id = 1; id <= MESSAGES; id += 1) {
      parts.connection.send(qos1('a/b', id))
      await messages.next()
    }
    expect(outputs).toHaveLength(MESSAGES)
    expect(await leftOf(outputs)).toBeLessThanOrEqual(FEW)
    await finish(parts)
  })

  it('does not keep the payloads of batches in memory', async () => {
    const parts = await subscriberOnPeer()
    const transport = new MqttTransport(parts.session, parts.session.options, Transport.MQTT)
    const { outputs, schema } = remembering()
    const handled = vi.fn()
    const batch = { maxMessages: 1, maxWaitMs: 500 }
    transport.addHandler('a/+', async () => handled(), true, { batch, schema })
    parts.session.subscriptions.flush()
    await parts.connection.grant()
    for (let id = 1; id <= MESSAGES; id += 1) {
      parts.connection.send(qos1('a/b', id))
      await settle(parts.mqtt)
    }
    expect(handled).toHaveBeenCalledTimes(MESSAGES)
    expect(await leftOf(outputs)).toBeLessThanOrEqual(FEW)
    await finish(parts)
  })

  it('that never ends for one message does not stop a loop over messages() for more than 10 s', async () => {
    const parts = await subscriberOnPeer()
    const client = new MqttClient(parts.session)
    const schema = schemaOf(value => (value === 1 ? new Promise(() => {}) : Promise.resolve({ value })))
    const messages = client.messages(defineTopic('a/b', { schema, qos: 1 }))
    await parts.connection.grant()
    for (const id of [1, 2]) parts.connection.send(qos1('a/b', id))
    await settle(parts.mqtt)
    const next = messages.next()
    vi.advanceTimersByTime(9_000)
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([])
    vi.advanceTimersByTime(1_000)
    await settle(parts.mqtt)
    expect((await next).value).toMatchObject({ payload: 2 })
    void messages.next()
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, failed: 1, running: 0 })
    await finish(parts)
  })

  it('that never ends for one message does not stop the batches of a handler with timeoutMs', async () => {
    const parts = await subscriberOnPeer()
    const transport = new MqttTransport(parts.session, parts.session.options, Transport.MQTT)
    const began: unknown[] = []
    transport.addHandler('a/+', async payloads => void began.push(payloads), true, {
      batch: { maxMessages: 3, maxWaitMs: 500 },
      timeoutMs: 1_000,
      schema: schemaOf(value => (value === 1 ? new Promise(() => {}) : Promise.resolve({ value }))),
    })
    parts.session.subscriptions.flush()
    await parts.connection.grant()
    for (const id of [1, 2, 3, 4]) parts.connection.send(qos1('a/b', id))
    await settle(parts.mqtt)
    vi.advanceTimersByTime(1_000)
    await settle(parts.mqtt)
    expect(began).toEqual([[2, 3, 4]])
    expect(acks(parts.connection)).toEqual([1, 2, 3, 4])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 4, handled: 4, failed: 1, running: 0 })
    await finish(parts)
  })

  it.each([
    ['nothing', undefined],
    ['an empty object', {}],
    ['null', null],
    ['text', 'garbage'],
    ['issues that are no list', { issues: 'garbage' }],
    ['an issue that is null', { issues: [null] }],
    ['an issue that cannot be converted to text', { issues: [{ message: Object.create(null) }] }],
    ['a path that cannot be converted to text', { issues: [{ message: 'no', path: [Object.create(null)] }] }],
  ])('that resolves with %s fails the publish with PAYLOAD_INVALID', async (_what, result) => {
    const parts = await subscriberOnPeer()
    const client = new MqttClient(parts.session)
    for (const schema of [schemaOf(async () => result), schemaOf(() => result)]) {
      const failure: unknown = await client
        .publish(defineTopic('a/b', { schema }).at(), 1)
        .catch((error: unknown) => error)
      expect(failure).toBeInstanceOf(MqttError)
      expect(failure).toMatchObject({ code: 'PAYLOAD_INVALID' })
    }
    expect(client.stats().outbound.attempted).toBe(0)
    await finish(parts)
  })
})

describe('an asynchronous schema that never ends', () => {
  const endless = schemaOf(() => new Promise(() => {}))
  const address = defineTopic('a/b', { schema: endless }).at()

  it.each([
    ['timeoutMs', { timeoutMs: 500 }, 500],
    ['10 s without timeoutMs', {}, 10_000],
  ])('drops the publish as expired after %s', async (_what, options, limitMs) => {
    const parts = await publisherOnPeer()
    const publish = new Watched(parts.mqtt.publish(address, 1, options))
    vi.advanceTimersByTime(limitMs - 1)
    await quiet()
    expect(publish.outcome).toBeUndefined()
    vi.advanceTimersByTime(1)
    await quiet()
    expect(publish).toMatchObject({ outcome: droppedAs('expired'), settlements: 1 })
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 1, dropped: { expired: 1 } })
    await finish(parts)
  })

  it('drops the publish as aborted with its signal, also with one that was aborted before', async () => {
    const parts = await publisherOnPeer()
    const controller = new AbortController()
    const publish = parts.mqtt.publish(address, 1, { signal: controller.signal })
    controller.abort()
    expect(await publish).toEqual(droppedAs('aborted'))
    expect(await parts.mqtt.publish(address, 1, { signal: controller.signal })).toEqual(droppedAs('aborted'))
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 2, dropped: { aborted: 2 } })
    await finish(parts)
  })

  it('drops the publish as closed when the client closes, and after that', async () => {
    const parts = await publisherOnPeer()
    const publish = new Watched(parts.mqtt.publish(address, 1))
    await finish(parts)
    expect(publish).toMatchObject({ outcome: droppedAs('closed'), settlements: 1 })
    expect(await parts.mqtt.publish(address, 1)).toEqual(droppedAs('closed'))
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 2, dropped: { closed: 2 } })
  })

  it('does not hide an invalid option', async () => {
    const parts = await publisherOnPeer()
    await expect(parts.mqtt.publish(address, 1, { timeoutMs: 0 })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    await expect(parts.mqtt.request(address, 1, { timeoutMs: 0 })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    await finish(parts)
  })

  it.each([
    ['request', (mqtt: MqttService, options: RequestOptions) => mqtt.request(address, 1, options)],
    [
      'requestStream',
      (mqtt: MqttService, options: RequestOptions) => mqtt.requestStream(address, 1, options).next(),
    ],
  ])('fails %s with TIMEOUT, ABORTED or CONNECTION_CLOSED', async (_what, start) => {
    const parts = await publisherOnPeer({ requests: { timeoutMs: 2_000 } })
    const controller = new AbortController()
    const codes = ['TIMEOUT', 'TIMEOUT', 'ABORTED', 'CONNECTION_CLOSED']
    const options = [{ timeoutMs: 500 }, {}, { signal: controller.signal }, { timeoutMs: 60_000 }]
    const settled: (string | undefined)[] = []
    options.forEach((one, index) => {
      start(parts.mqtt, one).catch((error: MqttError) => {
        settled[index] = error.code
      })
    })
    vi.advanceTimersByTime(500)
    await quiet()
    expect(settled).toEqual(codes.slice(0, 1))
    controller.abort()
    vi.advanceTimersByTime(1_500)
    await quiet()
    expect(settled).toEqual(codes.slice(0, 3))
    await finish(parts)
    expect(settled).toEqual(codes)
  })

  it('for a response fails the request with TIMEOUT', async () => {
    const parts = await subscriberOnPeer()
    const contract = defineTopic('a/b', { response: endless })
    const request = parts.mqtt.request(contract.at(), 1, { timeoutMs: 500 })
    const failed = expect(request).rejects.toMatchObject({ code: 'TIMEOUT' })
    await parts.connection.grant()
    const { properties } = await parts.connection.expect('publish')
    const { responseTopic = '', correlationData = Buffer.alloc(0) } = properties ?? {}
    parts.connection.send(json(responseTopic, 1, { properties: { correlationData } }))
    await settle(parts.mqtt)
    expect(parts.mqtt.stats().requests.open).toBe(0)
    vi.advanceTimersByTime(500)
    await failed
    await finish(parts)
  })

  it('for a response of a stream fails its loop with TIMEOUT, and cancels the stream', async () => {
    const parts = await subscriberOnPeer()
    const contract = defineTopic('a/b', { response: endless })
    const failed = expect(
      parts.mqtt.requestStream(contract.at(), 1, { timeoutMs: 500 }).next(),
    ).rejects.toMatchObject({ code: 'TIMEOUT' })
    await parts.connection.grant()
    const { properties } = await parts.connection.expect('publish')
    const { responseTopic = '', correlationData = Buffer.alloc(0) } = properties ?? {}
    const part = { correlationData, responseTopic: 'cancel/here', userProperties: { status: 'next' } }
    parts.connection.send(json(responseTopic, 1, { properties: part }))
    await settle(parts.mqtt)
    expect(parts.mqtt.stats().requests.open).toBe(1)
    vi.advanceTimersByTime(500)
    await failed
    const cancel = await parts.connection.expect('publish')
    expect(cancel.properties?.userProperties).toMatchObject({ status: 'cancel' })
    expect(parts.mqtt.stats().requests.open).toBe(0)
    await finish(parts)
  })
})

it('a slow asynchronous schema takes its time from timeoutMs of the publish', async () => {
  const parts = await publisherOnPeer()
  let finishValidation: (result: unknown) => void = () => {}
  const schema = schemaOf(() => new Promise(resolve => (finishValidation = resolve)))
  const publish = new Watched(
    parts.mqtt.publish(defineTopic('a/b', { schema, qos: 1 }).at(), 1, { timeoutMs: 500 }),
  )
  vi.advanceTimersByTime(400)
  finishValidation({ value: 1 })
  await parts.connection.expect('publish')
  vi.advanceTimersByTime(100)
  await quiet()
  expect(publish.outcome?.status).toBe('lost')
  await finish(parts)
})

describe('reasons of invalid payloads', () => {
  it('are short, however long the keys of the payload are', async () => {
    const parts = await subscriberOnPeer()
    const client = new MqttClient(parts.session)
    const issue = { message: 'm'.repeat(100_000), path: ['k'.repeat(100_000), 'n'] }
    const schema = schemaOf(() => ({ issues: Array.from({ length: 1_000 }, () => issue) }))
    const failure: unknown = await client
      .publish(defineTopic('a/b', { schema }).at(), 1)
      .catch((error: unknown) => error)
    if (!(failure instanceof MqttError)) throw new Error('expected an MqttError')
    expect(failure.issues).toHaveLength(20)
    expect(failure.message.length).toBeLessThan(10_000)
    expect(JSON.stringify(failure.issues).length).toBeLessThan(10_000)
    await finish(parts)
  })

  it('of many topics take one line of the log, and the rest are counted', async () => {
    const parts = await subscriberOnPeer()
    const schema = schemaOf(() => ({ issues: [{ message: 'no' }] }))
    parts.mqtt.subscribe('a/+', () => {}, { schema })
    await parts.connection.grant()
    for (let id = 1; id <= MESSAGES; id += 1) parts.connection.send(qos1(`a/${id}`, id))
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toHaveLength(MESSAGES)
    expect(parts.log.visible.filter(line => line.includes('is not valid'))).toEqual([
      expect.stringContaining('the payload on "a/1" is not valid: no'),
    ])
    await finish(parts)
    expect(parts.log.visible.join('\n')).toContain(
      `a payload or a response is not valid: ${MESSAGES - 1} more`,
    )
  })
})

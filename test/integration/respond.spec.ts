import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient, type MqttConnectOptions, type PublishProperties } from '../../src/client/index.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { RecordingLog } from '../support/recording-log.js'
import { json } from '../support/subscriber-on-peer.js'

const correlationData = Buffer.from([1, 2, 3])
const TO = 'responses/1'

let log: RecordingLog
let client: MqttClient
let connection: PeerConnection

async function start(protocolVersion: 4 | 5, options: Partial<MqttConnectOptions> = {}): Promise<void> {
  const peer = new ScriptedPeer()
  log = new RecordingLog()
  client = new MqttClient({
    createStream: peer.createStream,
    protocolVersion,
    keepalive: 0,
    drainTimeoutMs: 0,
    logger: log,
    ...options,
  })
  const started = client.start()
  connection = await peer.accept()
  await started
}
afterEach(() => client.close())

/** A request of MQTT 5. */
const request = (topic: string, value: unknown = 1, properties: PublishProperties = {}) =>
  connection.send(json(topic, value, { properties: { responseTopic: TO, correlationData, ...properties } }))
const requestStream = (topic: string) => request(topic, 1, { userProperties: { stream: 'true' } })
/** A request in Nest's envelope. */
const requestInEnvelope = (topic: string, data: unknown = 1, id = 'a') =>
  connection.send(json(topic, { pattern: topic, data, id }))

/** The responses that the peer received so far: topic, payload and `status`. */
const responses = () =>
  publishesOf(connection).map(({ topic, payload, properties }) => {
    const { status } = { ...properties?.userProperties }
    const value: unknown = payload.length === 0 ? undefined : JSON.parse(payload.toString())
    return status === undefined ? [topic, value] : [topic, value, status]
  })
const received = (count: number) => eventually(() => responses().length === count)

describe('a device responds on MQTT 5', () => {
  beforeEach(() => start(5))

  it('subscribes at QoS 0, and passes payload, params and properties of the request', async () => {
    const seen: unknown[] = []
    client.respond<{ after: number }>('devices/+id/reboot', ({ topic, payload, params, properties }) => {
      seen.push([topic, payload.after, params, properties.responseTopic])
    })
    expect(await connection.grant()).toMatchObject({ subscriptions: [{ topic: 'devices/+/reboot', qos: 0 }] })
    request('devices/7/reboot', { after: 5 })
    await received(1)
    expect(seen).toEqual([['devices/7/reboot', 5, { id: '7' }, TO]])
  })

  it('sends the value to the Response Topic, with the Correlation Data and a Content Type', async () => {
    client.respond('status', ({ payload }) => ({ asked: payload }))
    await connection.grant()
    request('status', 7)
    const response = await connection.find('publish')
    expect(response).toMatchObject({ topic: TO, payload: Buffer.from('{"asked":7}'), qos: 0, retain: false })
    expect(response.properties).toEqual({ correlationData, contentType: 'application/json' })
  })

  it('sends the value of a promise', async () => {
    client.respond('status', async () => 'late')
    await connection.grant()
    request('status')
    await received(1)
    expect(responses()).toEqual([[TO, 'late']])
  })

  it('sends every value of an async iterable as a stream, and only the last one for a single response', async () => {
    client.respond('count', async function* () {
      yield* [1, 2, 3]
    })
    await connection.grant()
    request('count')
    await connection.find('publish')
    requestStream('count')
    // The topic on which the stream can be cancelled.
    await connection.grant()
    await received(5)
    const stream = [
      [TO, 1, 'next'],
      [TO, 2, 'next'],
      [TO, 3, 'next'],
      [TO, undefined, 'end'],
    ]
    expect(responses()).toEqual([[TO, 3], ...stream])
  })

  it('stops a stream that the requester cancels, and aborts the signal of its handler', async () => {
    const gate = new Gate()
    const aborted: boolean[] = []
    client.respond('count', async function* (_request, { signal }) {
      yield 1
      await gate.pass()
      aborted.push(signal.aborted)
      yield 2
    })
    await connection.grant()
    requestStream('count')
    const { subscriptions } = await connection.grant()
    const { properties } = await connection.find('publish')
    const cancel = { responseTopic: TO, correlationData, userProperties: { status: 'cancel' } }
    expect(properties?.responseTopic).toBe(subscriptions[0]?.topic)
    connection.send(json(properties?.responseTopic ?? '', '', { properties: cancel }))
    await eventually(() => client.stats().requests.openStreams === 0)
    gate.open()
    await eventually(() => aborted.length === 1)
    expect({ aborted, responses: responses() }).toEqual({ aborted: [true], responses: [[TO, 1, 'next']] })
  })

  it('sends the message and the code of an error, and logs it', async () => {
    client.respond('fails', () => {
      throw Object.assign(new Error('the valve is stuck'), { code: 'EVALVE' })
    })
    await connection.grant()
    request('fails')
    await received(1)
    const error = { status: 'error', message: 'the valve is stuck', code: 'EVALVE' }
    expect(responses()).toEqual([[TO, error, 'error']])
    expect(log.lines.map(({ text }) => text).join()).toContain('the valve is stuck')
  })

  it('sends the issues of a failed validation without the value', async () => {
    client.respond('fails', () => {
      // As in the libraries: the value is in the message of the error and in further fields of its issue.
      const issue = { message: 'too high', path: ['level'], input: 'hunter2', received: '"hunter2"' }
      throw Object.assign(new Error('[{"input":"hunter2"}]'), { issues: [issue] })
    })
    await connection.grant()
    request('fails')
    await received(1)
    const error = {
      status: 'error',
      message: 'Validation failed: level: too high',
      issues: ['level: too high'],
    }
    expect(responses()).toEqual([[TO, error, 'error']])
  })

  it('sends an error for a payload that cannot be decoded, and for a handler that takes too long', async () => {
    client.respond('status', () => new Promise(() => {}), { timeoutMs: 1 })
    await connection.grant()
    connection.send({ ...json('status', 1, { properties: { responseTopic: TO } }), payload: '{' })
    await received(1)
    request('status')
    await received(2)
    expect(responses()).toMatchObject([
      [TO, { message: expect.stringContaining('could not be decoded') }, 'error'],
      [TO, { message: 'the handler of "status" did not finish within 1 ms' }, 'error'],
    ])
  })

  it('runs for a message that expects no response, and sends nothing', async () => {
    const seen: unknown[] = []
    client.respond('status', ({ payload }) => seen.push(payload))
    await connection.grant()
    connection.send(json('status', 'just so'))
    await eventually(() => client.stats().inbound.handled === 1)
    expect({ seen, responses: responses() }).toEqual({ seen: ['just so'], responses: [] })
  })

  it('sends nothing to a Response Topic of the broker, and counts it', async () => {
    client.respond('status', () => 1)
    await connection.grant()
    request('status', 1, { responseTopic: '$SYS/broker' })
    await eventually(() => client.stats().inbound.handled === 1)
    expect(responses()).toEqual([])
    expect(client.stats().requests.refusedResponseTopics).toBe(1)
  })

  it('handles requests concurrently, up to its own concurrency', async () => {
    const gate = new Gate()
    let running = 0
    let most = 0
    const work = async (): Promise<void> => {
      running += 1
      most = Math.max(most, running)
      await gate.pass()
      running -= 1
    }
    client.respond('work', work, { concurrency: 2 })
    await connection.grant()
    for (const value of [1, 2, 3]) request('work', value)
    await eventually(() => client.stats().inbound.received === 3 && running === 2)
    gate.open()
    await received(3)
    expect(most).toBe(2)
  })

  it('refuses an invalid option', () => {
    const respond = () => client.respond('status', () => 1, { concurrency: 0 })
    expect(respond).toThrow('"concurrency" must be an integer from 1 to 65535, but is 0')
  })
})

describe.each([4, 5] as const)('a device responds in the envelope of Nest, protocol version %i', version => {
  beforeEach(() => start(version))

  it('with a value', async () => {
    client.respond('status', ({ payload }) => ({ asked: payload }))
    await connection.grant()
    requestInEnvelope('status', 7)
    await received(1)
    const response = { asked: 7 }
    expect(responses()).toEqual([['status/reply', { response, isDisposed: true, id: 'a' }]])
  })

  it('with a stream', async () => {
    client.respond('count', async function* () {
      yield* [1, 2]
    })
    await connection.grant()
    requestInEnvelope('count')
    await received(3)
    expect(responses()).toEqual([
      ['count/reply', { response: 1, id: 'a' }],
      ['count/reply', { response: 2, id: 'a' }],
      ['count/reply', { isDisposed: true, id: 'a' }],
    ])
  })

  it('with an error', async () => {
    client.respond('fails', () => Promise.reject(new Error('the valve is stuck')))
    await connection.grant()
    requestInEnvelope('fails')
    await received(1)
    const err = { status: 'error', message: 'the valve is stuck' }
    expect(responses()).toEqual([['fails/reply', { err, isDisposed: true, id: 'a' }]])
  })

  it('with text for a handler whose codec is text', async () => {
    client.respond('status', ({ payload }) => `got ${payload}`, { codec: 'text' })
    await connection.grant()
    requestInEnvelope('status', 'on')
    await received(1)
    expect(responses()).toEqual([['status/reply', { response: 'got on', isDisposed: true, id: 'a' }]])
  })
})

describe('a handler of requests that is removed', () => {
  beforeEach(() => start(5))

  it('receives nothing more, and its filter is unsubscribed', async () => {
    const { unsubscribe, whenGranted } = client.respond('status', () => 1)
    await connection.grant()
    await whenGranted()
    const removed = unsubscribe()
    const { messageId = 0, unsubscriptions } = await connection.find('unsubscribe')
    request('status')
    connection.send({ cmd: 'unsuback', messageId, granted: [0] })
    await removed
    expect({ unsubscriptions, responses: responses() }).toEqual({
      unsubscriptions: ['status'],
      responses: [],
    })
  })

  it('is removed at the end of its block by `await using`, which does not wait for the broker', async () => {
    {
      await using subscription = client.respond('status', () => 1)
      await connection.grant()
      await subscription.whenGranted()
    }
    const { unsubscriptions } = await connection.find('unsubscribe')
    expect(unsubscriptions).toEqual(['status'])
  })
})

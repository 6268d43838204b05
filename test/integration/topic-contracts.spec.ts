import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  deadLetter,
  defineTopic,
  MqttClient,
  MqttError,
  type StandardSchema,
} from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { RecordingLog } from '../support/recording-log.js'

const Reading = z.object({
  celsius: z.number().max(100),
  at: z.iso.datetime().transform(text => new Date(text)),
})
const telemetry = defineTopic('devices/+deviceId/telemetry', { schema: Reading, qos: 1, retain: true })
const AT = '2026-01-02T03:04:05.000Z'
/** Refuses odd numbers, and takes longer for smaller ones. */
const slowly = defineTopic('slowly', {
  qos: 1,
  schema: z.number().refine(async value => {
    for (let turn = value; turn < 10; turn += 1) await Promise.resolve()
    return value % 2 === 0
  }, 'must be even'),
})
const square = defineTopic('square/+name', { schema: z.number(), response: z.number().max(99) })
/** A value that is not a variable. */
const LITERAL = `$\{x}`
const live = defineTopic('live', { schema: z.number() })

let broker: EmbeddedBroker
let log: RecordingLog
let client: MqttClient

beforeEach(async () => {
  broker = await EmbeddedBroker.start()
  log = new RecordingLog()
  client = await MqttClient.connect({ url: broker.url, logger: log })
})

afterEach(async () => {
  await client.close()
  await broker.stop()
})

async function failureOf(work: () => unknown): Promise<MqttError> {
  try {
    await work()
  } catch (error) {
    if (error instanceof MqttError) return error
  }
  throw new Error('expected an MqttError')
}

/** Wrong payloads that only JavaScript can pass. */
const wrong = (value: unknown) => value as never

describe('a publish on a topic of a contract', () => {
  it('has the policy of the contract, and sends what the caller passed', async () => {
    const outcome = await client.publish(telemetry.at({ deviceId: '7' }), { celsius: 21, at: AT })
    expect(outcome.status).toBe('acknowledged')
    expect(broker.published).toMatchObject([{ topic: 'devices/7/telemetry', qos: 1, retain: true }])
    expect(JSON.parse(String(broker.published[0]?.payload))).toEqual({ celsius: 21, at: AT })
  })

  it('has the options of the call for those that the call sets', async () => {
    const address = telemetry.at({ deviceId: '7' })
    const payload = { celsius: 21, at: AT }
    expect(await client.publish(address, payload, { qos: 0 })).toEqual({ status: 'sent' })
    await client.publish(address, payload, { retain: false })
    await client.publish(address, payload, wrong({ qos: undefined }))
    await eventually(() => broker.published.length === 3)
    expect(broker.published.map(({ qos, retain }) => ({ qos, retain }))).toEqual([
      { qos: 0, retain: true },
      { qos: 1, retain: false },
      { qos: 1, retain: true },
    ])
  })

  it('rejects a payload that is not valid, with its path and without its value, and sends nothing', async () => {
    const address = telemetry.at({ deviceId: '7' })
    const error = await failureOf(() => client.publish(address, wrong({ celsius: 'secret', at: AT })))
    expect(error).toMatchObject({
      code: 'PAYLOAD_INVALID',
      issues: [{ path: 'celsius', message: 'Invalid input: expected number' }],
    })
    expect(error.message).toBe(
      'the payload for "devices/7/telemetry" is not valid: celsius: Invalid input: expected number',
    )
    expect(JSON.stringify(error)).not.toContain('secret')
    expect(client.stats().outbound.attempted).toBe(0)
  })

  it('waits for a schema that validates asynchronously', async () => {
    expect((await client.publish(slowly.at(), 2)).status).toBe('acknowledged')
    const error = await failureOf(() => client.publish(slowly.at(), 3))
    expect(error.issues).toEqual([{ path: '', message: 'must be even' }])
    expect(broker.published).toHaveLength(1)
  })

  it('is written in the order of the calls if the schema validates synchronously', async () => {
    const values = Array.from({ length: 50 }, (_, index) => index)
    await Promise.all(values.map(value => client.publish(live.at(), value, { qos: 1 })))
    expect(broker.published.map(({ payload }) => Number(payload))).toEqual(values)
  })

  it('refuses what is neither a topic nor an address', async () => {
    for (const topic of [null, undefined, 7, {}, live]) {
      const error = await failureOf(() => client.publish(wrong(topic), wrong(1)))
      expect(error.code).toBe('INVALID_TOPIC_NAME')
    }
  })
})

describe('tryPublish on a topic of a contract', () => {
  it('accepts a valid payload, and throws for another one', async () => {
    expect(client.tryPublish(live.at(), 1)).toEqual({ status: 'accepted' })
    const error = await failureOf(() => client.tryPublish(live.at(), wrong('1')))
    expect(error.code).toBe('PAYLOAD_INVALID')
    expect(client.stats().outbound.attempted).toBe(1)
  })

  it('refuses a schema that validates asynchronously, and a contract with QoS 1', async () => {
    const waiting = defineTopic('waiting', { schema: z.number().refine(async () => true) })
    const error = await failureOf(() => client.tryPublish(waiting.at(), 1))
    expect(error).toMatchObject({
      code: 'INVALID_OPTION',
      message: 'the schema of the payload for "waiting" validates asynchronously; use publish',
    })
    const refused = await failureOf(() =>
      client.tryPublish(telemetry.at({ deviceId: '7' }), { celsius: 21, at: AT }),
    )
    expect(refused.message).toBe(
      'tryPublish sends at QoS 0, but the contract of "devices/+deviceId/telemetry" has QoS 1; use publish',
    )
    expect(client.stats().outbound.attempted).toBe(0)
  })

  it('drops instead of waiting if the contract says that publishes wait', () => {
    const patient = defineTopic('patient', { whenBlocked: 'wait' })
    expect(client.tryPublish(patient.at(), 1)).toEqual({ status: 'accepted' })
  })
})

describe('a handler of a contract', () => {
  it('receives the output of the schema and the parameters', async () => {
    const received: [string, Date][] = []
    await client
      .subscribe(telemetry, ({ payload, params }) => received.push([params.deviceId, payload.at]))
      .whenGranted()
    await client.publish(telemetry.at({ deviceId: '7' }), { celsius: 21, at: AT })
    await eventually(() => received.length === 1)
    expect(received).toEqual([['7', new Date(AT)]])
  })

  it('does not run for a payload that is not valid, which is not retried and becomes a dead letter', async () => {
    let runs = 0
    const letters: unknown[] = []
    const options = { retries: { attempts: 3, delayMs: [0] }, onFailure: deadLetter('dead') }
    const handler = client.subscribe(telemetry, () => (runs += 1), options)
    await handler.whenGranted()
    await client.subscribe('dead', ({ payload }) => letters.push(payload)).whenGranted()
    await broker.deliver('devices/7/telemetry', { celsius: 'secret', at: 'secret' })
    await eventually(() => letters.length === 1)
    const reason =
      'the payload on "devices/7/telemetry" is not valid: celsius: Invalid input: expected number; at: Invalid ISO datetime'
    expect(letters).toMatchObject([{ topic: 'devices/7/telemetry', reason, attempts: 1 }])
    expect(runs).toBe(0)
    expect(log.visible.join('\n')).toContain(reason)
    expect(log.visible.join('\n')).not.toContain('secret')
    expect(client.stats().inbound.deadLettered).toBe(1)
  })

  it('shows values in the reason only if the contract asks for it', async () => {
    const open = defineTopic('open', { schema: z.object({ celsius: z.number() }), valuesInReasons: true })
    await client.subscribe(open, () => {}).whenGranted()
    await broker.deliver('open', { celsius: 'hot' })
    const reason = "celsius: Invalid input: expected number (received 'hot')"
    await eventually(() => log.visible.some(line => line.includes(reason)))
    const error = await failureOf(() => client.publish(open.at(), wrong({ celsius: 'hot' })))
    expect(error.message).toContain(reason)
  })

  it('is retried when the schema itself fails, and what it threw is not shown', async () => {
    let runs = 0
    const validate = (value: unknown) => {
      runs += 1
      if (runs < 3) throw new TypeError(`secret ${String(value)}`)
      return { value: Number(value) }
    }
    const schema: StandardSchema<number> = { '~standard': { version: 1, vendor: 'own', validate } }
    const contract = defineTopic('broken', { schema, qos: 1 })
    const received: number[] = []
    const retries = { attempts: 1, delayMs: [0] }
    await client.subscribe(contract, ({ payload }) => received.push(payload), { retries }).whenGranted()
    await broker.deliver('broken', 1)
    expect({ runs, received }).toEqual({ runs: 2, received: [] })
    const line = 'the payload on "broken" could not be validated: the schema failed (TypeError)'
    await eventually(() => log.visible.some(text => text.includes(line)))
    expect(log.visible.join('\n')).not.toContain('secret')
    await broker.deliver('broken', 2)
    expect(received).toEqual([2])
  })

  it('has the QoS and the codec of the contract, unless its own options name others', async () => {
    const received: unknown[] = []
    const text = defineTopic('text', { codec: 'text', qos: 0 })
    const take = ({ payload, qos }: { payload: unknown; qos: number }) => received.push([payload, qos])
    await client.subscribe(text, take).whenGranted()
    await client.publish(text.at(), 'hello', { qos: 1 })
    await eventually(() => received.length === 1)
    await client.subscribe(text, take, { codec: 'bytes' }).whenGranted()
    await client.publish(text.at(), 'again')
    await eventually(() => received.length === 3)
    expect(received).toEqual([
      ['hello', 0],
      ['again', 0],
      [Buffer.from('again'), 0],
    ])
  })
})

describe('a handler of one topic of a contract', () => {
  it('receives only what is sent to this topic, with the parameters of the contract', async () => {
    const taken: unknown[] = []
    const address = telemetry.at({ deviceId: '7' })
    await client
      .subscribe(address, ({ payload, params }) => void taken.push([params, payload.celsius]))
      .whenGranted()
    await client.publish(telemetry.at({ deviceId: '8' }), { celsius: 1, at: AT })
    await client.publish(address, { celsius: 2, at: AT })
    await client.publish(address.topic, { celsius: 101, at: AT }, { qos: 1 })
    await eventually(() => log.lines.some(({ text }) => text.includes('celsius: Too big')))
    expect(taken).toEqual([[{ deviceId: '7' }, 2]])
  })

  it('takes the topic literally, even if it looks like a variable', async () => {
    const values: unknown[] = []
    const address = square.at({ name: LITERAL })
    await client.subscribe(address, ({ params }) => void values.push(params.name)).whenGranted()
    await client.publish(address, 3, { qos: 1 })
    await eventually(() => values.length === 1)
    expect(values).toEqual([LITERAL])
  })

  it('leaves requests to other topics of the contract to others', async () => {
    const responders = ['a', 'b'].map((name, index) =>
      client.respond(square.at({ name }), ({ payload }) => payload + index),
    )
    await Promise.all(responders.map(responder => responder.whenGranted()))
    expect(await client.request(square.at({ name: 'b' }), 4)).toBe(5)
    expect(await client.request(square.at({ name: 'a' }), 4)).toBe(4)
  })

  it('is available to messages() and retained()', async () => {
    const address = telemetry.at({ deviceId: '7' })
    await client.publish(address, { celsius: 5, at: AT })
    await client.publish(telemetry.at({ deviceId: '8' }), { celsius: 6, at: AT })
    const cache = client.retained(address)
    await cache.whenComplete()
    expect([...cache.entries()]).toEqual([[address.topic, { celsius: 5, at: new Date(AT) }]])
    const { value } = await client.messages(address).next()
    expect(value).toMatchObject({ params: { deviceId: '7' }, payload: { celsius: 5 } })
  })
})

describe('messages() of a contract', () => {
  it('has the valid messages in the order of arrival, even if the validation takes time', async () => {
    const messages = client.messages(slowly)
    await eventually(() => client.stats().subscriptions.granted === 1)
    for (const value of [0, 4, 3, 2, 8]) await client.publish('slowly', value, { qos: 1 })
    const seen: number[] = []
    for await (const { payload } of messages) {
      seen.push(payload)
      if (seen.length === 4) break
    }
    expect(seen).toEqual([0, 4, 2, 8])
    expect(log.visible.join('\n')).toContain('the payload on "slowly" is not valid: must be even')
  })
})

describe('a request on a topic of a contract', () => {
  it('resolves with the output of the response schema', async () => {
    await client.respond(square, ({ payload }) => payload * payload).whenGranted()
    expect(await client.request(square.at({ name: 'a' }), 3)).toBe(9)
  })

  it('is not sent if its payload is not valid', async () => {
    const error = await failureOf(() => client.request(square.at({ name: 'a' }), wrong('3')))
    expect(error).toMatchObject({
      code: 'PAYLOAD_INVALID',
      issues: [{ path: '', message: 'Invalid input: expected number' }],
    })
    expect(client.stats().outbound.attempted).toBe(0)
  })

  it('fails with the reason if its payload is not valid for the responder', async () => {
    await client.respond(square, ({ payload }) => payload).whenGranted()
    const error = await failureOf(() => client.request('square/a', 'three'))
    expect(error).toMatchObject({
      code: 'REQUEST_FAILED',
      message: 'Validation failed: Invalid input: expected number',
      response: { status: 'error', issues: ['Invalid input: expected number'] },
    })
  })

  it('fails with the reason if the responder returns an invalid response, which is not sent', async () => {
    await client.respond(square, ({ payload }) => payload * payload).whenGranted()
    const error = await failureOf(() => client.request(square.at({ name: 'a' }), 10))
    expect(error).toMatchObject({
      code: 'REQUEST_FAILED',
      message: 'Validation failed: Too big: expected number to be <=99',
    })
    await eventually(() => log.visible.some(line => line.includes('Too big')))
  })

  it('rejects a response that is not valid', async () => {
    await client.respond('square/+name', () => 'nine').whenGranted()
    const error = await failureOf(() => client.request(square.at({ name: 'a' }), 3))
    expect(error).toMatchObject({
      code: 'PAYLOAD_INVALID',
      message: 'the response on "square/a" is not valid: Invalid input: expected number',
    })
  })
})

describe('requestStream on a topic of a contract', () => {
  async function collect(responses: AsyncIterable<number>): Promise<number[]> {
    const seen: number[] = []
    try {
      for await (const value of responses) seen.push(value)
    } catch (error) {
      expect(error).toMatchObject({ code: 'PAYLOAD_INVALID' })
      seen.push(Number.NaN)
    }
    return seen
  }

  it('has the output of the response schema for every response', async () => {
    const count = async function* ({ payload }: { payload: number }) {
      for (let value = 1; value <= payload; value += 1) yield value
    }
    await client.respond(square, count).whenGranted()
    expect(await collect(client.requestStream(square.at({ name: 'a' }), 3))).toEqual([1, 2, 3])
  })

  it('ends with an error at the first response that is not valid, and cancels the stream', async () => {
    const responder = await MqttClient.connect({ url: broker.url })
    await responder
      .respond('square/+name', async function* () {
        yield 1
        yield 'two'
        await new Promise(() => {})
      })
      .whenGranted()
    expect(await collect(client.requestStream(square.at({ name: 'a' }), 3))).toEqual([1, Number.NaN])
    expect(client.stats().requests.open).toBe(0)
    await responder.close()
  })

  it('throws at once for a payload that is not valid, and from the loop if the schema is asynchronous', async () => {
    const error = await failureOf(() => client.requestStream(square.at({ name: 'a' }), wrong('3')))
    expect(error.code).toBe('PAYLOAD_INVALID')
    const responses = client.requestStream(slowly.at(), 3)
    expect(await failureOf(() => responses.next())).toMatchObject({ code: 'PAYLOAD_INVALID' })
    expect(client.stats().outbound.attempted).toBe(0)
  })
})

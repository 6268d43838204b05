import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Transport } from '@nestjs/microservices'
import { describe, expect, it, vi } from 'vitest'
import { MqttClient, MqttError } from '../../src/client/index.js'
import { defineTopic, MqttTransport, type StandardSchema } from '../../src/index.js'
import { holdClock } from '../support/held-clock.js'
import { finish } from '../support/publisher-on-peer.js'
import { acks, qos1, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

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

import { Transport } from '@nestjs/microservices'
import { describe, expect, it, vi } from 'vitest'
import {
  deadLetter,
  type HandlerOptions,
  type MqttBatchContext,
  type MqttModuleOptions,
  MqttTransport,
  type StandardSchema,
} from '../../src/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish } from '../support/publisher-on-peer.js'
import {
  acks,
  json,
  KEPT,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
} from '../support/subscriber-on-peer.js'

holdClock()

/** A handler for batches that the test ends one by one. */
class HeldBatches {
  readonly began: unknown[] = []
  readonly contexts: MqttBatchContext[] = []
  private readonly gates: Gate[] = []
  failure: Error | undefined

  readonly handler = async (payloads: unknown, context: MqttBatchContext): Promise<void> => {
    const gate = new Gate()
    this.began.push(payloads)
    this.contexts.push(context)
    this.gates.push(gate)
    await gate.pass()
    if (this.failure !== undefined) throw this.failure
  }

  /** Ends the oldest unfinished run. */
  end(): void {
    this.gates.shift()?.open()
  }
}

const MOST = { maxMessages: 3, maxWaitMs: 500 }

async function batched(options: HandlerOptions = {}, connection: MqttModuleOptions = {}) {
  const parts = await subscriberOnPeer(connection)
  const transport = new MqttTransport(parts.session, parts.session.options, Transport.MQTT)
  const batches = new HeldBatches()
  transport.addHandler('+kind/+rest', batches.handler, true, { batch: MOST, ...options })
  parts.session.subscriptions.flush()
  await parts.connection.grant()
  return { ...parts, batches }
}

/** Sends QoS 1 messages with these Packet Identifiers, which are their payloads as well. */
function deliver({ connection }: SubscriberOnPeer, ...ids: number[]): void {
  for (const id of ids) connection.send(qos1('a/b', id))
}

/** Of the messages 1 to 4, the second one has failed before the batch of the others. */
async function expectSecondToFailAlone(parts: Awaited<ReturnType<typeof batched>>): Promise<void> {
  expect(parts.batches.began).toEqual([[1, 3, 4]])
  parts.batches.end()
  await settle(parts.mqtt)
  expect(acks(parts.connection)).toEqual([1, 2, 3, 4])
  expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 4, failed: 1 })
  await finish(parts)
}

describe('a batch starts', () => {
  it('when it is full, with the payloads in order of arrival', async () => {
    const parts = await batched()
    deliver(parts, 1, 2)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 2, running: 2 })
    deliver(parts, 3)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([[1, 2, 3]])
    parts.batches.end()
    await finish(parts)
  })

  it('when its first message has waited for maxWaitMs', async () => {
    const parts = await batched()
    deliver(parts, 1)
    await settle(parts.mqtt)
    vi.advanceTimersByTime(300)
    deliver(parts, 2)
    await settle(parts.mqtt)
    vi.advanceTimersByTime(190)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([])
    vi.advanceTimersByTime(20)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([[1, 2]])
    parts.batches.end()
    await finish(parts)
  })

  it('when the broker may not send more, because a handler before it holds its window', async () => {
    const parts = await batched(
      { batch: { maxMessages: 4, maxWaitMs: 60_000 } },
      { inbound: { maxInFlight: 4 } },
    )
    const gate = new Gate()
    parts.mqtt.subscribe('other', () => gate.pass())
    await parts.connection.grant()
    parts.connection.send(qos1('other', 1))
    deliver(parts, 2, 3)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([])
    deliver(parts, 4)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([[2, 3, 4]])
    parts.batches.end()
    gate.open()
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2, 3, 4])
    await finish(parts)
  })

  it('when more bytes are held than allowed', async () => {
    const parts = await batched(
      { batch: { maxMessages: 100, maxWaitMs: 60_000 } },
      { inbound: { maxQueuedBytes: 3_000 } },
    )
    for (let count = 0; count < 5; count += 1) parts.connection.send(json('a/b', 'x'.repeat(200)))
    await settle(parts.mqtt)
    expect(parts.batches.began).toHaveLength(1)
    parts.batches.end()
    await settle(parts.mqtt)
    await finish(parts)
  })

  it('during shutdown at once, with what is there', async () => {
    const parts = await batched({}, { drainTimeoutMs: 1_000 })
    deliver(parts, 1, 2)
    await settle(parts.mqtt)
    const closed = parts.session.close()
    const unsubscribe = await parts.connection.find('unsubscribe')
    parts.connection.send({ cmd: 'unsuback', messageId: unsubscribe.messageId ?? 0, granted: [0] })
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([[1, 2]])
    parts.batches.end()
    await closed
    expect(acks(parts.connection)).toEqual([1, 2])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2 })
  })
})

describe('the messages of a batch', () => {
  it('are acknowledged in order of arrival when the handler has succeeded, and not before', async () => {
    const parts = await batched()
    deliver(parts, 1, 2, 3)
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([])
    parts.batches.end()
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 3, handled: 3, failed: 0 })
    await finish(parts)
  })

  it('have their topic, parameters and properties in the context', async () => {
    const parts = await batched({ batch: { maxMessages: 2 } })
    const properties = { userProperties: { trace: '1' } }
    parts.connection.send(json('a/b', 1, { properties }))
    parts.connection.send(json('c/d', 2, { retain: true }))
    await settle(parts.mqtt)
    const [context] = parts.batches.contexts
    expect(context?.messages).toMatchObject([
      { topic: 'a/b', payload: 1, params: { kind: 'a', rest: 'b' }, properties },
      { topic: 'c/d', payload: 2, params: { kind: 'c', rest: 'd' }, retain: true },
    ])
    expect(context).toMatchObject({ pattern: '+kind/+rest', attempt: 1 })
    parts.batches.end()
    await finish(parts)
  })

  it('that cannot be decoded fail alone', async () => {
    const parts = await batched()
    parts.connection.send(qos1('a/b', 1))
    parts.connection.send({ ...qos1('a/b', 2), payload: Buffer.from('{') })
    deliver(parts, 3, 4)
    await settle(parts.mqtt)
    await expectSecondToFailAlone(parts)
  })
})

describe('a schema', () => {
  it('that takes longer for one message does not change the order, and an invalid message fails alone', async () => {
    const gate = new Gate()
    const schema: StandardSchema = {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: async value => {
          if (value === 1) await gate.pass()
          return value === 2 ? { issues: [{ message: 'two is not wanted' }] } : { value }
        },
      },
    }
    const parts = await batched({ schema })
    deliver(parts, 1, 2, 3, 4)
    await settle(parts.mqtt)
    gate.open()
    await settle(parts.mqtt)
    await expectSecondToFailAlone(parts)
  })
})

describe('batches of one handler', () => {
  it('run one after the other, and take what has arrived meanwhile', async () => {
    const parts = await batched()
    deliver(parts, 1, 2, 3, 4)
    await settle(parts.mqtt)
    vi.advanceTimersByTime(600)
    deliver(parts, 5)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([[1, 2, 3]])
    parts.batches.end()
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([
      [1, 2, 3],
      [4, 5],
    ])
    parts.batches.end()
    await finish(parts)
  })

  it('with order "none", run at the same time up to its concurrency', async () => {
    const parts = await batched({ order: 'none', concurrency: 2 })
    deliver(parts, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ])
    parts.batches.end()
    await settle(parts.mqtt)
    expect(parts.batches.began).toHaveLength(3)
    parts.batches.end()
    parts.batches.end()
    await finish(parts)
  })

  it('hold one slot while they work, and none while they wait', async () => {
    const parts = await batched({}, { inbound: { concurrency: 1 } })
    const other: unknown[] = []
    parts.mqtt.subscribe('other', ({ payload }) => other.push(payload))
    await parts.connection.grant()
    deliver(parts, 1, 2)
    parts.connection.send(json('other', 'while it collects'))
    await settle(parts.mqtt)
    expect(other).toEqual(['while it collects'])
    deliver(parts, 3)
    await settle(parts.mqtt)
    parts.connection.send(json('other', 'while it works'))
    await settle(parts.mqtt)
    expect(other).toEqual(['while it collects'])
    parts.batches.end()
    await settle(parts.mqtt)
    expect(other).toEqual(['while it collects', 'while it works'])
    await finish(parts)
  })

  it('hold at most two batches of QoS 0 messages; the others wait, and overflow drops the oldest', async () => {
    const parts = await batched({}, { inbound: { maxQueued: 2 } })
    for (let count = 1; count <= 10; count += 1) parts.connection.send(json('a/b', count))
    await settle(parts.mqtt)
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 10, running: 6, waiting: 2, dropped: 2 })
    for (let count = 0; count < 3; count += 1) {
      parts.batches.end()
      await settle(parts.mqtt)
      vi.advanceTimersByTime(500)
      await settle(parts.mqtt)
    }
    expect(parts.batches.began).toEqual([
      [1, 2, 3],
      [4, 5, 6],
      [9, 10],
    ])
    await finish(parts)
  })
})

describe('a batch whose handler fails', () => {
  it('is repeated as a whole, before any later message, and then onFailure applies to each message', async () => {
    const parts = await batched({
      retries: { attempts: 1, delayMs: [100] },
      onFailure: deadLetter('dead'),
    })
    parts.batches.failure = new Error('the database is down')
    deliver(parts, 1, 2, 3, 4)
    await settle(parts.mqtt)
    parts.batches.end()
    await settle(parts.mqtt)
    vi.advanceTimersByTime(100)
    await settle(parts.mqtt)
    expect(parts.batches.began).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ])
    expect(parts.batches.contexts.map(({ attempt }) => attempt)).toEqual([1, 2])
    expect(acks(parts.connection)).toEqual([])
    parts.batches.end()
    await settle(parts.mqtt)
    for (const expected of ['1', '2', '3']) {
      const letter = await parts.connection.find('publish')
      expect([letter.topic, letter.payload.toString()]).toEqual(['dead', expected])
      expect(letter.properties?.userProperties).toMatchObject({
        'dead-letter-attempts': '2',
        'dead-letter-reason': 'the database is down',
      })
      parts.connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0 })
    }
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.mqtt.stats().inbound).toMatchObject({ deadLettered: 3 })
    parts.batches.failure = undefined
    vi.advanceTimersByTime(500)
    await settle(parts.mqtt)
    parts.batches.end()
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2, 3, 4])
    await finish(parts)
  })

  it('with onFailure "ack", is logged, counted and acknowledged', async () => {
    const parts = await batched()
    parts.batches.failure = new Error('the database is down')
    deliver(parts, 1, 2, 3)
    await settle(parts.mqtt)
    parts.batches.end()
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 3, failed: 3 })
    expect(parts.log.lines.filter(({ text }) => text.includes('the database is down'))).toHaveLength(1)
    await finish(parts)
  })

  it('by its timeoutMs is aborted, and its late success acknowledges nothing twice', async () => {
    const parts = await batched({ timeoutMs: 50 })
    deliver(parts, 1, 2, 3)
    await settle(parts.mqtt)
    expect(parts.batches.contexts[0]?.signal.aborted).toBe(false)
    vi.advanceTimersByTime(50)
    await settle(parts.mqtt)
    expect(parts.batches.contexts[0]?.signal.aborted).toBe(true)
    expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 3, failed: 3 })
    parts.batches.end()
    await settle(parts.mqtt)
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    await finish(parts)
  })

  it('is given back to the broker if the application ends meanwhile', async () => {
    const parts = await batched({}, KEPT)
    deliver(parts, 1, 2, 3, 4)
    await settle(parts.mqtt)
    await finish(parts)
    expect(parts.batches.contexts[0]?.signal.aborted).toBe(true)
    expect(acks(parts.connection)).toEqual([])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 4, givenBack: 4 })
  })
})

it('a batch that a lost connection interrupts is handled once, and acknowledged on the next connection', async () => {
  const parts = await batched({}, KEPT)
  deliver(parts, 1, 2, 3)
  await settle(parts.mqtt)
  await parts.connection.cut()
  vi.advanceTimersByTime(1_000)
  const next = await parts.peer.accept({ sessionPresent: true })
  for (const id of [1, 2, 3]) next.send(qos1('a/b', id, id, true))
  await settle(parts.mqtt)
  parts.batches.end()
  await settle(parts.mqtt)
  expect(acks(next)).toEqual([1, 2, 3])
  expect(parts.batches.began).toEqual([[1, 2, 3]])
  expect(parts.mqtt.stats().inbound).toMatchObject({ received: 6, handled: 3, repeated: 3 })
  await finish(parts)
})

describe('these options are refused at start', () => {
  const add = async (options: HandlerOptions, isEvent = true, connection: MqttModuleOptions = {}) => {
    const { session } = await subscriberOnPeer(connection)
    const transport = new MqttTransport(session, session.options, Transport.MQTT)
    return () => transport.addHandler('a', async () => {}, isEvent, { ...options })
  }

  it('a batch of more messages than the broker sends without an acknowledgement', async () => {
    const adding = await add({ batch: { maxMessages: 11 } }, true, { inbound: { maxInFlight: 10 } })
    expect(adding).toThrow(
      'handler of "a": batch.maxMessages 11 is more than inbound.maxInFlight 10, the number of messages that the broker sends without an acknowledgement, so that no batch could be full; lower batch.maxMessages, or raise inbound.maxInFlight of the connection',
    )
  })

  it('but not at QoS 0, where nothing is acknowledged', async () => {
    const adding = await add({ batch: { maxMessages: 11 }, qos: 0 }, true, { inbound: { maxInFlight: 10 } })
    expect(adding).not.toThrow()
  })

  it('a batch with manual acknowledgement', async () => {
    expect(await add({ batch: MOST, ack: 'manual' })).toThrow('batch cannot be combined with ack: "manual"')
  })

  it('a batch of a handler that is added at run time', async () => {
    const { mqtt } = await subscriberOnPeer()
    expect(() => mqtt.subscribe('a', () => {}, { batch: MOST })).toThrow(
      'handler of "a": batch is for handlers with a decorator, such as @OnMqttEvent; remove it',
    )
    expect(() => mqtt.messages('a', { batch: MOST })).toThrow('batch is for handlers with a decorator')
  })

  it('a batch of requests', async () => {
    expect(await add({ batch: MOST }, false)).toThrow('batch is for events only')
  })

  it.each([{ maxMessages: 0 }, { maxMessages: 1, maxWaitMs: 0 }, { maxMessages: 1, maxWaitMs: 60_001 }])(
    '%o',
    async batch => {
      expect(await add({ batch })).toThrow(/handler of "a"/)
    },
  )
})

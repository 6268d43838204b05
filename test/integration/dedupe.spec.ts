import { runInNewContext } from 'node:vm'
import { Transport } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import type { DeliveryEvent } from '../../src/client/index.js'
import {
  deadLetter,
  type HandlerOptions,
  handle,
  type InboxStore,
  type MqttMessage,
  MqttTransport,
} from '../../src/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import { acks, json, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

/** A QoS 1 message with a `message-id`; its Packet Identifier is its payload as well. */
function identified(packetId: number, id: string | string[], topic = 'in/7') {
  const properties = { userProperties: { 'message-id': id } }
  return json(topic, packetId, { qos: 1, messageId: packetId, properties })
}

const BY_ID: HandlerOptions = { dedupe: { by: 'message-id' } }

/** A handler on `in/+` that notes the payloads it receives. */
async function deduping(options: HandlerOptions = BY_ID, work: (payload: unknown) => unknown = () => {}) {
  const parts = await subscriberOnPeer()
  const ran: unknown[] = []
  const handler = ({ payload }: MqttMessage): unknown => {
    ran.push(payload)
    return work(payload)
  }
  const subscription = parts.mqtt.subscribe('in/+', handler, options)
  await parts.connection.grant()
  const inbound = () => parts.mqtt.stats().inbound
  return { ...parts, ran, inbound, subscription }
}

describe('a handler with dedupe', () => {
  it('acknowledges a repeat without another run', async () => {
    const parts = await deduping()
    const outcomes: string[] = []
    const listener = (event: DeliveryEvent) => void (event.type === 'end' && outcomes.push(event.outcome))
    parts.session.events.delivery.listen(listener)
    for (const id of [1, 2]) parts.connection.send(identified(id, 'one'))
    parts.connection.send(identified(3, ['two', 'one']))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 3])
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.inbound()).toMatchObject({ received: 3, handled: 2, duplicates: 1, withoutKey: 0 })
    expect(outcomes).toEqual(['handled', 'duplicate', 'handled'])
    await finish(parts)
  })

  it('handles messages of different topics with the same message-id', async () => {
    const parts = await deduping()
    parts.connection.send(identified(1, 'one', 'in/7'))
    parts.connection.send(identified(2, 'one', 'in/8'))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 2])
    await finish(parts)
  })

  it('handles every message without a key, and counts them', async () => {
    const parts = await deduping()
    for (const messageId of [1, 2]) parts.connection.send(json('in/7', 0, { qos: 1, messageId }))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([0, 0])
    expect(parts.inbound()).toMatchObject({ handled: 2, duplicates: 0, withoutKey: 2 })
    await finish(parts)
  })

  it('recognises messages by a function, which receives the decoded payload', async () => {
    const by = ({ payload, params }: MqttMessage<number>) =>
      payload < 5 ? `small ${params['0']}` : undefined
    const parts = await deduping({ dedupe: { by } })
    for (const [index, value] of [1, 2, 9, 9].entries())
      parts.connection.send(json('in/7', value, { qos: 1, messageId: index + 1 }))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 9, 9])
    expect(parts.inbound()).toMatchObject({ duplicates: 1, withoutKey: 2 })
    await finish(parts)
  })

  it('lets a copy wait for the first one, without a slot, and acknowledges both', async () => {
    const gate = new Gate()
    const parts = await deduping({ ...BY_ID, order: 'none', concurrency: 2 }, payload =>
      payload === 1 ? gate.pass() : undefined,
    )
    parts.connection.send(identified(1, 'one'))
    parts.connection.send(identified(2, 'one'))
    parts.connection.send(identified(3, 'other'))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 3])
    expect(acks(parts.connection)).toEqual([])
    gate.open()
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 3])
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.inbound()).toMatchObject({ handled: 2, duplicates: 1, failed: 0 })
    await finish(parts)
  })

  it('runs the copy if the first one fails', async () => {
    const gate = new Gate()
    const parts = await deduping({ ...BY_ID, order: 'none' }, async payload => {
      if (payload !== 1) return
      await gate.pass()
      throw new Error('it is broken')
    })
    for (const id of [1, 2]) parts.connection.send(identified(id, 'one'))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1])
    gate.open()
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 2])
    expect(parts.inbound()).toMatchObject({ handled: 2, failed: 1, duplicates: 0 })
    await finish(parts)
  })

  it('runs the copy when the first one has exceeded its time limit', async () => {
    const gate = new Gate()
    const parts = await deduping({ ...BY_ID, order: 'none', timeoutMs: 100 }, payload =>
      payload === 1 ? gate.pass() : undefined,
    )
    parts.connection.send(identified(1, 'one'))
    parts.connection.send(identified(2, 'one'))
    await pass(200, 10)
    expect(parts.ran).toEqual([1, 2])
    gate.open()
    await settle(parts.mqtt)
    parts.connection.send(identified(3, 'one'))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 2])
    expect(parts.inbound()).toMatchObject({ failed: 1, duplicates: 1 })
    await finish(parts)
  })

  it('does not run a retry after a copy has succeeded', async () => {
    const options = { ...BY_ID, order: 'none', retries: { attempts: 3, delayMs: [500] } } as const
    const parts = await deduping(options, payload => {
      if (payload === 1) throw new Error('it is broken')
    })
    parts.connection.send(identified(1, 'one'))
    await settle(parts.mqtt)
    parts.connection.send(identified(2, 'one'))
    await pass(1_000, 50)
    expect(parts.ran).toEqual([1, 2])
    expect(acks(parts.connection)).toEqual([1, 2])
    expect(parts.inbound()).toMatchObject({ handled: 1, duplicates: 1, failed: 0 })
    await finish(parts)
  })

  it('handles the repeat of a message that has a dead letter', async () => {
    let isBroken = true
    const parts = await deduping({ ...BY_ID, onFailure: deadLetter('dead') }, () => {
      if (isBroken) throw new Error('it is broken')
    })
    parts.connection.send(identified(1, 'one'))
    const letter = await parts.connection.find('publish')
    parts.connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await settle(parts.mqtt)
    isBroken = false
    parts.connection.send(identified(2, 'one'))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 2])
    expect(parts.inbound()).toMatchObject({ deadLettered: 1, handled: 1, duplicates: 0 })
    await finish(parts)
  })

  it('does not affect other handlers of the message', async () => {
    const parts = await deduping()
    const others: unknown[] = []
    parts.mqtt.subscribe('in/7', ({ payload }: MqttMessage) => void others.push(payload))
    await parts.connection.grant()
    for (const id of [1, 2]) parts.connection.send(identified(id, 'one'))
    await settle(parts.mqtt)
    expect([parts.ran, others]).toEqual([[1], [1, 2]])
    expect(parts.inbound()).toMatchObject({ handled: 2, duplicates: 0 })
    await finish(parts)
  })

  it('forgets the oldest message beyond maxEntries', async () => {
    const parts = await deduping({ dedupe: { by: 'message-id', maxEntries: 2 } })
    for (const [index, id] of ['a', 'b', 'c', 'c', 'b', 'a'].entries())
      parts.connection.send(identified(index + 1, id))
    await settle(parts.mqtt)
    expect(parts.ran).toEqual([1, 2, 3, 6])
    await finish(parts)
  })
})

describe('a store for dedupe', () => {
  it('receives a key of limited length, and a scope with pattern and method that is stable', async () => {
    const calls: unknown[] = []
    const store: InboxStore = {
      has: async (key, scope) => {
        calls.push([key.length, scope])
        return false
      },
      add: () => {},
    }
    const parts = await subscriberOnPeer()
    const transport = new MqttTransport(parts.session, parts.session.options, Transport.MQTT)
    const extras = handle({
      dedupe: { by: 'message-id', store, maxAgeMs: 5, maxEntries: 7, scope: 'alarms' },
    })
    transport.addHandler('in/+', async () => {}, true, { ...extras })
    parts.mqtt.subscribe('in/+id', function onAlarm() {}, { dedupe: { by: 'message-id', store } })
    parts.session.subscriptions.flush()
    await parts.connection.grant()
    parts.connection.send(identified(1, 'x'.repeat(60_000)))
    await settle(parts.mqtt)
    expect(calls).toEqual([
      [51, { name: 'alarms', maxAgeMs: 5, maxEntries: 7 }],
      [51, { name: 'in/+id onAlarm', maxAgeMs: 86_400_000, maxEntries: 100_000 }],
    ])
    await finish(parts)
  })

  it('that fails before the run fails the attempt, which is retried, with one log line', async () => {
    let failures = 2
    const store: InboxStore = {
      has: () => {
        failures -= 1
        if (failures >= 0) throw new Error('no space left')
        return false
      },
      add: () => {},
    }
    const retries = { attempts: 1, delayMs: [5] }
    const parts = await deduping({ dedupe: { by: 'message-id', store }, retries })
    parts.connection.send(identified(1, 'one'))
    await pass(50, 5)
    expect(parts.ran).toEqual([])
    expect(parts.inbound()).toMatchObject({ failed: 1 })
    const line =
      'the handler of "in/+" failed for a message on "in/7": the inbox of the handler of "in/+" could not look up the message: no space left'
    expect(parts.log.visible.filter(text => text.includes('inbox'))).toEqual([line])
    await finish(parts)
  })

  it('that fails after the run is called again by a retry, without another run', async () => {
    let failures = 1
    const added: string[] = []
    const store: InboxStore = {
      has: async key => added.includes(key),
      add: async key => {
        failures -= 1
        if (failures >= 0) throw new Error('no space left')
        added.push(key)
      },
    }
    const retries = { attempts: 1, delayMs: [5] }
    const parts = await deduping({ dedupe: { by: 'message-id', store }, retries })
    parts.connection.send(identified(1, 'one'))
    await pass(50, 5)
    expect(parts.ran).toEqual([1])
    expect(added).toEqual(['in/7\0one'])
    expect(parts.inbound()).toMatchObject({ handled: 1, failed: 0, duplicates: 0 })
    await finish(parts)
  })

  const pending = new Promise<boolean>(() => {})
  // Jest runs the code of tests in a realm of its own.
  const ofAnotherRealm: Promise<boolean> = runInNewContext('new Promise(() => {})')

  it.each([
    ['a promise', pending],
    ['a promise of another realm', ofAnotherRealm],
  ])('that does not respond, with %s, fails the attempt after 30 s', async (_what, result) => {
    const store: InboxStore = { has: () => result, add: () => {} }
    const parts = await deduping({ dedupe: { by: 'message-id', store } })
    parts.connection.send(identified(1, 'one'))
    await pass(31_000, 1_000)
    expect(parts.ran).toEqual([])
    expect(parts.inbound()).toMatchObject({ failed: 1, running: 0 })
    await finish(parts)
  })
})

describe('the scope of dedupe', () => {
  const inbox: InboxStore = { has: () => false, add: () => {} }
  const dedupe = { by: 'message-id', store: inbox } as const

  it('must be different for each handler that uses the same store', async () => {
    const parts = await subscriberOnPeer()
    const subscribe = (options: HandlerOptions) => parts.mqtt.subscribe('in/+', () => {}, options)
    const first = subscribe({ dedupe })
    expect(() => subscribe({ dedupe })).toThrow(
      expect.objectContaining({
        code: 'INVALID_OPTION',
        message:
          'handler of "in/+": another handler has the same dedupe.scope "in/+" in the same dedupe.store, so that each would treat the messages of the other as repeats; set a different dedupe.scope for each of them',
      }),
    )
    subscribe({ dedupe: { ...dedupe, scope: 'second' } })
    parts.mqtt.subscribe('in/+', function onAlarm() {}, { dedupe })
    subscribe({ dedupe: { ...dedupe, store: { ...inbox } } })
    for (const _each of [1, 2]) subscribe(BY_ID)
    // A handler that is removed frees its scope.
    void first.unsubscribe()
    void first.unsubscribe()
    subscribe({ dedupe })
    expect(() => subscribe({ dedupe })).toThrow('another handler has the same dedupe.scope')
    await parts.connection.grant()
    await finish(parts)
  })
})

describe('dedupe in a batch', () => {
  it('passes one of two copies to the handler, and acknowledges both', async () => {
    const parts = await subscriberOnPeer()
    const transport = new MqttTransport(parts.session, parts.session.options, Transport.MQTT)
    const batches: unknown[] = []
    const handler = async (payloads: unknown) => void batches.push(payloads)
    const options = { ...BY_ID, batch: { maxMessages: 10, maxWaitMs: 100 } }
    transport.addHandler('in/+', handler, true, { ...handle(options) })
    parts.session.subscriptions.flush()
    await parts.connection.grant()
    for (const [packetId, id] of [
      [1, 'one'],
      [2, 'one'],
      [3, 'two'],
    ] as const)
      parts.connection.send(identified(packetId, id))
    await pass(200, 10)
    expect(batches).toEqual([[1, 3]])
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 2, duplicates: 1 })
    await finish(parts)
  })
})

it('refuses dedupe for requests, for manual acknowledgement and for loops', async () => {
  const parts = await subscriberOnPeer()
  const transport = new MqttTransport(parts.session, parts.session.options, Transport.MQTT)
  const refusal = (text: string) => expect.objectContaining({ code: 'INVALID_OPTION', message: text })
  expect(() => transport.addHandler('ask', async () => {}, false, { ...BY_ID })).toThrow(
    refusal(
      'handler of "ask": dedupe is for events only, because every request needs a response of its own; remove it',
    ),
  )
  expect(() => parts.mqtt.subscribe('in', () => {}, { ...BY_ID, ack: 'manual' })).toThrow(
    refusal(
      'handler of "in": dedupe cannot be combined with ack: "manual", because a message is remembered when the handler has succeeded, which may be before ack(); remove one of them',
    ),
  )
  expect(() => parts.mqtt.messages('in', { ...BY_ID })).toThrow(
    refusal('messages of "in": dedupe is for handlers; remove it'),
  )
  await finish(parts)
})

import * as v from 'valibot'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { MqttClient } from '../../src/client/mqtt-client.js'
import type { RetainedOptions } from '../../src/options/client-options.js'
import type { StandardSchema } from '../../src/options/codec.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { defineTopic } from '../../src/options/topic-contract.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  vi.useRealTimers()
  for (const client of open.splice(0)) await client.close()
})

function stored(topic: string, payload: string) {
  return message(topic, { payload: Buffer.from(payload), retain: true })
}

/** A client with a cache, whose SUBSCRIBE has no response yet. */
async function caching(
  options: RetainedOptions = {},
  protocolVersion: 4 | 5 = 5,
  more: MqttModuleOptions = {},
) {
  const all = sessionOnPeer({ protocolVersion, reconnect: { delayMs: [1] }, drainTimeoutMs: 100, ...more })
  const client = new MqttClient(all.session)
  open.push(client)
  const cache = client.retained('sites/+', { quietMs: 0, ...options })
  const started = client.start()
  const connection = await all.peer.accept()
  const subscribe = await connection.find('subscribe')
  const grant = (code = 0): void =>
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [code] })
  return { ...all, client, cache, connection, subscribe, grant, started }
}

describe('retained()', () => {
  it('is complete after a round trip that brought no new topic', async () => {
    const { cache, connection, grant, started } = await caching()
    connection.respondsToPings = false
    connection.send(stored('sites/1', '1'))
    grant()
    await started
    await connection.find('pingreq')
    connection.send(stored('sites/2', '2'))
    connection.send({ cmd: 'pingresp' })
    await connection.find('pingreq')
    expect(cache.isComplete).toBe(false)
    // A live message for a topic that is known is no reason to wait.
    connection.send(stored('sites/1', '11'))
    connection.send({ cmd: 'pingresp' })
    await cache.whenComplete()
    expect([...cache.entries()]).toEqual([
      ['sites/2', 2],
      ['sites/1', 11],
    ])
  })

  it('waits for quietMs without a new topic in addition', async () => {
    const { cache, connection, grant, started } = await caching({ quietMs: 60_000 })
    grant()
    await started
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    await eventually(() => vi.getTimerCount() > 0)
    await vi.advanceTimersByTimeAsync(59_999)
    connection.send(stored('sites/1', '1'))
    await eventually(() => cache.size === 1)
    expect(cache.isComplete).toBe(false)
    await vi.advanceTimersByTimeAsync(1)
    expect(cache.isComplete).toBe(false)
    await eventually(async () => {
      await vi.advanceTimersByTimeAsync(10_000)
      return cache.isComplete
    })
  })

  it('is not complete while the application is starting, when messages are held', async () => {
    const { session, peer } = sessionOnPeer({ drainTimeoutMs: 100 })
    const client = new MqttClient(session)
    open.push(client)
    const cache = client.retained('sites/+', { quietMs: 0 })
    const starting = session.start()
    const connection = await peer.accept()
    await starting
    const subscribe = await connection.find('subscribe')
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [0] })
    connection.send(stored('sites/1', '1'))
    for (let round = 0; round < 3; round += 1) await connection.expect('pingreq')
    expect({ isComplete: cache.isComplete, size: cache.size }).toEqual({ isComplete: false, size: 0 })
    await session.listen()
    await cache.whenComplete()
    expect(cache.get('sites/1')).toBe(1)
  })

  it('rejects whenComplete if the broker refuses the filter, and is complete once it grants it', async () => {
    const { cache, connection, grant, started } = await caching({}, 5, { refusedSubscription: 'warn' })
    const complete = cache.whenComplete()
    grant(0x87)
    await expect(complete).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED', reasonCode: 0x87 })
    await started
    await expect(cache.whenComplete()).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED' })
    const again = await connection.find('subscribe')
    connection.send(stored('sites/1', '1'))
    connection.send({ cmd: 'suback', messageId: again.messageId ?? 0, granted: [0] })
    await eventually(() => cache.isComplete)
    expect(cache.get('sites/1')).toBe(1)
  })

  it('limits the wait by timeoutMs and signal, and ends it with the client', async () => {
    const { client, cache, started } = await caching()
    await expect(cache.whenComplete({ timeoutMs: 1 })).rejects.toMatchObject({ code: 'TIMEOUT' })
    const aborted = cache.whenComplete({ signal: AbortSignal.abort() })
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' })
    const complete = cache.whenComplete()
    void client.close()
    await expect(complete).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
    await started.catch(() => {})
  })

  it('removes a value that is followed by one that cannot be decoded, and logs the failure', async () => {
    const { cache, connection, grant, started, log } = await caching()
    const changes = cache.changes()
    connection.send(stored('sites/1', '1'))
    connection.send(stored('sites/1', 'not JSON'))
    grant()
    await started
    await cache.whenComplete()
    expect(cache.size).toBe(0)
    expect(await changes.next()).toMatchObject({ value: { type: 'removed', reason: 'invalid' } })
    expect(log.visible).toContainEqual(
      expect.stringContaining('the payload on "sites/1" could not be decoded'),
    )
  })

  it('ignores messages on MQTT 5 that the broker does not retain', async () => {
    const { cache, connection, grant, started } = await caching()
    grant()
    await started
    await cache.whenComplete()
    connection.send(message('sites/1', { payload: Buffer.from('1') }))
    connection.send(stored('sites/2', '2'))
    await eventually(() => cache.size === 1)
    expect(cache.has('sites/1')).toBe(false)
  })

  it('takes every message on MQTT 3.1.1, where live messages have no RETAIN flag', async () => {
    const { cache, connection, grant, started } = await caching({}, 4)
    grant()
    await started
    connection.send(message('sites/1', { payload: Buffer.from('1') }))
    await eventually(() => cache.get('sites/1') === 1)
    connection.send(message('sites/1', { payload: Buffer.alloc(0) }))
    await eventually(() => cache.size === 0)
  })

  it('stays within its limits, and shows in the statistics what they dropped', async () => {
    const { client, cache, connection, grant, started } = await caching({ maxTopics: 10 })
    for (let site = 0; site < 1_000; site += 1) connection.send(stored(`sites/${site}`, String(site)))
    grant()
    await started
    await cache.whenComplete()
    expect(cache.size).toBe(10)
    expect(cache.dropped).toBe(990)
    expect(client.stats().retained).toEqual({ caches: 1, topics: 10, bytes: cache.bytes, dropped: 990 })
    void cache.close()
    expect(client.stats().retained.caches).toBe(0)
  })

  it('requests the retained messages again with the same SUBSCRIBE if only caches have the filter', async () => {
    const { client, cache, connection, subscribe, grant, started } = await caching()
    grant()
    await started
    await cache.whenComplete()
    const second = client.retained('sites/+', { quietMs: 0 })
    const again = await connection.find('subscribe')
    expect(again).toMatchObject({ subscriptions: subscribe.subscriptions, properties: subscribe.properties })
    connection.send(stored('sites/1', '1'))
    connection.send({ cmd: 'suback', messageId: again.messageId ?? 0, granted: [0] })
    await second.whenComplete()
    expect([...second.entries()]).toEqual([['sites/1', 1]])
  })

  it('requests them through a separate filter if a handler has the filter, which is unsubscribed then', async () => {
    const { client, cache, connection, subscribe, grant, started } = await caching()
    grant()
    await started
    await cache.whenComplete()
    client.subscribe('sites/+', () => {}, { qos: 0 })
    client.retained('sites/+', { quietMs: 0, qos: 1 })
    const raised = await connection.find('subscribe')
    expect(raised).toMatchObject({
      subscriptions: [{ topic: 'sites/+', qos: 1, rh: 2 }],
      properties: subscribe.properties,
    })
    connection.send({ cmd: 'suback', messageId: raised.messageId ?? 0, granted: [1] })
    const separate = await connection.find('subscribe')
    expect(separate.subscriptions).toMatchObject([{ topic: 'sites/+/#', qos: 1, rh: 0, rap: false }])
    expect(separate.properties).not.toEqual(subscribe.properties)
    connection.send({ cmd: 'suback', messageId: separate.messageId ?? 0, granted: [1] })
    expect(await connection.find('unsubscribe')).toMatchObject({ unsubscriptions: ['sites/+/#'] })
  })

  it('keeps the valid values of a contract, and removes one that is followed by an invalid one', async () => {
    const { client, connection, grant, started, log } = await caching()
    grant()
    await started
    const presence = defineTopic('devices/+deviceId/presence', {
      schema: v.object({ state: v.picklist(['online', 'offline']) }),
    })
    const devices = client.retained(presence, { quietMs: 0 })
    const subscribe = await connection.find('subscribe')
    expect(subscribe.subscriptions).toMatchObject([{ topic: 'devices/+/presence', qos: 0 }])
    for (const [device, state] of [
      [1, 'online'],
      [2, 'offline'],
      [2, 'asleep'],
    ] as const)
      connection.send(stored(`devices/${device}/presence`, JSON.stringify({ state, more: true })))
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [0] })
    await devices.whenComplete()
    expect([...devices.entries()]).toEqual([['devices/1/presence', { state: 'online' }]])
    expect(log.visible).toContainEqual(
      expect.stringContaining('the payload on "devices/2/presence" is not valid'),
    )
  })

  it('does not keep a value of the last connection whose validation ends on the next one', async () => {
    const { client, connection, grant, started, peer } = await caching()
    grant()
    await started
    const gate = new Gate()
    const validate = async (value: unknown) => {
      if (value === 'slow') await gate.pass()
      return { value }
    }
    const schema: StandardSchema = { '~standard': { version: 1, vendor: 'test', validate } }
    const slow = client.retained(defineTopic('slow/+', { schema }), { quietMs: 0 })
    const subscribe = await connection.find('subscribe')
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [0] })
    await slow.whenComplete()
    connection.send(stored('slow/1', '"slow"'))
    await eventually(() => client.stats().inbound.running === 1)
    await connection.cut()
    // Meanwhile somebody has cleared the topic.
    const next = await peer.accept()
    for (let filters = 0; filters < 2; filters += 1) {
      const { messageId = 0 } = await next.find('subscribe')
      next.send({ cmd: 'suback', messageId, granted: [0] })
    }
    gate.open()
    await slow.whenComplete()
    expect([...slow.entries()]).toEqual([])
  })

  it('gives up the validation of a value after 10 s, and is complete without it', async () => {
    const { client, connection, grant, started, log } = await caching()
    grant()
    await started
    const validate = (value: unknown) => (value === 1 ? new Promise<never>(() => {}) : { value })
    const schema: StandardSchema = { '~standard': { version: 1, vendor: 'test', validate } }
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const cache = client.retained(defineTopic('slow/+', { schema }), { quietMs: 0 })
    const subscribe = await connection.find('subscribe')
    connection.send(stored('slow/1', '1'))
    connection.send(stored('slow/2', '2'))
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [0] })
    await eventually(() => cache.size === 1 && client.stats().inbound.running === 1)
    await vi.advanceTimersByTimeAsync(9_999)
    expect({ running: client.stats().inbound.running, isComplete: cache.isComplete }).toEqual({
      running: 1,
      isComplete: false,
    })
    await vi.advanceTimersByTimeAsync(1)
    await eventually(async () => {
      await vi.advanceTimersByTimeAsync(20)
      return cache.isComplete
    })
    expect([...cache.entries()]).toEqual([['slow/2', 2]])
    expect(log.visible.join()).toContain('the schema for "slow/1" did not finish within 10000 ms')
  })

  it('refuses a Shared Subscription and unknown options', async () => {
    const { client, grant, started } = await caching()
    grant()
    await started
    expect(() => client.retained('$share/a/sites/+')).toThrow(
      'the broker sends no retained messages to a Shared Subscription; remove "$share/a/"',
    )
    expect(() => Reflect.apply(client.retained, client, ['sites/+', { maxTopic: 1 }])).toThrow('maxTopics')
    expect(() => client.retained('a/#/b')).toThrow(expect.objectContaining({ code: 'INVALID_TOPIC_FILTER' }))
  })
})

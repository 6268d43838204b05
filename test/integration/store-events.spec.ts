import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, expect, it, vi } from 'vitest'
import { MQTT_CHANNELS, type StoreEvent } from '../../src/client/index.js'
import { defineTopic } from '../../src/index.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, flow, goOffline } from '../support/publisher-on-peer.js'
import { Acknowledging, storingOnPeer } from '../support/stored-publishes.js'
import { Telemetry } from '../support/telemetry.js'

holdClock()

/** Collects the events of the channel while `work` runs. */
async function eventsOf(work: () => Promise<void>): Promise<StoreEvent[]> {
  const events: StoreEvent[] = []
  // Seam: the messages of this channel have this type.
  const take = (event: unknown): void => void events.push(event as StoreEvent)
  subscribe(MQTT_CHANNELS.store, take)
  await work()
  unsubscribe(MQTT_CHANNELS.store, take)
  return events
}

/** One message is delivered from the store, one expires, and one cannot be stored. */
async function threeMessages(): Promise<void> {
  const parts = await storingOnPeer({ reconnect: { delayMs: [30_000] } })
  await goOffline(parts)
  parts.publish('alarm', 1)
  parts.publish('alarm', 2, { properties: { messageExpiryInterval: 10 } })
  await flow()
  parts.store.failWith(new Error('disk I/O error'))
  parts.publish('alarm', 3)
  await flow()
  parts.store.failWith(undefined)
  vi.advanceTimersByTime(30_000)
  const connection = await parts.peer.accept()
  await new Acknowledging(connection).untilQuiet()
  await finish(parts)
}

describe('the channel of the store', () => {
  it('has an event for each message that is stored or has ended, and for each failure', async () => {
    const events = await eventsOf(threeMessages)
    expect(
      events.map(event => {
        if (event.type === 'settled') return `${event.settlement.topic} ${event.settlement.outcome.status}`
        return event.type === 'stored' ? `${event.topic} stored, ${event.bytes} bytes` : event.type
      }),
    ).toEqual([
      'alarm stored, 1 bytes',
      'alarm stored, 1 bytes',
      'failed',
      'alarm expired',
      'alarm delivered',
    ])
    expect(new Set(events.map(({ client }) => client)).size).toBe(1)
  })
})

describe('the metrics of stored messages', () => {
  it('count a stored message as sent when it is delivered, and how each has ended', async () => {
    vi.useRealTimers()
    const telemetry = new Telemetry()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] })
    await threeMessages()
    vi.useRealTimers()
    const sum = (points: { value: number }[]) => points.reduce((all, { value }) => all + value, 0)
    expect(sum(await telemetry.points('messaging.client.sent.messages'))).toBe(1)
    const outcomes = await telemetry.points('mqtt.client.store.outcomes')
    expect(outcomes.map(({ attributes, value }) => [attributes, value])).toEqual([
      [expect.objectContaining({ 'mqtt.outcome': 'expired' }), 1],
      [expect.objectContaining({ 'mqtt.outcome': 'delivered' }), 1],
    ])
    const publishes = await telemetry.points('mqtt.client.publishes')
    expect(publishes.map(({ attributes, value }) => [attributes, value])).toEqual([
      [expect.objectContaining({ 'mqtt.outcome': 'stored' }), 2],
      [expect.objectContaining({ 'mqtt.outcome': 'dropped', 'mqtt.reason': 'store-failed' }), 1],
    ])
    await telemetry.stop()
    vi.useFakeTimers()
  })

  it('show how much is stored, and the age of the oldest message', async () => {
    const parts = await storingOnPeer()
    await goOffline(parts)
    for (const payload of [1, 2]) parts.publish('alarm', payload)
    await flow()
    vi.advanceTimersByTime(500)
    vi.useRealTimers()
    const telemetry = new Telemetry()
    const value = async (name: string) => (await telemetry.points(`mqtt.client.store.${name}`))[0]?.value
    expect(await value('messages')).toBe(2)
    expect(await value('size')).toBe(parts.store.contents.bytes)
    expect(await value('failures')).toBe(0)
    expect(await value('oldest')).toBeGreaterThan(0)
    await telemetry.stop()
    vi.useFakeTimers()
    await parts.session.close()
  })
})

describe('a contract with whenBlocked: "store"', () => {
  it('stores its publishes', async () => {
    const alarm = defineTopic('trucks/+truckId/alarm', { qos: 1, whenBlocked: 'store' })
    const parts = await storingOnPeer()
    await goOffline(parts)
    const outcome = await parts.mqtt.publish(alarm.at({ truckId: '7' }), { code: 1 })
    expect(outcome).toMatchObject({ status: 'stored' })
    const connection = await comeBack(parts)
    const { topic, qos } = await connection.expect('publish')
    expect([topic, qos]).toEqual(['trucks/7/alarm', 1])
    await new Acknowledging(connection).untilQuiet()
    await finish(parts)
  })
})

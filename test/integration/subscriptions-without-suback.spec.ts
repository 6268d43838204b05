import { describe, expect, it } from 'vitest'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass } from '../support/publisher-on-peer.js'
import {
  countOf,
  KEPT,
  settle,
  streamRequest,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const ignore = (): void => {}
const TIMEOUT_MS = 10_000
const QUICK: MqttModuleOptions = { outbound: { ackTimeoutMs: TIMEOUT_MS } }
const RESUMED = { sessionPresent: true }

async function unsuback(connection: PeerConnection, ...granted: number[]): Promise<void> {
  const { messageId = 0 } = await connection.find('unsubscribe')
  connection.send({ cmd: 'unsuback', messageId, granted })
}

/** A connected session with one subscription that is granted. */
async function granted(options: MqttModuleOptions = {}) {
  const parts = await subscriberOnPeer(options)
  const subscription = parts.mqtt.subscribe('a', ignore)
  await parts.connection.grant()
  await subscription.whenGranted()
  return { ...parts, subscription }
}

describe('a broker that does not respond to SUBSCRIBE', () => {
  it('degrades the health, which names the filters, and causes a reconnect', async () => {
    const parts = await subscriberOnPeer(QUICK)
    const { mqtt, connection, log, session } = parts
    mqtt.subscribe('a', ignore)
    await pass(TIMEOUT_MS / 2 - 100, 100)
    expect(mqtt.health).toMatchObject({ state: 'up', unansweredSubscriptions: [] })
    await pass(200, 100)
    expect(mqtt.health).toMatchObject({ state: 'degraded', unansweredSubscriptions: ['a'] })
    await pass(TIMEOUT_MS / 2, 100)
    await connection.closed()
    const text = `the broker did not respond to SUBSCRIBE of "a" within ${TIMEOUT_MS} ms`
    expect(session.connection.state).toMatchObject({
      status: 'waiting',
      cause: { code: 'TIMEOUT', message: text },
    })
    expect(log.visible.filter(line => line.includes(text))).toHaveLength(1)
    expect(mqtt.stats().connection).toMatchObject({ ackTimeouts: 1, losses: 1 })
    const second = await comeBack(parts)
    await second.grant()
    await settle(mqtt)
    expect(mqtt.health).toMatchObject({ state: 'up', unansweredSubscriptions: [] })
    await finish(parts)
  })

  it('names at most 100 filters in the health', async () => {
    const parts = await subscriberOnPeer(QUICK)
    const filters = Array.from({ length: 150 }, (_, index) => `a/${index}`)
    for (const filter of filters) parts.mqtt.subscribe(filter, ignore)
    await pass(TIMEOUT_MS / 2 + 100, 100)
    expect(parts.mqtt.health.unansweredSubscriptions).toEqual(filters.slice(0, 100))
    expect(parts.mqtt.stats().subscriptions.pending).toBe(150)
    await finish(parts)
  })

  it('causes no reconnect while it responds to one after the other, whatever their number', async () => {
    const parts = await subscriberOnPeer(QUICK)
    for (const filter of ['a', 'b', 'c', 'd', 'e']) parts.mqtt.subscribe(filter, ignore)
    for (let index = 0; index < 5; index += 1) {
      await pass(TIMEOUT_MS * 0.8, 500)
      await parts.connection.grant()
    }
    await settle(parts.mqtt)
    expect(parts.mqtt.stats().connection.losses).toBe(0)
    expect(parts.mqtt.stats().subscriptions).toMatchObject({ granted: 5, pending: 0 })
    await finish(parts)
  })
})

describe('unsubscribe', () => {
  it.each([0, 0x11])('resolves with the Reason Code %i in UNSUBACK', async code => {
    const parts = await granted()
    const done = parts.subscription.unsubscribe()
    await unsuback(parts.connection, code)
    await done
    await parts.subscription.unsubscribe()
    expect(countOf(parts.connection, 'unsubscribe')).toBe(1)
    await finish(parts)
  })

  it('resolves with the UNSUBACK packet of MQTT 3.1.1, which has no Reason Code', async () => {
    const parts = await granted({ protocolVersion: 4 })
    const done = parts.subscription.unsubscribe()
    await unsuback(parts.connection)
    await done
    await finish(parts)
  })

  it('rejects with a refusal, which is logged and counted even if it is not awaited', async () => {
    const parts = await granted()
    const { mqtt, connection, log, subscription } = parts
    const unobserved = mqtt.subscribe('b', ignore)
    await connection.grant()
    await unobserved.whenGranted()
    const done = subscription.unsubscribe()
    void unobserved.unsubscribe()
    await unsuback(connection, 0x87)
    await unsuback(connection, 0x80)
    await expect(done).rejects.toMatchObject({ code: 'UNSUBSCRIBE_REFUSED', reasonCode: 0x87 })
    await settle(mqtt)
    expect(mqtt.stats().subscriptions).toMatchObject({ granted: 0, unsubscribesRefused: 2 })
    expect(log.visible).toContainEqual(
      expect.stringContaining('the broker refused UNSUBSCRIBE of "a": 0x87 Not authorized'),
    )
    await finish(parts)
  })

  it('resolves at once if another handler has the same filter', async () => {
    const parts = await granted()
    parts.mqtt.subscribe('a', ignore)
    await parts.subscription.unsubscribe()
    expect(countOf(parts.connection, 'unsubscribe')).toBe(0)
    await finish(parts)
  })

  it('resolves at once without a connection, or when it is lost, in a clean session', async () => {
    const parts = await granted()
    const other = parts.mqtt.subscribe('b', ignore)
    await parts.connection.grant()
    await other.whenGranted()
    const onItsWay = other.unsubscribe()
    await goOffline(parts)
    await onItsWay
    await parts.subscription.unsubscribe()
    await finish(parts)
  })

  it('resolves when a persistent session is resumed and the broker confirms it, or has lost the session', async () => {
    for (const isResumed of [true, false]) {
      const parts = await granted(KEPT)
      await goOffline(parts)
      const done = parts.subscription.unsubscribe()
      const second = await comeBack(parts, isResumed ? RESUMED : {})
      if (isResumed) await unsuback(second, 0)
      await done
      await finish(parts)
    }
  })

  it('rejects at the close if a persistent session keeps the filter', async () => {
    const parts = await granted(KEPT)
    await goOffline(parts)
    const done = parts.subscription.unsubscribe()
    await finish(parts)
    await expect(done).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  })

  it('that the broker does not confirm ends the connection', async () => {
    const parts = await granted({ ...KEPT, ...QUICK })
    const done = parts.subscription.unsubscribe()
    await pass(TIMEOUT_MS + 100, 100)
    expect(parts.session.connection.state).toMatchObject({
      status: 'waiting',
      cause: { message: expect.stringContaining('UNSUBSCRIBE of "a"') },
    })
    const second = await comeBack(parts, RESUMED)
    await unsuback(second, 0)
    await done
    await finish(parts)
  })
})

describe('a resumed session', () => {
  it('resolves whenGranted() that was called without a connection', async () => {
    const parts = await granted(KEPT)
    await goOffline(parts)
    const again = parts.subscription.whenGranted()
    const second = await comeBack(parts, RESUMED)
    await again
    expect(countOf(second, 'subscribe')).toBe(0)
    await finish(parts)
  })

  it('loses a filter that was unsubscribed, subscribed and unsubscribed again without a connection', async () => {
    const parts = await granted(KEPT)
    await goOffline(parts)
    void parts.subscription.unsubscribe()
    const removed = parts.mqtt.subscribe('a', ignore).unsubscribe()
    const second = await comeBack(parts, RESUMED)
    await unsuback(second, 0)
    await removed
    expect(countOf(second, 'subscribe')).toBe(0)
    await finish(parts)
  })

  it('has the response topic, so a stream that began without a connection is sent', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const { mqtt, connection } = parts
    const gate = new Gate()
    async function* values() {
      yield 1
    }
    mqtt.respond('first', values)
    mqtt.respond('second', async () => {
      await gate.pass()
      return values()
    })
    await connection.grant()
    await connection.grant()
    connection.send(streamRequest('first'))
    await connection.grant()
    expect(await connection.find('publish')).toMatchObject({ payload: Buffer.from('1') })
    await settle(mqtt)
    connection.send(streamRequest('second'))
    await gate.reached()
    await goOffline(parts)
    gate.open()
    await settle(mqtt)
    const second = await comeBack(parts, RESUMED)
    expect(await second.find('publish')).toMatchObject({ topic: 'to', payload: Buffer.from('1') })
    await settle(mqtt)
    expect(mqtt.stats().requests.openStreams).toBe(0)
    await finish(parts)
  })
})

describe('a stream at QoS 0', () => {
  it('counts the values that were lost with the connection in its end', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const { mqtt, connection } = parts
    const gate = new Gate()
    mqtt.respond('list', async function* () {
      yield 1
      await gate.pass()
      yield 2
    })
    await connection.grant()
    connection.send(streamRequest('list'))
    await connection.grant()
    expect(await connection.find('publish')).toMatchObject({ payload: Buffer.from('1') })
    await goOffline(parts)
    const second = await comeBack(parts, RESUMED)
    gate.open()
    expect(await second.expect('publish')).toMatchObject({ payload: Buffer.from('2') })
    const end = await second.expect('publish')
    expect({ ...end.properties?.userProperties }).toEqual({ status: 'end', values: '2' })
    await finish(parts)
  })
})

describe('a Shared Subscription', () => {
  it.each(VERSIONS)(
    'with MQTT version %i warns once per filter if support for it is unknown',
    async version => {
      const parts = await subscriberOnPeer({ protocolVersion: version })
      parts.mqtt.subscribe('a/+', ignore, { sharedGroup: 'g' })
      parts.mqtt.subscribe('b', ignore)
      await settle(parts.mqtt)
      await goOffline(parts)
      await comeBack(parts)
      await settle(parts.mqtt)
      const warnings = parts.log.visible.filter(text => text.includes('Shared Subscriptions'))
      expect(warnings).toEqual(
        version === 5 ? [] : [expect.stringContaining('grants "$share/g/a/+" and delivers nothing')],
      )
      await finish(parts)
    },
  )
})

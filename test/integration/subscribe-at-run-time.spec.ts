import { describe, expect, it } from 'vitest'
import type { PeerConnection } from '../../src/testing/index.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass } from '../support/publisher-on-peer.js'
import { acks, countOf, json, KEPT, qos1, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

const RESUMED = { sessionPresent: true }
const ignore = (): void => {}

/** Filters of the SUBSCRIBE and UNSUBSCRIBE packets that arrived: `+a` and `-a`. */
function wishes(connection: PeerConnection): string[] {
  return connection.received.flatMap(packet => {
    if (packet.cmd === 'subscribe') return packet.subscriptions.map(({ topic }) => `+${topic}`)
    return packet.cmd === 'unsubscribe' ? packet.unsubscriptions.map(topic => `-${topic}`) : []
  })
}

async function answerUnsubscribe(connection: PeerConnection): Promise<void> {
  const { messageId = 0, unsubscriptions } = await connection.find('unsubscribe')
  connection.send({ cmd: 'unsuback', messageId, granted: unsubscriptions.map(() => 0) })
}

/** How a promise stands. */
function watch(promise: Promise<void>): { state: string } {
  const watched = { state: 'pending' }
  promise.then(
    () => {
      watched.state = 'resolved'
    },
    (error: { code?: string }) => {
      watched.state = error.code ?? String(error)
    },
  )
  return watched
}

describe('subscribe', () => {
  it('sends SUBSCRIBE at once, and its handler receives messages after reconnects', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    const seen: unknown[] = []
    mqtt.subscribe<{ rate: number }>('devices/+id/#', message => {
      const { topic, payload, params, qos, retain, dup, properties } = message
      seen.push([topic, payload.rate, params, qos, retain, dup, properties.contentType])
    })
    expect(await connection.grant()).toMatchObject({ subscriptions: [{ topic: 'devices/+/#', qos: 1 }] })
    const fields = {
      qos: 1,
      messageId: 1,
      retain: true,
      properties: { contentType: 'application/json' },
    } as const
    connection.send(json('devices/7/a', { rate: 5 }, fields))
    await settle(mqtt)
    expect(seen).toEqual([['devices/7/a', 5, { id: '7' }, 1, true, false, 'application/json']])
    await goOffline(parts)
    const second = await comeBack(parts)
    expect(await second.grant()).toMatchObject({ subscriptions: [{ topic: 'devices/+/#' }] })
    second.send(json('devices/8', { rate: 6 }))
    await settle(mqtt)
    expect(seen[1]).toEqual(['devices/8', 6, { id: '8' }, 0, false, false, undefined])
    await finish(parts)
  })

  it('with an invalid pattern or an unknown option fails at once', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    expect(() => mqtt.subscribe('a/#/b', ignore)).toThrow(
      expect.objectContaining({ code: 'INVALID_TOPIC_FILTER' }),
    )
    expect(() => Reflect.apply(mqtt.subscribe, mqtt, ['a', ignore, { qos: 3 }])).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
    await settle(mqtt)
    expect(wishes(connection)).toEqual([])
    await finish(parts)
  })

  it('with higher options than the first handler of a filter sends SUBSCRIBE again', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    mqtt.subscribe('a', ignore, { qos: 0 })
    expect(await connection.grant()).toMatchObject({ subscriptions: [{ topic: 'a', qos: 0 }] })
    mqtt.subscribe('a', ignore, { qos: 1 })
    expect(await connection.grant()).toMatchObject({ subscriptions: [{ topic: 'a', qos: 1 }] })
    mqtt.subscribe('a', ignore, { qos: 0 })
    await settle(mqtt)
    expect(wishes(connection)).toEqual(['+a', '+a'])
    await finish(parts)
  })
})

describe('unsubscribe', () => {
  it('is sent once, when the last handler of a filter is removed', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    const seen: string[] = []
    const first = mqtt.subscribe('a', () => {
      seen.push('first')
    })
    await connection.grant()
    const second = mqtt.subscribe('a', () => {
      seen.push('second')
    })
    first.unsubscribe()
    first.unsubscribe()
    connection.send(qos1('a', 1))
    await settle(mqtt)
    expect(seen).toEqual(['second'])
    expect(wishes(connection)).toEqual(['+a'])
    second.unsubscribe()
    second.unsubscribe()
    await settle(mqtt)
    expect(wishes(connection)).toEqual(['+a', '-a'])
    await answerUnsubscribe(connection)
    connection.send(qos1('a', 2))
    await settle(mqtt)
    expect(seen).toEqual(['second'])
    expect(acks(connection)).toEqual([1, 2])
    expect(mqtt.stats().subscriptions).toEqual({ granted: 0, refused: 0, pending: 0, unsubscribesRefused: 0 })
    await finish(parts)
  })

  it('without a connection: a clean session does not subscribe to it again', async () => {
    const parts = await subscriberOnPeer()
    const gone = parts.mqtt.subscribe('a', ignore)
    await parts.connection.grant()
    parts.mqtt.subscribe('b', ignore)
    await parts.connection.grant()
    await goOffline(parts)
    gone.unsubscribe()
    const second = await comeBack(parts)
    await settle(parts.mqtt)
    expect(wishes(second)).toEqual(['+b'])
    await finish(parts)
  })

  it('without a connection: many distinct filters leave nothing behind', async () => {
    for (const options of [{}, KEPT]) {
      const parts = await subscriberOnPeer(options)
      await goOffline(parts)
      for (let id = 0; id < 1_000; id += 1) parts.mqtt.subscribe(`a/${id}`, ignore).unsubscribe()
      const second = await comeBack(parts, { sessionPresent: options === KEPT })
      await settle(parts.mqtt)
      expect(wishes(second)).toEqual([])
      await finish(parts)
    }
  })

  it('without a connection: a persistent session gets UNSUBSCRIBE when it is resumed, until UNSUBACK', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const gone = parts.mqtt.subscribe('a', ignore)
    await parts.connection.grant()
    await goOffline(parts)
    gone.unsubscribe()
    const second = await comeBack(parts, RESUMED)
    await settle(parts.mqtt)
    expect(wishes(second)).toEqual(['-a'])
    await goOffline({ ...parts, connection: second })
    const third = await comeBack(parts, RESUMED)
    await settle(parts.mqtt)
    expect(wishes(third)).toEqual(['-a'])
    await answerUnsubscribe(third)
    await settle(parts.mqtt)
    await goOffline({ ...parts, connection: third })
    const fourth = await comeBack(parts, RESUMED)
    await settle(parts.mqtt)
    expect(wishes(fourth)).toEqual([])
    await finish(parts)
  })

  it('without a connection: a lost session needs no UNSUBSCRIBE', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const gone = parts.mqtt.subscribe('a', ignore)
    await parts.connection.grant()
    await goOffline(parts)
    gone.unsubscribe()
    const second = await comeBack(parts, { sessionPresent: false })
    await settle(parts.mqtt)
    expect(wishes(second)).toEqual([])
    await finish(parts)
  })

  it('and subscribe without a connection: the persistent session keeps the subscription', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const gone = parts.mqtt.subscribe('a', ignore)
    await parts.connection.grant()
    await goOffline(parts)
    gone.unsubscribe()
    parts.mqtt.subscribe('a', ignore)
    const second = await comeBack(parts, RESUMED)
    await settle(parts.mqtt)
    expect(wishes(second)).not.toContain('-a')
    await finish(parts)
  })

  it('and subscribe again while UNSUBSCRIBE is in flight: SUBSCRIBE follows it', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    mqtt.subscribe('a', ignore).unsubscribe()
    const seen: unknown[] = []
    const again = mqtt.subscribe('a', ({ payload }) => {
      seen.push(payload)
    })
    await settle(mqtt)
    expect(wishes(connection)).toEqual(['+a', '-a', '+a'])
    await connection.grant()
    await answerUnsubscribe(connection)
    await connection.grant()
    await again.whenGranted()
    connection.send(json('a', 1))
    await settle(mqtt)
    expect(seen).toEqual([1])
    expect(mqtt.stats().subscriptions).toEqual({ granted: 1, refused: 0, pending: 0, unsubscribesRefused: 0 })
    await finish(parts)
  })

  it('of a Shared Subscription names its group', async () => {
    const parts = await subscriberOnPeer()
    const shared = parts.mqtt.subscribe('a/+', ignore, { sharedGroup: 'g' })
    await parts.connection.grant()
    shared.unsubscribe()
    await settle(parts.mqtt)
    expect(wishes(parts.connection)).toEqual(['+$share/g/a/+', '-$share/g/a/+'])
    await finish(parts)
  })
})

describe('whenGranted', () => {
  it('resolves with the SUBACK, and at once afterwards', async () => {
    const parts = await subscriberOnPeer()
    const subscription = parts.mqtt.subscribe('a', ignore)
    const granted = watch(subscription.whenGranted())
    await settle(parts.mqtt)
    expect(granted.state).toBe('pending')
    await parts.connection.grant()
    await settle(parts.mqtt)
    expect(granted.state).toBe('resolved')
    await subscription.whenGranted()
    await finish(parts)
  })

  it('rejects with a refusal, at once afterwards, and resolves when the broker grants it later', async () => {
    const parts = await subscriberOnPeer()
    const subscription = parts.mqtt.subscribe('a', ignore)
    const refused = subscription.whenGranted()
    await parts.connection.grant(0x87)
    const refusal = { code: 'SUBSCRIBE_REFUSED', reasonCode: 0x87 }
    await expect(refused).rejects.toMatchObject(refusal)
    await expect(subscription.whenGranted()).rejects.toMatchObject(refusal)
    expect(parts.mqtt.health).toMatchObject({ state: 'degraded', refusedSubscriptions: ['a'] })
    await goOffline(parts)
    const second = await comeBack(parts)
    const granted = watch(subscription.whenGranted())
    await second.grant()
    await settle(parts.mqtt)
    expect(granted.state).toBe('resolved')
    expect(parts.mqtt.health.state).toBe('up')
    await finish(parts)
  })

  it.each([
    ['larger than the Maximum Packet Size of the broker', 'a'.repeat(200), 0x95, { maximumPacketSize: 100 }],
    ['with a wildcard where the broker has none', 'a/+', 0xa2, { wildcardSubscriptionAvailable: false }],
    ['shared where the broker does not share', '$share/g/a', 0x9e, { sharedSubscriptionAvailable: false }],
  ])('rejects for a filter that is %s', async (_case, filter, reasonCode, properties) => {
    const parts = await subscriberOnPeer({}, { properties })
    const subscription = parts.mqtt.subscribe(filter, ignore)
    const refusal = { code: 'SUBSCRIBE_REFUSED', reasonCode }
    await expect(subscription.whenGranted()).rejects.toMatchObject(refusal)
    await expect(subscription.whenGranted()).rejects.toMatchObject(refusal)
    expect(wishes(parts.connection)).toEqual([])
    await finish(parts)
  })

  it('ends at its time limit or when its signal is aborted, and leaves nothing behind', async () => {
    const parts = await subscriberOnPeer()
    const subscription = parts.mqtt.subscribe('a', ignore)
    const controller = new AbortController()
    const timed = watch(subscription.whenGranted({ timeoutMs: 50 }))
    const aborted = watch(subscription.whenGranted({ signal: controller.signal }))
    controller.abort()
    await pass(50)
    expect([timed.state, aborted.state]).toEqual(['TIMEOUT', 'ABORTED'])
    const late = watch(subscription.whenGranted({ signal: controller.signal }))
    const patient = watch(subscription.whenGranted({ timeoutMs: 5_000 }))
    await parts.connection.grant()
    await settle(parts.mqtt)
    expect([late.state, patient.state]).toEqual(['ABORTED', 'resolved'])
    await finish(parts)
  })

  it('rejects when the connection is closed, while it waits and afterwards', async () => {
    const parts = await subscriberOnPeer()
    const subscription = parts.mqtt.subscribe('a', ignore)
    const waiting = watch(subscription.whenGranted())
    await finish(parts)
    await quiet()
    expect(waiting.state).toBe('CONNECTION_CLOSED')
    await expect(subscription.whenGranted()).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  })

  it('rejects when it is unsubscribed, also afterwards', async () => {
    const parts = await subscriberOnPeer()
    const subscription = parts.mqtt.subscribe('a', ignore)
    const waiting = watch(subscription.whenGranted())
    subscription.unsubscribe()
    await settle(parts.mqtt)
    expect(waiting.state).toBe('SUBSCRIBE_REFUSED')
    await expect(subscription.whenGranted()).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED' })
    await finish(parts)
  })

  it('waits after a lost connection for the SUBACK of the next one', async () => {
    const parts = await subscriberOnPeer()
    const granted = watch(parts.mqtt.subscribe('a', ignore).whenGranted())
    await goOffline(parts)
    await settle(parts.mqtt)
    expect(granted.state).toBe('pending')
    const second = await comeBack(parts)
    await second.grant()
    await settle(parts.mqtt)
    expect(granted.state).toBe('resolved')
    expect(countOf(second, 'subscribe')).toBe(1)
    await finish(parts)
  })
})

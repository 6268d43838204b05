import { describe, expect, it, vi } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import { memoryStore } from '../../src/testing/memory-store.js'
import { holdClock } from '../support/held-clock.js'
import {
  comeBack,
  expectAddsUp,
  finish,
  flow,
  goOffline,
  pass,
  SlowLink,
  Watched,
} from '../support/publisher-on-peer.js'
import { sessionOnPeer } from '../support/session-on-peer.js'
import {
  Acknowledging,
  publishesOn,
  STORED,
  storingOnPeer,
  waitUntilStored,
} from '../support/stored-publishes.js'

holdClock()

const IS_STORED = { status: 'stored', messageId: expect.any(String) }
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

describe('a publish before the client has started', () => {
  it('opens the store and is stored, and is sent when the client has connected', async () => {
    const store = memoryStore()
    const { peer, session } = sessionOnPeer({ store, drainTimeoutMs: 0 })
    const mqtt = new MqttService(session)
    const publish = new Watched(mqtt.publish('alarm', 1, STORED))
    await flow()
    expect(publish.outcome).toEqual(IS_STORED)
    const started = session.start()
    const connection = await peer.accept()
    await started
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1'])
    await finish({ mqtt, session })
  })

  it('is stored even if the client is closed without a start', async () => {
    const store = memoryStore()
    const { session } = sessionOnPeer({ store, drainTimeoutMs: 0 })
    const mqtt = new MqttService(session)
    const publish = new Watched(mqtt.publish('alarm', 1, STORED))
    await finish({ mqtt, session })
    expect(publish.outcome).toEqual(IS_STORED)
    expect(store.contents.messages).toBe(1)
  })

  it('is dropped as store-failed if the store cannot be opened, and so is the start', async () => {
    const store = memoryStore()
    store.failWith(new Error('no such folder'))
    const { session, log } = sessionOnPeer({ store, drainTimeoutMs: 0 })
    const mqtt = new MqttService(session)
    const publish = new Watched(mqtt.publish('alarm', 1, STORED))
    await flow()
    expect(publish.outcome).toEqual({ status: 'dropped', reason: 'store-failed' })
    await expect(session.start()).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(log.visible.join('\n')).toContain('no such folder')
    await finish({ mqtt, session })
  })
})

describe('a message that the store evicts in the commit that stores it', () => {
  it('is counted once, and not sent', async () => {
    const parts = await storingOnPeer(
      { store: memoryStore({ maxMessages: 2 }) },
      { properties: { receiveMaximum: 1 } },
    )
    // The first one is in flight, and all are stored together.
    for (const payload of numbers(6)) parts.publish('alarm', payload)
    await flow()
    await new Acknowledging(parts.connection).untilQuiet()
    expect(publishesOn(parts.connection)).toEqual(['alarm 0', 'alarm 4', 'alarm 5'])
    const { stored, delivered, evicted } = parts.mqtt.stats().store ?? {}
    expect({ stored, delivered, evicted }).toEqual({ stored: 6, delivered: 2, evicted: 4 })
    expectAddsUp(parts.mqtt)
    await finish(parts)
  })

  it('does not let a later message of its topic overtake', async () => {
    const parts = await storingOnPeer({ store: memoryStore({ maxMessages: 2 }), storeAfterMs: 0 })
    const slow = await SlowLink.of(parts, 0)
    // In flight and stored at the same time, and two of them are evicted at once.
    for (const payload of numbers(4)) parts.publish('alarm', payload)
    await flow()
    const filler = new Watched(parts.mqtt.publish('filler', Buffer.alloc(2_048)))
    await flow()
    parts.publish('alarm', 4)
    await flow()
    await slow.free()
    parts.publish('alarm', 5)
    await new Acknowledging(parts.connection).untilQuiet()
    expect(filler.outcome).toEqual({ status: 'sent' })
    expect(publishesOn(parts.connection).filter(text => text.startsWith('alarm'))).toEqual(
      numbers(6).map(number => `alarm ${number}`),
    )
    expectAddsUp(parts.mqtt)
    await finish(parts)
  })
})

describe('a message that expires while a read of the store is pending', () => {
  it('is counted once', async () => {
    const store = memoryStore({ maxAgeMs: 120_000 })
    const parts = await storingOnPeer({ store })
    await goOffline(parts)
    parts.publish('alarm', 1)
    await flow()
    const read = store.read.bind(store)
    let give = (): void => {}
    vi.spyOn(store, 'read').mockImplementationOnce(async (...given) => {
      const found = await read(...given)
      await new Promise<void>(resolve => {
        give = resolve
      })
      return found
    })
    const connection = await comeBack(parts)
    await flow()
    vi.setSystemTime(Date.now() + 121_000)
    await pass(60_000)
    give()
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual([])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 1, expired: 1, messages: 0 })
    expect(parts.settlements).toHaveLength(1)
    await finish(parts)
  })
})

describe('the age of a stored message', () => {
  it('is limited by maxAgeMs while the message waits for a slow link', async () => {
    const parts = await storingOnPeer({ store: memoryStore({ maxAgeMs: 5_000 }) })
    const slow = await SlowLink.of(parts)
    const publish = parts.publish('alarm', 1)
    await flow()
    expect(publish.outcome).toEqual(IS_STORED)
    await pass(6_000, 500)
    await slow.free()
    await new Acknowledging(parts.connection).untilQuiet()
    expect(publishesOn(parts.connection).filter(text => text.startsWith('alarm'))).toEqual([])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 1, expired: 1 })
    await finish(parts)
  })

  it.each([0, 1])('with a Message Expiry Interval of %i s is not extended', async messageExpiryInterval => {
    const parts = await storingOnPeer()
    const properties = { messageExpiryInterval }
    parts.publish('alarm', 1, { properties })
    const sent = await parts.connection.expect('publish')
    expect(sent.properties?.messageExpiryInterval).toBe(messageExpiryInterval)
    await new Acknowledging(parts.connection).all()
    await goOffline(parts)
    const late = parts.publish('alarm', 2, { properties })
    await flow()
    expect(late.outcome).toEqual(IS_STORED)
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual([])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 1, expired: 1 })
    await finish(parts)
  })

  it('does not end while the clock is set back, and order and delivery do not depend on it', async () => {
    const parts = await storingOnPeer({ store: memoryStore({ maxAgeMs: 60_000 }) })
    await goOffline(parts)
    const properties = { messageExpiryInterval: 30 }
    parts.publish('alarm', 1, { properties })
    await flow()
    vi.setSystemTime(Date.now() - 86_400_000)
    parts.publish('alarm', 2, { properties })
    await flow()
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1', 'alarm 2'])
    const intervals = connection.received.flatMap(packet =>
      packet.cmd === 'publish' ? [packet.properties?.messageExpiryInterval] : [],
    )
    expect(intervals).toEqual([30, 29])
    await finish(parts)
  })
})

describe('a Buffer that the caller uses again after the outcome "stored"', () => {
  it('does not change a message that waits for the link', async () => {
    const parts = await storingOnPeer({}, { properties: { receiveMaximum: 1 } })
    parts.publish('other', 0)
    const payload = Buffer.from('fire')
    const publish = parts.publish('alarm', payload)
    await flow()
    expect(publish.outcome).toEqual(IS_STORED)
    payload.write('none')
    await new Acknowledging(parts.connection).untilQuiet()
    expect(publishesOn(parts.connection)).toEqual(['other 0', 'alarm fire'])
    await finish(parts)
  })

  it('does not change a message that a resumed session sends again', async () => {
    const parts = await storingOnPeer({ clean: false, clientId: 'kept' })
    const payload = Buffer.from('fire')
    const publish = parts.publish('alarm', payload)
    await waitUntilStored()
    expect(publish.outcome).toEqual(IS_STORED)
    payload.write('none')
    await goOffline(parts)
    const connection = await comeBack(parts, { sessionPresent: true })
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm fire again'])
    await finish(parts)
  })
})

describe('a store that still fails when the client closes', () => {
  it('does not keep the process alive', async () => {
    const parts = await storingOnPeer()
    parts.publish('alarm', 1)
    await waitUntilStored()
    parts.store.failWith(new Error('disk I/O error'))
    await new Acknowledging(parts.connection).all()
    await finish(parts)
    const { length } = parts.log.visible
    await pass(5_000, 1_000)
    expect(parts.log.visible).toHaveLength(length)
    parts.store.failWith(undefined)
  })

  it('does not keep the process alive if a read is pending', async () => {
    const parts = await storingOnPeer()
    await goOffline(parts)
    parts.publish('alarm', 1)
    await flow()
    let fail = (): void => {}
    vi.spyOn(parts.store, 'read').mockImplementationOnce(
      () =>
        new Promise((_, reject) => {
          fail = () => reject(new Error('disk I/O error'))
        }),
    )
    await comeBack(parts)
    await flow()
    await finish(parts)
    fail()
    await flow()
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('onStoredSettled', () => {
  it.each([
    [
      'throws',
      () => {
        throw new Error('no table')
      },
    ],
    [
      'rejects',
      async () => {
        await Promise.resolve()
        throw new Error('no table')
      },
    ],
  ])('that %s is logged, and the next messages are reported', async (_what, fail) => {
    const calls: string[] = []
    const onStoredSettled = ({ topic }: { readonly topic: string }) => {
      calls.push(topic)
      return fail()
    }
    const parts = await storingOnPeer({ onStoredSettled })
    await goOffline(parts)
    for (const topic of ['a', 'b']) parts.publish(topic, 1)
    await flow()
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(calls).toEqual(['a', 'b'])
    expect(parts.log.visible.filter(line => line.includes('no table'))).not.toEqual([])
    await finish(parts)
  })
})

describe('a publish with whenBlocked: "store" while the client closes', () => {
  it.each([1_000, 0])('is acknowledged, stored or dropped, with drainTimeoutMs %i', async drainTimeoutMs => {
    const store = memoryStore()
    const parts = await storingOnPeer({ store, drainTimeoutMs })
    const publishes = [parts.publish('alarm', 0)]
    let isClosed = false
    const closed = parts.session.close().then(() => {
      isClosed = true
    })
    while (!isClosed) {
      publishes.push(parts.publish('alarm', publishes.length))
      await pass(50)
    }
    await closed
    publishes.push(parts.publish('alarm', publishes.length))
    await flow()
    const outcomes = publishes.map(({ outcome }) => outcome?.status)
    expect(outcomes.at(-1)).toBe('dropped')
    // From the first that is dropped on, all are.
    const firstDropped = outcomes.indexOf('dropped')
    expect(new Set(outcomes.slice(firstDropped))).toEqual(new Set(['dropped']))
    const kept = outcomes.slice(0, firstDropped).filter(status => status === 'stored').length
    expect(store.contents.messages).toBe(kept)
    expect(kept).toBe(firstDropped)
    expectAddsUp(parts.mqtt)
  })
})

describe('one message that is larger than the store', () => {
  it('is acknowledged on a good link, and dropped as store-full without a connection', async () => {
    const parts = await storingOnPeer({ store: memoryStore({ maxBytes: 1_000 }) })
    const large = 'x'.repeat(1_000)
    const publish = parts.publish('alarm', large)
    await new Acknowledging(parts.connection).all()
    expect(publish.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await goOffline(parts)
    const before = parts.publish('alarm', 1)
    const late = parts.publish('alarm', large)
    await flow()
    expect(late.outcome).toEqual({ status: 'dropped', reason: 'store-full' })
    // It does not evict others in vain.
    expect(before.outcome).toEqual(IS_STORED)
    expect(parts.mqtt.stats().store).toMatchObject({ messages: 1, evicted: 0 })
    await finish(parts)
  })
})

describe('topic aliases', () => {
  it('are not part of a stored message, which is sent with its topic on the next connection', async () => {
    const properties = { topicAliasMaximum: 10 }
    const parts = await storingOnPeer({}, { properties })
    const acknowledging = new Acknowledging(parts.connection)
    for (const payload of [0, 1]) parts.publish('alarm', payload)
    await acknowledging.all()
    parts.publish('alarm', 2)
    await flow()
    await goOffline(parts)
    parts.publish('alarm', 3)
    await flow()
    const connection = await comeBack(parts, { properties })
    await new Acknowledging(connection).untilQuiet()
    const [first, second] = connection.received.flatMap(packet => (packet.cmd === 'publish' ? [packet] : []))
    expect([first?.topic, first?.payload.toString()]).toEqual(['alarm', '2'])
    expect(second?.payload.toString()).toBe('3')
    await finish(parts)
  })
})

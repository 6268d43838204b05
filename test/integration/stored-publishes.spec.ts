import { describe, expect, it, vi } from 'vitest'
import { MqttService } from '../../src/mqtt.service.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { memoryStore } from '../../src/testing/memory-store.js'
import { holdClock } from '../support/held-clock.js'
import {
  comeBack,
  expectAddsUp,
  finish,
  flow,
  goOffline,
  publisherOnPeer,
  Watched,
} from '../support/publisher-on-peer.js'
import { sessionOnPeer } from '../support/session-on-peer.js'
import {
  Acknowledging,
  publishesOn,
  STORED,
  type StoringOnPeer,
  storingOnPeer,
  waitUntilStored,
} from '../support/stored-publishes.js'

holdClock()

const ACKNOWLEDGED = { status: 'acknowledged', reasonCode: 0 }
const IS_STORED = { status: 'stored', messageId: expect.any(String) }

/** A client without a connection. */
async function offline(options: Parameters<typeof storingOnPeer>[0] = {}): Promise<StoringOnPeer> {
  const parts = await storingOnPeer(options)
  await goOffline(parts)
  return parts
}

describe('on a good link, a publish with whenBlocked: "store"', () => {
  it('is acknowledged, and does not touch the store', async () => {
    const parts = await storingOnPeer()
    const add = vi.spyOn(parts.store, 'add')
    const publish = parts.publish('alarm', 1)
    await new Acknowledging(parts.connection).all()
    expect(publish.outcome).toEqual(ACKNOWLEDGED)
    await waitUntilStored()
    expect(add).not.toHaveBeenCalled()
    await finish(parts)
  })

  it('carries its id and the time of the call in User Properties', async () => {
    const parts = await storingOnPeer()
    const nowMs = Date.now()
    parts.publish('alarm', 1, { properties: { userProperties: { site: 'a' } } })
    const { properties } = await parts.connection.expect('publish')
    expect(properties?.userProperties).toEqual({
      site: 'a',
      'message-id': expect.stringMatching(/^[\da-f-]{36}$/),
      'stored-at': new Date(nowMs).toISOString(),
    })
    await new Acknowledging(parts.connection).all()
    await finish(parts)
  })

  it('is refused if the broker refuses it', async () => {
    const parts = await storingOnPeer()
    const publish = parts.publish('alarm', 1)
    await new Acknowledging(parts.connection).all(0x87)
    expect(publish.outcome).toEqual({ status: 'refused', reasonCode: 0x87 })
    expect(parts.mqtt.stats().outbound).toMatchObject({ refused: 1, stored: 0 })
    await finish(parts)
  })

  it('rejects if the message exceeds a limit of the broker', async () => {
    const parts = await storingOnPeer({}, { properties: { maximumPacketSize: 100 } })
    await expect(parts.mqtt.publish('alarm', 'x'.repeat(200), STORED)).rejects.toMatchObject({
      code: 'PACKET_TOO_LARGE',
    })
    await finish(parts)
  })

  it('is stored and acknowledged if storeAfterMs is 0, and sent once', async () => {
    const parts = await storingOnPeer({ storeAfterMs: 0 })
    const publishes = [1, 2, 3].map(payload => parts.publish('alarm', payload))
    await flow()
    expect(publishes.map(({ outcome }) => outcome)).toEqual([IS_STORED, IS_STORED, IS_STORED])
    expect(parts.store.contents.messages).toBe(3)
    expectAddsUp(parts.mqtt)
    await new Acknowledging(parts.connection).untilQuiet()
    expect(publishesOn(parts.connection)).toEqual(['alarm 1', 'alarm 2', 'alarm 3'])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 3, delivered: 3, messages: 0 })
    await finish(parts)
  })
})

describe('without an acknowledgement within storeAfterMs, a publish', () => {
  it('is stored, and removed from the store when the acknowledgement arrives', async () => {
    const parts = await storingOnPeer()
    const publish = parts.publish('alarm', 1)
    await waitUntilStored()
    expect(publish.outcome).toEqual(IS_STORED)
    expect(parts.mqtt.stats()).toMatchObject({ outbound: { stored: 1, inFlight: 0 }, store: { messages: 1 } })
    await new Acknowledging(parts.connection).untilQuiet()
    expect(publishesOn(parts.connection)).toEqual(['alarm 1'])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 1, delivered: 1, messages: 0 })
    expect(parts.settlements).toMatchObject([{ topic: 'alarm', outcome: { status: 'delivered' } }])
    await finish(parts)
  })

  it('is not sent again while the broker may still acknowledge it', async () => {
    const parts = await storingOnPeer()
    parts.publish('alarm', 1)
    await waitUntilStored()
    parts.publish('other', 2)
    await waitUntilStored()
    expect(publishesOn(parts.connection)).toEqual(['alarm 1', 'other 2'])
    await new Acknowledging(parts.connection).untilQuiet()
    await finish(parts)
  })
})

describe('without a connection, a publish with whenBlocked: "store"', () => {
  it('is stored at once, and sent on the next connection', async () => {
    const parts = await offline()
    const publish = parts.publish('alarm', 1)
    await flow()
    expect(publish.outcome).toEqual(IS_STORED)
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1'])
    const messageId = publish.outcome?.status === 'stored' ? publish.outcome.messageId : ''
    expect(parts.settlements).toMatchObject([{ messageId, outcome: { status: 'delivered', reasonCode: 0 } }])
    expect(await parts.mqtt.storedOutcomes({ messageId })).toMatchObject([
      { messageId, topic: 'alarm', outcome: { status: 'delivered', reasonCode: 0 } },
    ])
    expect(await parts.mqtt.storedOutcomes({ messageId: 'another' })).toEqual([])
    await finish(parts)
  })

  it('is sent with the message-id and stored-at of the call', async () => {
    const parts = await offline()
    const storedAt = new Date(Date.now()).toISOString()
    const publish = parts.publish('alarm', 1)
    await flow()
    const connection = await comeBack(parts)
    const { properties } = await connection.expect('publish')
    const messageId = publish.outcome?.status === 'stored' ? publish.outcome.messageId : ''
    expect(properties?.userProperties).toMatchObject({ 'message-id': messageId, 'stored-at': storedAt })
    await new Acknowledging(connection).untilQuiet()
    await finish(parts)
  })

  it('is sent with the rest of its Message Expiry Interval', async () => {
    const parts = await offline({ reconnect: { delayMs: [30_000] } })
    parts.publish('alarm', 1, { properties: { messageExpiryInterval: 60 } })
    await flow()
    vi.advanceTimersByTime(29_500)
    parts.peer.refuse(0)
    vi.advanceTimersByTime(500)
    const connection = await parts.peer.accept()
    const { properties } = await connection.find('publish')
    expect(properties?.messageExpiryInterval).toBe(30)
    await new Acknowledging(connection).untilQuiet()
    await finish(parts)
  })

  it('is not sent after its Message Expiry Interval, and ends as expired', async () => {
    const parts = await offline({ reconnect: { delayMs: [30_000] } })
    parts.publish('alarm', 1, { properties: { messageExpiryInterval: 20 } })
    parts.publish('alarm', 2)
    await flow()
    vi.advanceTimersByTime(30_000)
    const connection = await parts.peer.accept()
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 2'])
    expect(parts.settlements.map(({ outcome }) => outcome.status)).toEqual(['expired', 'delivered'])
    expect(parts.log.visible.join('\n')).toContain(
      'a stored message for "alarm" was removed, because it waited longer',
    )
    await finish(parts)
  })
})

describe('a publish that is unacknowledged when the connection ends', () => {
  it('is stored, and sent again on the next connection', async () => {
    const parts = await storingOnPeer()
    const publishes = [1, 2].map(payload => parts.publish('alarm', payload))
    await flow()
    await goOffline(parts)
    await flow()
    expect(publishes.map(({ outcome }) => outcome)).toEqual([IS_STORED, IS_STORED])
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1', 'alarm 2'])
    await finish(parts)
  })

  it('is sent once more by the resumed session, with DUP, and not from the store', async () => {
    const parts = await storingOnPeer({ clean: false, clientId: 'kept' })
    const publish = parts.publish('alarm', 1)
    await flow()
    await goOffline(parts)
    await waitUntilStored()
    expect(publish.outcome).toEqual(IS_STORED)
    const connection = await comeBack(parts, { sessionPresent: true })
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1 again'])
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 1, messages: 0 })
    await finish(parts)
  })

  it('is sent from the store if the broker has lost the session', async () => {
    const parts = await storingOnPeer({ clean: false, clientId: 'kept' })
    parts.publish('alarm', 1)
    await flow()
    await goOffline(parts)
    await waitUntilStored()
    const connection = await comeBack(parts, { sessionPresent: false })
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1'])
    await finish(parts)
  })
})

describe('the store after a restart', () => {
  it('is sent by itself, in order, before later messages of its topics', async () => {
    const store = memoryStore()
    const before = await offline({ store })
    for (const payload of [1, 2, 3]) before.publish('alarm', payload)
    await flow()
    await finish(before)
    // Only one message is sent before it.
    const after = await storingOnPeer({ store }, { properties: { receiveMaximum: 1 } })
    after.publish('alarm', 4)
    await new Acknowledging(after.connection).untilQuiet()
    expect(publishesOn(after.connection)).toEqual(['alarm 1', 'alarm 2', 'alarm 3', 'alarm 4'])
    expect(after.mqtt.stats().store).toMatchObject({ stored: 4, delivered: 4, messages: 0 })
    await finish(after)
  })

  it('has what was unacknowledged at the end of the drain', async () => {
    const store = memoryStore()
    const before = await storingOnPeer({ store })
    const publish = before.publish('alarm', 1)
    await flow()
    await finish(before)
    expect(publish.outcome).toEqual(IS_STORED)
    const after = await storingOnPeer({ store })
    await new Acknowledging(after.connection).untilQuiet()
    expect(publishesOn(after.connection)).toEqual(['alarm 1'])
    await finish(after)
  })

  it('does not make the drain wait for its messages', async () => {
    const store = memoryStore()
    const before = await offline({ store, drainTimeoutMs: 5_000 })
    for (let payload = 0; payload < 2_000; payload += 1) before.publish('alarm', payload)
    await flow()
    const connection = await comeBack(before)
    await flow()
    const closed = before.session.close()
    await new Acknowledging(connection).untilQuiet()
    await closed
    const { stored, delivered, messages } = before.mqtt.stats().store ?? {}
    expect(stored).toBe(2_000)
    expect(messages).toBeGreaterThan(0)
    expect(publishesOn(connection)).toHaveLength(delivered ?? 0)
  })
})

describe('a publish after close()', () => {
  it('is dropped as closed', async () => {
    const parts = await storingOnPeer()
    await finish(parts)
    expect(await parts.mqtt.publish('alarm', 1, STORED)).toEqual({ status: 'dropped', reason: 'closed' })
  })
})

describe('a store that fails', () => {
  it('drops what cannot be sent, as store-failed', async () => {
    const parts = await offline()
    parts.store.failWith(new Error('disk I/O error'))
    const publish = parts.publish('alarm', 1)
    await flow()
    expect(publish.outcome).toEqual({ status: 'dropped', reason: 'store-failed' })
    expect(parts.mqtt.stats().store).toMatchObject({ failedWrites: 1, messages: 0 })
    expect(parts.mqtt.health.reasons).toContain('the message store failed in the last minute')
    expect(parts.log.visible.join('\n')).toContain('the message store failed: ')
    parts.store.failWith(undefined)
    await finish(parts)
  })

  it('does not hinder a publish on a good link', async () => {
    const parts = await storingOnPeer({ storeAfterMs: 0 })
    parts.store.failWith(new Error('disk I/O error'))
    const publish = parts.publish('alarm', 1)
    await flow()
    expect(publish.outcome).toBeUndefined()
    await new Acknowledging(parts.connection).all()
    expect(publish.outcome).toEqual(ACKNOWLEDGED)
    parts.store.failWith(undefined)
    await finish(parts)
  })

  it('makes a sent publish lost if the connection ends as well', async () => {
    const parts = await storingOnPeer({ storeAfterMs: 0 })
    parts.store.failWith(new Error('disk I/O error'))
    const publish = parts.publish('alarm', 1)
    await flow()
    await goOffline(parts)
    expect(publish.outcome).toMatchObject({ status: 'lost', cause: { code: 'STORE_FAILED' } })
    parts.store.failWith(undefined)
    await finish(parts)
  })

  it('keeps the outcomes that it could not write, and writes them later', async () => {
    const parts = await offline()
    parts.publish('alarm', 1)
    await flow()
    const connection = await comeBack(parts)
    await flow()
    parts.store.failWith(new Error('disk I/O error'))
    await new Acknowledging(connection).untilQuiet()
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 0, messages: 1 })
    parts.store.failWith(undefined)
    vi.advanceTimersByTime(1_000)
    await flow()
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 1, messages: 0 })
    expect(publishesOn(connection)).toEqual(['alarm 1'])
    await finish(parts)
  })

  it('that was damaged and has repaired itself is in the log', async () => {
    const store = memoryStore()
    const open = store.open.bind(store)
    store.open = listener => {
      listener.repaired?.('the store was damaged and has been repaired')
      return open(listener)
    }
    const parts = await storingOnPeer({ store })
    expect(parts.log.visible).toContain('the store was damaged and has been repaired')
    await finish(parts)
  })

  it('is closed again if the start fails, so that the next client can open it', async () => {
    const store = memoryStore()
    const { peer, session } = sessionOnPeer({ store, connect: 'fail-fast' })
    peer.refuse(1)
    await expect(session.start()).rejects.toMatchObject({ code: 'CONNECT_FAILED' })
    await finish(await storingOnPeer({ store }))
  })

  it('that cannot be opened fails the start', async () => {
    const store = memoryStore()
    store.failWith(new Error('no such folder'))
    await expect(publisherOnPeer({ store })).rejects.toMatchObject({ code: 'STORE_FAILED' })
  })

  it('that could not be opened is opened by the next start', async () => {
    const store = memoryStore()
    store.failWith(new Error('locked by another process'))
    const { session } = sessionOnPeer({ store, connect: 'background', drainTimeoutMs: 0 })
    await expect(session.start()).rejects.toMatchObject({ code: 'STORE_FAILED' })
    store.failWith(undefined)
    const mqtt = new MqttService(session)
    const before = new Watched(mqtt.publish('alarm', 1, STORED))
    await flow()
    expect(before.outcome).toEqual({ status: 'dropped', reason: 'store-failed' })
    await session.start()
    const after = new Watched(mqtt.publish('alarm', 2, STORED))
    await flow()
    await finish({ mqtt, session })
    expect(after.outcome).toEqual({ status: 'stored', messageId: expect.any(String) })
  })
})

describe('a store that is full', () => {
  it('rejects new messages as store-full with drop-newest', async () => {
    const parts = await offline({ store: memoryStore({ maxMessages: 2, overflow: 'drop-newest' }) })
    const publishes = [1, 2, 3].map(payload => parts.publish('alarm', payload))
    await flow()
    expect(publishes.map(({ outcome }) => outcome)).toEqual([
      IS_STORED,
      IS_STORED,
      { status: 'dropped', reason: 'store-full' },
    ])
    await finish(parts)
  })

  it('ends the oldest messages as evicted with drop-oldest, and reports them', async () => {
    const parts = await offline({ store: memoryStore({ maxMessages: 2 }) })
    for (const payload of [1, 2, 3]) parts.publish('alarm', payload)
    await flow()
    expect(parts.settlements.map(({ outcome }) => outcome.status)).toEqual(['evicted'])
    expect(parts.log.visible.join('\n')).toContain(
      'a stored message for "alarm" was removed, because a limit of the store is reached',
    )
    expect(parts.mqtt.health.reasons).toContain('the store is 100 % full: 2 messages')
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 2', 'alarm 3'])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 3, delivered: 2, evicted: 1 })
    await finish(parts)
  })
})

describe('a mistake in a call', () => {
  it.each([
    ['QoS 0', { whenBlocked: 'store' }, /QoS 0 has no acknowledgement; set "qos" to 1 or 2/],
    ['a time limit', { ...STORED, timeoutMs: 5 }, /"timeoutMs" and "signal" have no effect/],
    ['a signal', { ...STORED, signal: new AbortController().signal }, /"timeoutMs" and "signal" have no/],
  ] as const)('is %s with whenBlocked: "store"', async (_what, options, message) => {
    const parts = await storingOnPeer()
    await expect(parts.mqtt.publish('alarm', 1, options)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(message),
    })
    await finish(parts)
  })

  it('is whenBlocked: "store" on a client without a store', async () => {
    const parts = await publisherOnPeer()
    await expect(parts.mqtt.publish('alarm', 1, STORED)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('there is no "store"; set it'),
    })
    await expect(parts.mqtt.storedOutcomes()).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await finish(parts)
  })

  it.each([
    [{ outbound: { whenBlocked: 'store' } }, '"outbound.whenBlocked" is "store", but there is no "store"'],
    [{ storeAfterMs: 10 }, '"storeAfterMs" is set, but there is no "store"'],
    [{ onStoredSettled: () => {} }, '"onStoredSettled" is set, but there is no "store"'],
  ] as const)('is an option of the store without a store: %o', (options, message) => {
    expect(() => resolveOptions({ url: 'mqtt://localhost', ...options })).toThrow(message)
  })
})

describe('whenBlocked: "store" as the default of a connection', () => {
  it('applies to publishes that do not set another policy', async () => {
    const parts = await offline({ outbound: { whenBlocked: 'store' } })
    expect(await parts.mqtt.publish('alarm', 1, { qos: 1 })).toEqual(IS_STORED)
    expect(await parts.mqtt.publish('alarm', 2, { qos: 1, whenBlocked: 'drop' })).toEqual({
      status: 'dropped',
      reason: 'offline',
    })
    expect(parts.mqtt.tryPublish('alarm', 3)).toEqual({ status: 'dropped', reason: 'offline' })
    await expect(parts.mqtt.publish('alarm', 4)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await finish(parts)
  })
})

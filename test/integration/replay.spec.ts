import { describe, expect, it, vi } from 'vitest'
import { memoryStore } from '../../src/testing/memory-store.js'
import { holdClock } from '../support/held-clock.js'
import {
  comeBack,
  expectAddsUp,
  finish,
  flow,
  goOffline,
  pass,
  RECONNECT_MS,
  SlowLink,
  Watched,
} from '../support/publisher-on-peer.js'
import { Acknowledging, publishesOn, storingOnPeer, waitUntilStored } from '../support/stored-publishes.js'

holdClock()

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

/** A client without a connection whose store has this many messages of one topic. */
async function withStored(count: number, options: Parameters<typeof storingOnPeer>[0] = {}) {
  const parts = await storingOnPeer(options)
  await goOffline(parts)
  for (const payload of numbers(count)) parts.publish('stored', payload)
  await flow()
  expect(parts.store.contents.messages).toBe(count)
  return parts
}

describe('the order of stored messages', () => {
  it('is that of the calls, for those that were in flight and those that were stored at once', async () => {
    const parts = await storingOnPeer()
    await SlowLink.of(parts, 0)
    for (const payload of numbers(40))
      parts.publish(`t/${payload % 2}`, Buffer.from(`${payload} ${'x'.repeat(200)}`))
    await flow()
    // Some are in flight, and the others are stored, because the link takes no more.
    const sent = publishesOn(parts.connection).length
    expect([sent > 0, sent < 40, parts.mqtt.stats().outbound.stored]).toEqual([true, true, 40])
    expectAddsUp(parts.mqtt)
    await goOffline(parts)
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    const received = publishesOn(connection)
    for (const topic of ['t/0', 't/1']) {
      const items = received.filter(text => text.startsWith(topic)).map(text => Number(text.split(' ')[1]))
      expect(items).toEqual(numbers(40).filter(item => `t/${item % 2}` === topic))
    }
    await finish(parts)
  })

  it('does not concern publishes of other policies, which wait for nothing', async () => {
    const parts = await withStored(10)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 1 } })
    expect(await parts.mqtt.publish('stored', 99)).toEqual({ status: 'sent' })
    await flow()
    expect(publishesOn(connection).slice(0, 2)).toEqual(['stored 0', 'stored 99'])
    await new Acknowledging(connection).untilQuiet()
    await finish(parts)
  })

  it('does not repeat a message that was acknowledged while it waited behind others', async () => {
    const parts = await withStored(300)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 10 } })
    await flow()
    parts.publish('other', 1)
    await waitUntilStored()
    const acknowledged = new Set<number>()
    const acknowledge = async (isLeftOut: (topic: string) => boolean): Promise<void> => {
      for (const [index, packet] of connection.received.entries()) {
        if (packet.cmd !== 'publish' || acknowledged.has(index) || isLeftOut(packet.topic)) continue
        acknowledged.add(index)
        connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0 })
      }
      await flow()
    }
    while (publishesOn(connection).length < 290) await acknowledge(topic => topic === 'other')
    for (let before = -1; before !== acknowledged.size; ) {
      before = acknowledged.size
      await acknowledge(() => false)
    }
    expect(publishesOn(connection).filter(text => text === 'other 1')).toHaveLength(1)
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 301, delivered: 301, messages: 0 })
    await finish(parts)
  })

  it('lets a message of another topic go at once', async () => {
    const parts = await withStored(10)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 2 } })
    await flow()
    const other = parts.publish('other', 1)
    const same = parts.publish('stored', 10)
    await flow()
    expect(publishesOn(connection)).toEqual(['stored 0', 'other 1'])
    const broker = new Acknowledging(connection)
    await broker.all()
    expect(other.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await broker.untilQuiet()
    expect(same.outcome).toMatchObject({ status: 'stored' })
    expect(publishesOn(connection).at(-1)).toBe('stored 10')
    await finish(parts)
  })
})

describe('replay beside other publishes', () => {
  it('leaves room in the in-flight window', async () => {
    const parts = await withStored(30)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 8 } })
    await flow()
    expect(publishesOn(connection)).toHaveLength(6)
    const live = new Watched(parts.mqtt.publish('live', 1, { qos: 1 }))
    await flow()
    expect(publishesOn(connection).at(-1)).toBe('live 1')
    const broker = new Acknowledging(connection)
    await broker.all()
    expect(live.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await broker.untilQuiet()
    await finish(parts)
  })

  it('does not exceed Receive Maximum', async () => {
    const parts = await withStored(30)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 1 } })
    const broker = new Acknowledging(connection)
    for (let count = 1; count <= 30; count += 1) {
      await flow()
      expect(publishesOn(connection)).toHaveLength(count)
      await broker.all(0, 1)
    }
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 30 })
    await finish(parts)
  })

  it('gets a tenth of a link on which others wait', async () => {
    const parts = await withStored(2_000, { outbound: { maxQueued: 10_000, maxQueuedBytes: 10_000_000 } })
    const payload = Buffer.alloc(90, 'x')
    const live = numbers(4_000).map(() => parts.mqtt.publish('live', payload, { whenBlocked: 'queue' }))
    const connection = await comeBack(parts)
    // A link that takes one window per 20 ms.
    const link = await SlowLink.of({ ...parts, connection }, 0)
    const broker = new Acknowledging(connection)
    let sizes = { live: 0, stored: 0 }
    while (parts.mqtt.stats().outbound.queued > 0) {
      sizes = { live: 0, stored: 0 }
      for (const packet of connection.received)
        if (packet.cmd === 'publish') sizes[packet.topic === 'live' ? 'live' : 'stored'] += packet.length ?? 0
      await broker.all()
      await pass(20)
      await link.answer()
    }
    // While others waited. The share of the last burst follows it.
    expect(sizes.stored / (sizes.live + sizes.stored)).toBeGreaterThan(0.06)
    expect(sizes.stored / (sizes.live + sizes.stored)).toBeLessThan(0.11)
    await link.free()
    await broker.untilQuiet()
    await Promise.all(live)
    await broker.untilQuiet()
    await finish(parts)
  })
})

describe('a stored message that the broker refuses', () => {
  it('ends as refused, and the next ones are sent', async () => {
    const parts = await withStored(3)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 1 } })
    const broker = new Acknowledging(connection)
    await broker.all(0x87)
    await broker.untilQuiet()
    expect(parts.settlements.map(({ outcome }) => outcome)).toMatchObject([
      { status: 'refused', reasonCode: 0x87 },
      { status: 'delivered' },
      { status: 'delivered' },
    ])
    expect(parts.log.visible.join('\n')).toContain('the broker refused the publish to "stored"')
    await finish(parts)
  })

  it('for now, with 0x97, is sent again after a pause, before the next one', async () => {
    const parts = await withStored(2)
    const connection = await comeBack(parts, { properties: { receiveMaximum: 1 } })
    const broker = new Acknowledging(connection)
    await broker.all(0x97)
    expect(publishesOn(connection)).toEqual(['stored 0'])
    await pass(1_020)
    await flow()
    expect(publishesOn(connection)).toEqual(['stored 0', 'stored 0'])
    await broker.untilQuiet()
    expect(publishesOn(connection)).toEqual(['stored 0', 'stored 0', 'stored 1'])
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 2, refused: 0 })
    await finish(parts)
  })

  it('because it exceeds a limit of the connection ends as refused, and the next ones are sent', async () => {
    const parts = await withStored(1)
    parts.publish('large', 'x'.repeat(500))
    parts.publish('stored', 1)
    await flow()
    const connection = await comeBack(parts, { properties: { maximumPacketSize: 300 } })
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['stored 0', 'stored 1'])
    expect(parts.settlements).toMatchObject([
      { topic: 'large', outcome: { status: 'refused', reasonCode: 0x95 } },
      { topic: 'stored', outcome: { status: 'delivered' } },
      { topic: 'stored', outcome: { status: 'delivered' } },
    ])
    await finish(parts)
  })
})

describe('a stored message that ends every connection', () => {
  it('is given up after some connections, and the next ones are sent', async () => {
    const parts = await withStored(3)
    let connection = await comeBack(parts)
    const isPoisoned = () => publishesOn(connection).some(text => text === 'stored 0')
    let connections = 1
    for (; connections < 40; connections += 1) {
      await flow()
      if (!isPoisoned()) break
      await goOffline({ ...parts, connection })
      connection = await comeBack(parts)
    }
    expect(connections).toBeLessThan(20)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['stored 1', 'stored 2'])
    expect(parts.settlements.map(({ outcome }) => outcome)).toMatchObject([
      { status: 'refused', reasonCode: 0x80, reasonString: expect.stringContaining('connections ended') },
      { status: 'delivered' },
      { status: 'delivered' },
    ])
    await finish(parts)
  })

  it('is given up later in a persistent session, which sends it again before anything else', async () => {
    const parts = await withStored(1, { clean: false, clientId: 'device' })
    let connection = await comeBack(parts)
    let connections = 1
    for (; parts.settlements.length === 0 && connections < 200; connections += 1) {
      await flow()
      await goOffline({ ...parts, connection })
      connection = await comeBack(parts, { sessionPresent: true })
      await flow()
    }
    expect(parts.settlements).toMatchObject([{ outcome: { status: 'refused', reasonCode: 0x80 } }])
    expect(connections).toBeGreaterThan(20)
    expect(connections).toBeLessThan(130)
    await finish(parts)
  })

  it('is not given up while connections end without a sign of life', async () => {
    const parts = await withStored(2)
    let connection = await comeBack(parts)
    for (let connections = 0; connections < 40; connections += 1) {
      connection.respondsToPings = false
      await flow()
      await goOffline({ ...parts, connection })
      connection = await comeBack(parts)
    }
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['stored 0', 'stored 1'])
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 2, refused: 0 })
    await finish(parts)
  })
})

describe('a message that the store ends while it is in flight', () => {
  it('is counted once', async () => {
    const parts = await withStored(2, { store: memoryStore({ maxMessages: 2 }) })
    const connection = await comeBack(parts)
    await flow()
    expect(publishesOn(connection)).toHaveLength(2)
    await goOffline({ ...parts, connection })
    for (const payload of [2, 3]) parts.publish('stored', payload)
    await flow()
    const next = await comeBack(parts)
    await new Acknowledging(next).untilQuiet()
    expect(publishesOn(next)).toEqual(['stored 2', 'stored 3'])
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 4, delivered: 2, evicted: 2 })
    await finish(parts)
  })
})

describe('an outage of 48 hours', () => {
  it('ends with exact counters: what is too old has expired, what was too much was evicted', async () => {
    const HOUR_MS = 3_600_000
    const parts = await storingOnPeer({
      store: memoryStore({ maxMessages: 1_000, maxAgeMs: 24 * HOUR_MS, maxOutcomes: 100 }),
      reconnect: { delayMs: [24 * HOUR_MS], resetAfterMs: 0 },
    })
    parts.peer.refuse(1)
    await goOffline(parts)
    const model = { waiting: [] as number[], evicted: 0, expired: 0 }
    let published = 0
    for (let minute = 0; minute < 48 * 60; minute += 1) {
      const count = minute % 2 === 1 ? 0 : minute < 60 ? 25 : 1
      for (let index = 0; index < count; index += 1, published += 1) {
        parts.publish('stored', published)
        if (model.waiting.push(minute) > 1_000) model.evicted += Math.sign(model.waiting.splice(0, 1).length)
      }
      await pass(60_000)
      const first = model.waiting.findIndex(storedAt => minute + 1 - storedAt < 24 * 60)
      model.expired += model.waiting.splice(0, first).length
    }
    expectAddsUp(parts.mqtt)
    expect([model.evicted, model.expired].every(count => count > 0)).toBe(true)
    expect(parts.mqtt.stats().store).toMatchObject({
      stored: published,
      messages: model.waiting.length,
      evicted: model.evicted,
      expired: model.expired,
      failedWrites: 0,
    })
    const connection = await parts.peer.accept()
    await new Acknowledging(connection).untilQuiet()
    const received = publishesOn(connection).map(text => Number(text.split(' ')[1]))
    expect(received).toEqual(numbers(published).slice(-received.length))
    expect(parts.mqtt.stats().store).toMatchObject({ messages: 0, delivered: received.length })
    await finish(parts)
  })
})

it('reads no more ahead than it can hold, whatever is stored', async () => {
  const parts = await withStored(5_000)
  const read = vi.spyOn(parts.store, 'read')
  const connection = await comeBack(parts)
  await flow()
  await pass(RECONNECT_MS / 2)
  const limits = read.mock.calls.map(([, limit]) => limit.messages)
  expect(Math.max(...limits)).toBeLessThanOrEqual(256)
  // In flight, and as much again at most.
  expect(limits.length * 256).toBeLessThanOrEqual(750 + 3 * 256)
  await new Acknowledging(connection).untilQuiet()
  expect(parts.mqtt.stats().store).toMatchObject({ delivered: 5_000, messages: 0 })
  await finish(parts)
})

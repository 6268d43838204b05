import { describe, expect, it } from 'vitest'
import type { StoreAddition } from '../../src/core/outbound/message-store.js'
import { type MemoryStore, memoryStore } from '../../src/testing/memory-store.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, expectAddsUp, finish, flow, goOffline, pass } from '../support/publisher-on-peer.js'
import { sessionOnPeer } from '../support/session-on-peer.js'
import {
  Acknowledging,
  publishesOn,
  type StoringOnPeer,
  storingOnPeer,
  waitUntilStored,
} from '../support/stored-publishes.js'

holdClock()

const CALL_MS = 300_000
const STORED_MESSAGE = {
  messageId: 'a',
  topic: 'alarm',
  payload: Buffer.from('1'),
  qos: 1,
  retain: false,
  storedAtMs: 0,
} as const
const never = () => new Promise<never>(() => {})

/** A store in memory with other calls. @param calls receives the original ones */
function changed(
  calls: (original: Pick<MemoryStore, 'add' | 'settle'>) => Partial<MemoryStore>,
): MemoryStore {
  const store = memoryStore()
  const original = { add: store.add.bind(store), settle: store.settle.bind(store) }
  return Object.assign(store, calls(original))
}

async function offline(options: Parameters<typeof storingOnPeer>[0]): Promise<StoringOnPeer> {
  const parts = await storingOnPeer(options)
  await goOffline(parts)
  return parts
}

const refuseToDial = ({ peer }: StoringOnPeer): void => peer.refuse(1_000)

describe('a store that hangs', () => {
  it('does not hinder a publish on a good link', async () => {
    const parts = await storingOnPeer({ store: changed(() => ({ add: never })), storeAfterMs: 0 })
    const publish = parts.publish('alarm', 1)
    await new Acknowledging(parts.connection).all()
    expect(publish.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await finish(parts)
  })

  it('drops what cannot be sent as store-failed after five minutes, with one log line and one for the others', async () => {
    const parts = await offline({ store: changed(() => ({ add: never })) })
    refuseToDial(parts)
    const publishes = [1, 2].map(payload => parts.publish('alarm', payload))
    await pass(CALL_MS - 10_000, 10_000)
    expect(publishes.map(({ outcome }) => outcome)).toEqual([undefined, undefined])
    await pass(20_000, 10_000)
    const dropped = { status: 'dropped', reason: 'store-failed' }
    expect(publishes.map(({ outcome }) => outcome)).toEqual([dropped, dropped])
    expect(parts.mqtt.stats().store).toMatchObject({ failedWrites: 2 })
    const lines = parts.log.visible.filter(line => line.includes('did not complete a call'))
    const text = `the store did not complete a call within ${CALL_MS} ms; it may still complete it later`
    expect(lines).toEqual([
      `the message store failed: ${text}`,
      `the message store failed: ${text}: 1 more within 10.0 s`,
    ])
    await finish(parts)
  })

  it('sends a message whose addition completes after its time limit', async () => {
    let complete = (): void => {}
    const store = changed(({ add }) => ({
      add: message =>
        new Promise<StoreAddition>(resolve => {
          complete = () => resolve(add(message))
        }),
    }))
    const parts = await offline({ store })
    refuseToDial(parts)
    const publish = parts.publish('alarm', 1)
    await flow()
    await pass(CALL_MS + 1_000, 10_000)
    expect(publish.outcome).toEqual({ status: 'dropped', reason: 'store-failed' })
    complete()
    await flow()
    expect(parts.mqtt.stats().store).toMatchObject({ stored: 1, messages: 1 })
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(publishesOn(connection)).toEqual(['alarm 1'])
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 1, messages: 0 })
    await finish(parts)
  })

  it('repeats the commit of an outcome, and reads again', async () => {
    let hangs = true
    const store = changed(({ settle }) => ({
      settle: settlements => (hangs ? never() : settle(settlements)),
    }))
    const parts = await offline({ store })
    const publish = parts.publish('alarm', 1)
    await waitUntilStored()
    expect(publish.outcome).toMatchObject({ status: 'stored' })
    const connection = await comeBack(parts)
    await new Acknowledging(connection).untilQuiet()
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 0, messages: 1 })
    hangs = false
    await pass(CALL_MS + 2_000, 10_000)
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 1, messages: 0 })
    await finish(parts)
  })

  it('does not hold up close(), which settles the publishes that wait for it', async () => {
    const store = changed(() => ({ add: never, close: never }))
    const parts = await offline({ store, drainTimeoutMs: 2_000 })
    refuseToDial(parts)
    const publish = parts.publish('alarm', 1)
    await flow()
    let isClosed = false
    const closed = parts.session.close().then(() => {
      isClosed = true
    })
    await pass(2_000, 100)
    await flow()
    expect(isClosed).toBe(true)
    expect(publish.outcome).toEqual({ status: 'dropped', reason: 'closed' })
    expectAddsUp(parts.mqtt)
    await closed
  })
})

describe('a store that hangs while it is opened', () => {
  /** A store that opens when it is released, and a session that has given up waiting for it. */
  async function givenUp() {
    const store = memoryStore()
    const { open } = store
    const releases: (() => void)[] = []
    const held: MemoryStore['open'] = listener =>
      new Promise(resolve => releases.push(() => resolve(open.call(store, listener))))
    Object.assign(store, { open: held })
    const parts = sessionOnPeer({ store, connect: 'background', drainTimeoutMs: 0 })
    const first = parts.session.start().catch((error: unknown) => error)
    await pass(CALL_MS + 1_000, 10_000)
    expect(await first).toMatchObject({ code: 'STORE_FAILED' })
    const release = async () => {
      for (const go of releases.splice(0)) go()
      await flow()
    }
    return { ...parts, store, release, opens: () => releases.length }
  }
  const reopen = async (store: MemoryStore, release: () => Promise<void>) => {
    const reopening = store.open({ settled: () => {} })
    await release()
    await reopening
    await store.close()
  }

  it('is closed again when it opens after the time limit, so that the next start succeeds', async () => {
    const { session, store, release, opens, peer } = await givenUp()
    await release()
    await reopen(store, release)
    const second = session.start()
    await flow()
    expect(opens()).toBe(1)
    await release()
    await second
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
    await reopen(store, release)
  })

  it('is used by a start that is waiting when it opens, and is not opened twice', async () => {
    const { session, store, release, opens } = await givenUp()
    const second = session.start()
    await flow()
    expect(opens()).toBe(1)
    await release()
    await second
    await expect(store.add(STORED_MESSAGE)).resolves.toEqual({ position: 1 })
    await session.close()
    await reopen(store, release)
  })

  it('is closed again when it opens after the client was closed', async () => {
    const { session, store, release } = await givenUp()
    await session.close()
    await release()
    await reopen(store, release)
  })

  it('reports a late opening that cannot be closed', async () => {
    const { session, store, release, log } = await givenUp()
    const { close } = store
    Object.assign(store, { close: () => Promise.reject(new Error('the disk is gone')) })
    await release()
    expect(log.visible).toContain('the message store failed: the disk is gone')
    Object.assign(store, { close })
    await session.close()
    // Until then repeats of the line are counted.
    await pass(10_000, 10_000)
  })
})

describe('a store whose calls throw instead of rejecting', () => {
  const failing = (): never => {
    throw new Error('the disk is gone')
  }

  it('does not end the process: reads, commits and expiry are tried again, with a line in the log', async () => {
    let throws = false
    const store = memoryStore()
    const { read, settle, expire } = store
    Object.assign(store, {
      read: (...args: Parameters<typeof read>) => (throws ? failing() : read.apply(store, args)),
      settle: (...args: Parameters<typeof settle>) => (throws ? failing() : settle.apply(store, args)),
      expire: (...args: Parameters<typeof expire>) => (throws ? failing() : expire.apply(store, args)),
    })
    const parts = await offline({ store })
    parts.publish('alarm', 1)
    await waitUntilStored()
    const connection = await comeBack(parts)
    throws = true
    await new Acknowledging(connection).untilQuiet()
    await pass(120_000, 10_000)
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 0, messages: 1 })
    expect(parts.log.visible).toContain('the message store failed: the disk is gone')
    throws = false
    await pass(CALL_MS, 10_000)
    expect(parts.mqtt.stats().store).toMatchObject({ delivered: 1, messages: 0 })
    await finish(parts)
  })

  it('drops what it does not add as store-failed, and can be closed', async () => {
    const parts = await offline({ store: Object.assign(memoryStore(), { add: failing, close: failing }) })
    refuseToDial(parts)
    const publish = parts.publish('alarm', 1)
    await flow()
    expect(publish.outcome).toEqual({ status: 'dropped', reason: 'store-failed' })
    await finish(parts)
    expect(parts.log.visible).toContain('the message store failed: the disk is gone')
    // Until then repeats of the line are counted.
    await pass(10_000, 10_000)
  })
})

describe('publishes that wait for the store', () => {
  /** A store whose additions wait until they are released. */
  function held(): { readonly store: MemoryStore; release(): Promise<void> } {
    const waiting: (() => void)[] = []
    const store = changed(({ add }) => ({
      add: message => new Promise<StoreAddition>(resolve => waiting.push(() => resolve(add(message)))),
    }))
    const release = async (): Promise<void> => {
      for (const go of waiting.splice(0)) go()
      await flow()
    }
    return { store, release }
  }
  const full = { status: 'dropped', reason: 'store-full' }

  it('are at most 20,000; one more is dropped as store-full, and there is room again afterwards', async () => {
    const { store, release } = held()
    const parts = await offline({ store })
    refuseToDial(parts)
    const publishes = Array.from({ length: 20_001 }, (_, id) => parts.publish('alarm', id))
    await flow()
    expect(publishes.filter(({ outcome }) => outcome !== undefined)).toHaveLength(1)
    expect(publishes.at(-1)?.outcome).toEqual(full)
    expect(parts.mqtt.stats().outbound).toMatchObject({ storing: 20_000, dropped: { 'store-full': 1 } })
    await release()
    expect(publishes.filter(({ outcome }) => outcome?.status === 'stored')).toHaveLength(20_000)
    const again = parts.publish('alarm', 'again')
    await flow()
    await release()
    expect(again.outcome).toMatchObject({ status: 'stored' })
    await finish(parts)
  })

  it('have at most 64 MB', async () => {
    const { store, release } = held()
    const parts = await offline({ store })
    refuseToDial(parts)
    const payload = Buffer.alloc(8 * 1_048_576 - 1_000)
    const publishes = Array.from({ length: 9 }, () => parts.publish('picture', payload))
    await flow()
    expect(publishes.map(({ outcome }) => outcome)).toEqual([...Array.from({ length: 8 }), full])
    await release()
    expect(publishes.filter(({ outcome }) => outcome?.status === 'stored')).toHaveLength(8)
    await finish(parts)
  })
})

describe('a message with maxAgeMs of the store', () => {
  it('is not sent after that age, although it was never read from the store', async () => {
    const parts = await storingOnPeer({ store: memoryStore({ maxAgeMs: 1_000 }) })
    // Not acknowledged, so that the second message waits in the store for its turn.
    parts.connection.respondsToPings = false
    parts.mqtt.publish('filler', Buffer.alloc(4_000))
    await flow()
    const publish = parts.publish('alarm', 1)
    await waitUntilStored()
    expect(publish.outcome).toMatchObject({ status: 'stored' })
    expect(publishesOn(parts.connection).filter(text => text.startsWith('alarm'))).toEqual([])
    await pass(1_500, 100)
    parts.connection.respondsToPings = true
    const pings = parts.connection.received.filter(({ cmd }) => cmd === 'pingreq').length
    for (let ping = 0; ping < pings; ping += 1) parts.connection.send({ cmd: 'pingresp' })
    await new Acknowledging(parts.connection).untilQuiet()
    expect(publishesOn(parts.connection).filter(text => text.startsWith('alarm'))).toEqual([])
    expect(parts.settlements).toMatchObject([{ topic: 'alarm', outcome: { status: 'expired' } }])
    await finish(parts)
  })
})

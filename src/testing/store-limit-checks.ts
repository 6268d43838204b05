import { deepEqual, equal, ok } from 'node:assert/strict'
import type { MessageStore, StoredSettlement } from '../core/outbound/message-store.js'
import {
  addAll,
  basicChecks,
  checksOf,
  DELIVERED,
  EVERYTHING,
  idsIn,
  messageFor,
  positionOf,
  type StoreCheck,
  type StorePlace,
} from './store-contract.js'

type Checks = typeof basicChecks

const statuses = (settlements: readonly StoredSettlement[]): string[] =>
  settlements.map(({ messageId, outcome }) => `${messageId} ${outcome.status}`)

const limitChecks: Checks = {
  'evicts the oldest messages at maxMessages, tells the listener, and writes it to the journal':
    async open => {
      const { store, told } = await open({ maxMessages: 2 })
      await addAll(
        store,
        ['a', 'b', 'c', 'd'].map(id => messageFor(id)),
      )
      deepEqual(await idsIn(store), ['c', 'd'])
      deepEqual(statuses(told), ['a evicted', 'b evicted'])
      deepEqual(statuses(await store.outcomes()), ['b evicted', 'a evicted'])
      equal(store.contents.messages, 2)
    },

  'evicts the oldest messages at maxBytes': async open => {
    const payload = Buffer.alloc(1_000)
    const { store, told } = await open({ maxBytes: 3_000 })
    await addAll(
      store,
      ['a', 'b', 'c'].map(id => messageFor(id, { payload })),
    )
    deepEqual(await idsIn(store), ['b', 'c'])
    deepEqual(statuses(told), ['a evicted'])
    ok(store.contents.bytes <= 3_000)
  },

  'rejects a message that is larger than maxBytes, and evicts nothing for it': async open => {
    const { store, told } = await open({ maxBytes: 3_000 })
    await store.add(messageFor('a'))
    const added = await store.add(messageFor('large', { payload: Buffer.alloc(3_000) }))
    equal(JSON.stringify(added), '{"rejected":"full"}')
    deepEqual(await idsIn(store), ['a'])
    deepEqual(told, [])
  },

  'rejects new messages at a limit with drop-newest, until there is room again': async open => {
    const { store, told } = await open({ maxMessages: 2, overflow: 'drop-newest' })
    equal(store.contents.fullness, 0)
    const [first = 0] = await addAll(store, [messageFor('a'), messageFor('b')])
    equal(store.contents.fullness, 1)
    equal(JSON.stringify(await store.add(messageFor('c'))), '{"rejected":"full"}')
    await store.settle([{ position: first, outcome: DELIVERED }])
    positionOf(await store.add(messageFor('d')))
    deepEqual(await idsIn(store), ['b', 'd'])
    deepEqual(told, [])
  },

  'ends messages at expiresAtMs, tells the listener, and writes it to the journal': async open => {
    const { store, told, gone } = await open()
    await store.add(messageFor('never'))
    const early = positionOf(await store.add(messageFor('early', { expiresAtMs: 2_000 })))
    await store.add(messageFor('late', { expiresAtMs: 2_001 }))
    equal(await store.expire(1_999), 0)
    equal(await store.expire(2_000), 1)
    deepEqual(await idsIn(store), ['never', 'late'])
    deepEqual(statuses(told), ['early expired'])
    deepEqual(gone, [early])
    deepEqual(statuses(await store.outcomes()), ['early expired'])
  },

  'expires messages at maxAgeMs or their own time, whichever is earlier': async open => {
    const { store } = await open({ maxAgeMs: 500 })
    const added = [
      await store.add(messageFor('by age')),
      await store.add(messageFor('by itself', { expiresAtMs: 1_400 })),
      await store.add(messageFor('by age, too', { expiresAtMs: 9_999 })),
    ]
    const read = await store.read(0, EVERYTHING)
    const expected = [1_500, 1_400, 1_500]
    deepEqual(read.map(expiryOf), expected)
    deepEqual(added.map(expiryOf), expected)
    equal(await store.expire(1_400), 1)
    equal(await store.expire(1_500), 2)
    equal(store.contents.bytes, 0)
  },

  'keeps the order of the calls when the clock is set back': async open => {
    const { store } = await open()
    await store.add(messageFor('before', { storedAtMs: 5_000 }))
    await store.add(messageFor('after', { storedAtMs: 1_000 }))
    deepEqual(await idsIn(store), ['before', 'after'])
    equal(store.contents.oldestStoredAtMs, 5_000)
  },

  'keeps the last maxOutcomes in the journal, the newest first, and finds them by message': async open => {
    const { store } = await open({ maxOutcomes: 3 })
    const positions = await addAll(
      store,
      ['a', 'b', 'c', 'd', 'e'].map(id => messageFor(id)),
    )
    for (const position of positions) await store.settle([{ position, outcome: DELIVERED }])
    deepEqual(statuses(await store.outcomes()), ['e delivered', 'd delivered', 'c delivered'])
    deepEqual(statuses(await store.outcomes({ limit: 1 })), ['e delivered'])
    deepEqual(statuses(await store.outcomes({ messageId: 'd' })), ['d delivered'])
    deepEqual(await store.outcomes({ messageId: 'a' }), [])
  },

  'knows the time of the first message that it holds': async open => {
    const { store, restart } = await open()
    equal(store.contents.oldestStoredAtMs, undefined)
    const position = positionOf(await store.add(messageFor('a', { storedAtMs: 1_000 })))
    await store.add(messageFor('b', { storedAtMs: 2_000 }))
    equal(store.contents.oldestStoredAtMs, 1_000)
    await store.settle([{ position, outcome: DELIVERED }])
    equal(store.contents.oldestStoredAtMs, 2_000)
    const { store: restarted } = await restart()
    equal(restarted.contents.oldestStoredAtMs, 2_000)
  },

  'accounts for every message across random calls and restarts': async open => {
    const options = { maxMessages: 40, maxAgeMs: 300, maxOutcomes: 10_000 }
    const random = sequence(7)
    let { store, told, restart } = await open(options)
    const added: string[] = []
    for (let step = 0; step < 300; step += 1) {
      const calls = Array.from({ length: 1 + (random() % 5) }, (_, call) => {
        const id = `${step}-${call}`
        added.push(id)
        return store.add(messageFor(id, { storedAtMs: step }))
      })
      await Promise.all(calls)
      if (random() % 3 === 0) await settleSome(store, random)
      if (random() % 20 === 0) await store.expire(step)
      if (random() % 60 === 0) ({ store, told, restart } = await restart())
    }
    ok(told.every(({ outcome }) => outcome.status === 'evicted' || outcome.status === 'expired'))
    const ended = (await store.outcomes({ limit: 10_000 })).map(({ messageId }) => messageId)
    const waiting = await idsIn(store)
    equal(store.contents.messages, waiting.length)
    deepEqual([...ended, ...waiting].toSorted(), added.toSorted())
  },
}

async function settleSome(store: MessageStore, random: () => number): Promise<void> {
  const messages = await store.read(0, { messages: 1 + (random() % 10), bytes: 100_000 })
  await store.settle(messages.map(({ position }) => ({ position, outcome: DELIVERED })))
}

/** The same numbers each time, so that a failure can be repeated. */
function sequence(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return state >>> 8
  }
}

/**
 * Returns the checks that every {@link MessageStore} must pass, for any test runner:
 *
 * ```ts
 * for (const { title, run } of messageStoreContract(() => newPlace())) it(title, run)
 * ```
 * @param newPlace returns an empty place for each check
 */
export function messageStoreContract(newPlace: () => StorePlace | Promise<StorePlace>): StoreCheck[] {
  return checksOf({ ...basicChecks, ...limitChecks }, newPlace)
}

function expiryOf(
  value: { readonly expiresAtMs?: number } | { readonly rejected: 'full' },
): number | undefined {
  return 'rejected' in value ? undefined : value.expiresAtMs
}

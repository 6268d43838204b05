import { deepEqual, equal, ok } from 'node:assert/strict'
import type { InboxScope, InboxStore } from '../core/inbound/inbound-count.js'
import type { StoreCheck } from './store-contract.js'

/** Where an inbox keeps its keys: a file, a table, or an object. */
export interface InboxPlace {
  /**
   * Returns an inbox over these keys. Called again, it returns one over the same keys, as after a restart of the process;
   * a check has closed the earlier one before, if it has `close`.
   */
  inbox(): InboxStore
}

type Check = (inbox: InboxStore, restart: () => Promise<InboxStore>) => Promise<void>

const DAY_MS = 86_400_000
const SCOPE: InboxScope = { name: 'alarms/+id Alarms.onAlarm', maxAgeMs: DAY_MS, maxEntries: 1_000 }
const PATIENCE_MS = 5_000

async function known(inbox: InboxStore, keys: readonly string[], scope = SCOPE): Promise<string[]> {
  const found: string[] = []
  for (const key of keys) if (await inbox.has(key, scope)) found.push(key)
  return found
}

async function addInOrder(inbox: InboxStore, keys: readonly string[], scope = SCOPE): Promise<void> {
  for (const key of keys) await inbox.add(key, scope)
}

const checks: Readonly<Record<string, Check>> = {
  'has a key after it was added, and no other one': async inbox => {
    equal(await inbox.has('one', SCOPE), false)
    await inbox.add('one', SCOPE)
    equal(await inbox.has('one', SCOPE), true)
    deepEqual(await known(inbox, ['One', 'one ', 'on', '']), [])
  },

  'keeps the keys of each scope separate': async inbox => {
    const other = { ...SCOPE, name: 'alarms/+id Audit.onAlarm' }
    await inbox.add('one', SCOPE)
    equal(await inbox.has('one', other), false)
    await inbox.add('two', other)
    equal(await inbox.has('two', SCOPE), false)
    equal(await inbox.has('two', other), true)
  },

  'distinguishes any two strings': async inbox => {
    const keys = [
      '',
      'trucks/7\0id',
      'trucks/7',
      "it's; --",
      'Ö',
      'O\u0308',
      '🚚',
      '\ud83d',
      '\udead',
      'x'.repeat(128),
    ]
    for (const [index, key] of keys.entries()) {
      deepEqual(await known(inbox, keys.slice(index)), [], `before ${JSON.stringify(key)} was added`)
      await inbox.add(key, SCOPE)
      equal(await inbox.has(key, SCOPE), true, `after ${JSON.stringify(key)} was added`)
    }
  },

  'keeps the keys across a restart': async (inbox, restart) => {
    await addInOrder(inbox, ['one', 'two', '\ud83d'])
    const restarted = await restart()
    deepEqual(await known(restarted, ['one', 'two', 'three', '\ud83d']), ['one', 'two', '\ud83d'])
  },

  'has every key of additions made at the same time': async inbox => {
    const keys = Array.from({ length: 300 }, (_, index) => `key ${index}`)
    await Promise.all(keys.map(key => inbox.add(key, SCOPE)))
    deepEqual(await known(inbox, keys), keys)
  },

  'removes the oldest keys of a scope beyond maxEntries, also after a restart': async (inbox, restart) => {
    const few = { ...SCOPE, name: 'few', maxEntries: 3 }
    await addInOrder(inbox, ['a', 'b', 'c'])
    await addInOrder(inbox, ['a', 'b', 'c', 'd', 'e'], few)
    deepEqual(await known(inbox, ['a', 'b', 'c', 'd', 'e'], few), ['c', 'd', 'e'])
    deepEqual(await known(inbox, ['a', 'b', 'c']), ['a', 'b', 'c'])
    const restarted = await restart()
    await restarted.add('f', few)
    deepEqual(await known(restarted, ['c', 'd', 'e', 'f'], few), ['d', 'e', 'f'])
  },

  'keeps a key that is added again once, as the newest': async inbox => {
    const few = { ...SCOPE, maxEntries: 2 }
    await addInOrder(inbox, ['a', 'b', 'a', 'a', 'c'], few)
    deepEqual(await known(inbox, ['a', 'b', 'c'], few), ['a', 'c'])
  },

  'removes many keys when maxEntries is lowered': async inbox => {
    const keys = Array.from({ length: 200 }, (_, index) => `key ${index}`)
    await Promise.all(keys.map(key => inbox.add(key, SCOPE)))
    const few = { ...SCOPE, maxEntries: 5 }
    await addInOrder(inbox, ['a', 'b', 'c', 'd', 'e'], few)
    deepEqual(await known(inbox, keys, few), [])
    deepEqual(await known(inbox, ['a', 'b', 'c', 'd', 'e'], few), ['a', 'b', 'c', 'd', 'e'])
  },

  'no longer has a key that is older than maxAgeMs': async inbox => {
    const brief = { ...SCOPE, maxAgeMs: 20 }
    await inbox.add('one', brief)
    const untilMs = performance.now() + PATIENCE_MS
    while (await inbox.has('one', brief)) ok(performance.now() < untilMs, 'the key is still there after 5 s')
  },
}

/**
 * Returns the checks that every {@link InboxStore} must pass, for any test runner:
 *
 * ```ts
 * for (const { title, run } of inboxStoreContract(() => newPlace())) it(title, run)
 * ```
 * @param newPlace returns an empty place for each check
 */
export function inboxStoreContract(newPlace: () => InboxPlace | Promise<InboxPlace>): StoreCheck[] {
  return Object.entries(checks).map(([title, check]) => ({
    title,
    run: async () => {
      const place = await newPlace()
      let inbox = place.inbox()
      try {
        await check(inbox, async () => {
          await closeIfPossible(inbox)
          inbox = place.inbox()
          return inbox
        })
      } finally {
        await closeIfPossible(inbox)
      }
    },
  }))
}

async function closeIfPossible(inbox: InboxStore): Promise<void> {
  if ('close' in inbox && typeof inbox.close === 'function') await inbox.close()
}

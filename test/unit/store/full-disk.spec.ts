import { describe, expect, it } from 'vitest'
import type { StoreLimits } from '../../../src/core/outbound/message-store.js'
import { InboxFile } from '../../../src/store/inbox-file.js'
import { KEYS } from '../../../src/store/inbox-tables.js'
import { loadEngine } from '../../../src/store/sqlite-engine.js'
import { StoreConnection } from '../../../src/store/store-connection.js'
import { StoreFile } from '../../../src/store/store-file.js'
import { MESSAGES } from '../../../src/store/store-rescue.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'

removeFilesAfterEach()

const LIMITS: StoreLimits = {
  maxMessages: 1_000_000,
  maxBytes: 1_000_000_000,
  maxAgeMs: undefined,
  overflow: 'drop-oldest',
  maxOutcomes: 0,
}
const NOW_MS = 5_000

const add = (id: number) =>
  ({
    kind: 'add',
    message: {
      messageId: `message-${id}`,
      topic: 'alarms',
      payload: Buffer.alloc(3_000, id),
      qos: 1,
      retain: false,
      storedAtMs: id,
    },
  }) as const
const settle = (position: number) =>
  ({ kind: 'settle', settlements: [{ position, outcome: { status: 'delivered', reasonCode: 0 } }] }) as const

/** A store in a file that cannot grow beyond this many pages, as on a full disk. */
async function storeOn(file: string, maxPages?: number): Promise<StoreFile> {
  const connection = new StoreConnection(await loadEngine(), { file, onCorrupt: 'fail', maxPages }, MESSAGES)
  return new StoreFile(connection, LIMITS, NOW_MS)
}

describe('a store on a full disk', () => {
  it('rejects an addition with STORE_FAILED, keeps what it has, and works again when there is space', async () => {
    const file = newFile()
    const store = await storeOn(file, 30)
    const results = Array.from({ length: 40 }, (_, index) => store.write([add(index + 1)], NOW_MS)[0])
    const failed = results.filter(result => result !== undefined && 'error' in result)
    const { messages } = store.contents
    expect(failed.length).toBe(40 - messages)
    expect(messages).toBeGreaterThan(5)
    expect(failed[0]).toMatchObject({
      error: {
        code: 'STORE_FAILED',
        message: `the store ${file}: the disk is full; free some space, and it works again`,
      },
    })
    expect(store.read(0, { messages: 100, bytes: 1_000_000 }, NOW_MS)).toHaveLength(messages)

    store.write(
      Array.from({ length: 5 }, (_, index) => settle(index + 1)),
      NOW_MS,
    )
    expect(store.contents.messages).toBe(messages - 5)
    const [again] = store.write([add(99)], NOW_MS)
    // The numbers of the rejected additions are not used again.
    const value = again !== undefined && 'value' in again ? again.value : undefined
    expect(value !== undefined && 'position' in value ? value.position : 0).toBeGreaterThan(40)
    store.close()
    const reopened = await storeOn(file)
    expect(reopened.contents.messages).toBe(messages - 4)
    reopened.close()
  })

  it('settles messages in a commit whose additions do not fit', async () => {
    const store = await storeOn(newFile(), 30)
    let positions = 0
    while (!('error' in (store.write([add(positions + 1)], NOW_MS)[0] ?? {}))) positions += 1
    const [settled, added] = store.write(
      [settle(1), ...Array.from({ length: 30 }, (_, id) => add(id))],
      NOW_MS,
    )
    expect(settled).toEqual({ value: undefined })
    expect(added).toMatchObject({ error: { code: 'STORE_FAILED' } })
    expect(store.contents.messages).toBe(positions - 1)
    store.close()
  })
})

describe('an inbox on a full disk', () => {
  it('rejects an addition with STORE_FAILED, keeps what it has, and works again when there is space', async () => {
    const file = newFile('inbox.db')
    const inboxOn = async (maxPages?: number) =>
      new InboxFile(new StoreConnection(await loadEngine(), { file, onCorrupt: 'fail', maxPages }, KEYS))
    const keyOf = (id: number) => ({
      scope: 'alarms',
      key: `key ${id} `.repeat(200),
      maxAgeMs: 1_000,
      maxEntries: 1_000,
    })
    const full = await inboxOn(20)
    const added = Array.from({ length: 40 }, (_, id) => full.add([keyOf(id)], NOW_MS)[0]).map(
      result => result !== undefined && 'value' in result,
    )
    expect(added.filter(Boolean).length).toBeGreaterThan(5)
    expect(added.at(-1)).toBe(false)
    expect(full.add([keyOf(99)], NOW_MS)).toMatchObject([
      {
        error: {
          code: 'STORE_FAILED',
          message: `the inbox ${file}: the disk is full; free some space, and it works again`,
        },
      },
    ])
    expect(added.map((_, id) => full.has(keyOf(id), NOW_MS))).toEqual(added)
    full.close()
    const inbox = await inboxOn()
    expect(inbox.add([keyOf(99)], NOW_MS)).toEqual([{ value: undefined }])
    expect(inbox.has(keyOf(99), NOW_MS)).toBe(true)
    expect(added.map((_, id) => inbox.has(keyOf(id), NOW_MS))).toEqual(added)
    inbox.close()
  })
})

describe('an inbox', () => {
  it('removes old keys in steps, also those of a scope that is no longer used, and keeps all when the clock is set back', async () => {
    const file = newFile('inbox.db')
    const open = async () =>
      new InboxFile(new StoreConnection(await loadEngine(), { file, onCorrupt: 'fail' }, KEYS))
    const unused = { scope: 'a handler that was removed', maxAgeMs: 1_000, maxEntries: 10_000 }
    const first = await open()
    const keys = Array.from({ length: 50 }, (_, id) => ({ ...unused, key: `key ${id}` }))
    first.add(keys, NOW_MS)
    expect(first.trimSome(NOW_MS - 3_000)).toBe(false)
    expect(keys.every(key => first.has(key, NOW_MS - 3_000))).toBe(true)
    first.close()

    const inbox = await open()
    expect(inbox.trimSome(NOW_MS + 999)).toBe(false)
    const steps = [0, 1, 2, 3].map(() => inbox.trimSome(NOW_MS + 1_000))
    expect(steps).toEqual([true, true, false, false])
    inbox.close()
    const database = (await loadEngine()).open(file)
    expect(database.prepare('SELECT count(*) AS keys FROM keys').get()).toMatchObject({ keys: 0 })
    database.close()
  })
})

describe('the file of a store', () => {
  it('is synchronised at every commit, in a write-ahead log', async () => {
    const file = newFile()
    const engine = await loadEngine()
    const pragmas: string[] = []
    const store = new StoreFile(
      new StoreConnection(
        {
          name: engine.name,
          open: (path, options) => {
            const database = engine.open(path, options)
            const closed = database.close.bind(database)
            return Object.assign(database, {
              close: () => {
                for (const name of ['journal_mode', 'synchronous'])
                  if (path === file) pragmas.push(JSON.stringify(database.prepare(`PRAGMA ${name}`).get()))
                return closed()
              },
            })
          },
        },
        { file, onCorrupt: 'fail' },
        MESSAGES,
      ),
      LIMITS,
      NOW_MS,
    )
    store.close()
    expect(pragmas).toEqual([
      expect.stringContaining('"journal_mode":"wal"'),
      expect.stringContaining('"synchronous":2'),
    ])
  })
})

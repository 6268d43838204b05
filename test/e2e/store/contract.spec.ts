import { sqliteInbox, sqliteStore } from 'nestjs-mqtt/store'
import { inboxStoreContract, messageStoreContract } from 'nestjs-mqtt/testing'
import { describe, expect, it } from 'vitest'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'

removeFilesAfterEach()

/** On Node 20, node:sqlite is not there; `npm run matrix` runs the same checks on the other versions. */
const engines =
  process.getBuiltinModule('node:sqlite') === undefined
    ? (['libsql'] as const)
    : (['node:sqlite', 'libsql'] as const)

describe.each(engines)('sqliteStore on %s', engine => {
  const checks = messageStoreContract(() => {
    const file = newFile()
    return { store: options => sqliteStore(file, { ...options, engine }) }
  })
  for (const { title, run } of checks) it(title, run)

  it('takes as many messages at once as the client passes on, 64 MB', async () => {
    const store = sqliteStore(newFile(), { engine, maxBytes: 80_000_000 })
    await store.open({ settled: () => {} })
    const payload = Buffer.alloc(1_000_000)
    const message = { topic: 'images', payload, qos: 1, retain: false, storedAtMs: Date.now() } as const
    const additions = await Promise.all(
      Array.from({ length: 64 }, (_, index) => store.add({ ...message, messageId: String(index) })),
    )
    expect(additions.filter(addition => 'rejected' in addition)).toEqual([])
    expect(store.contents.messages).toBe(64)
    await store.close()
  })
})

describe.each(engines)('sqliteInbox on %s', engine => {
  const checks = inboxStoreContract(() => {
    const file = newFile()
    return { inbox: () => sqliteInbox(file, { engine }) }
  })
  for (const { title, run } of checks) it(title, run)
})

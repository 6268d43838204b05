import { sqliteInbox, sqliteStore } from 'nestjs-mqtt/store'
import { inboxStoreContract, messageStoreContract } from 'nestjs-mqtt/testing'
import { describe, it } from 'vitest'
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
})

describe.each(engines)('sqliteInbox on %s', engine => {
  const checks = inboxStoreContract(() => {
    const file = newFile()
    return { inbox: () => sqliteInbox(file, { engine }) }
  })
  for (const { title, run } of checks) it(title, run)
})

import type { StoredMessage } from 'nestjs-mqtt/client'
import { sqliteStore } from 'nestjs-mqtt/store'
import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../support/seeded-random.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'
import { StoreProcess } from '../../support/store-process.js'

removeFilesAfterEach()

/** `STORE_KILLS=300` for more. */
const KILLS = Number(process.env['STORE_KILLS'] ?? 20)
const SEED = Number(process.env['STORE_SEED'] ?? 1)

async function contentsOf(file: string) {
  const store = sqliteStore(file)
  const told: string[] = []
  const contents = await store.open({ settled: ({ outcome }) => told.push(outcome.status) })
  const waiting: StoredMessage[] = []
  for (;;) {
    const more = await store.read(waiting.at(-1)?.position ?? 0, { messages: 1_000, bytes: 1_000_000 })
    waiting.push(...more)
    if (more.length === 0) break
  }
  const journal = await store.outcomes({ limit: 100_000 })
  await store.close()
  return { contents, waiting, told, ended: new Set(journal.map(({ messageId }) => messageId)) }
}

describe('a process with a store that is killed', () => {
  it(`has every message whose add has resolved, and none twice, after ${KILLS} kills at random moments (seed ${SEED})`, {
    timeout: 20_000 + KILLS * 3_000,
  }, async () => {
    const file = newFile()
    const random = new SeededRandom(SEED)
    const added = new Set<string>()
    const settled = new Set<string>()
    const settling = new Set<string>()
    for (let kill = 0; kill < KILLS; kill += 1) {
      const writer = await StoreProcess.start(file, kill * 1_000_000)
      await writer.hasSaid(1 + random.below(200))
      await writer.kill()
      for (const id of writer.ids('added')) added.add(id)
      for (const id of writer.ids('settled')) settled.add(id)
      for (const id of writer.ids('settling')) settling.add(id)
    }
    const { contents, waiting, told, ended } = await contentsOf(file)
    const held = new Set(waiting.map(({ messageId }) => messageId))
    expect(held.size).toBe(waiting.length)
    expect(contents.messages).toBe(waiting.length)
    expect(told).toEqual([])
    expect([...added].filter(id => !held.has(id) && !ended.has(id))).toEqual([])
    expect([...settled].filter(id => held.has(id) || !ended.has(id))).toEqual([])
    expect([...ended].filter(id => held.has(id) || !settling.has(id))).toEqual([])
    expect(waiting.map(({ messageId }) => Number(messageId))).toEqual(
      waiting.map(({ messageId }) => Number(messageId)).toSorted((one, other) => one - other),
    )
    for (const { messageId, payload } of waiting)
      expect(Buffer.from(payload).toString()).toBe(messageId.repeat(9))
    expect(added.size).toBeGreaterThan(KILLS)
  })
})

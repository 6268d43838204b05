import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MessageStore, StoredMessage } from 'nestjs-mqtt/client'
import { sqliteStore } from 'nestjs-mqtt/store'
import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../support/seeded-random.js'
import { removeDisksAfterEach, SmallDisk } from '../../support/small-disk.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'
import { StoreProcess } from '../../support/store-process.js'

removeFilesAfterEach()
removeDisksAfterEach()

/** `STORE_DAMAGE=60` for more: rounds of each kind. */
const ROUNDS = Number(process.env['STORE_DAMAGE'] ?? 1)
const SEED = Number(process.env['STORE_SEED'] ?? 3)
const DISK_BYTES = 4_000_000

/** What was said by the processes of one round. */
class Said {
  readonly added = new Set<number>()
  readonly settling = new Set<number>()
  readonly settled = new Set<number>()

  take(writer: StoreProcess): void {
    for (const id of writer.ids('added')) this.added.add(Number(id))
    for (const id of writer.ids('settling')) this.settling.add(Number(id))
    for (const id of writer.ids('settled')) this.settled.add(Number(id))
  }
}

/** What is in the store after the round. It must work, and contain nothing wrong. */
async function found(file: string) {
  const store = sqliteStore(file)
  const repairs: string[] = []
  const told: string[] = []
  await store.open({
    settled: ({ outcome }) => told.push(outcome.status),
    repaired: text => repairs.push(text),
  })
  try {
    const waiting = await allIn(store)
    const journal = await store.outcomes({ limit: 100_000 })
    expect(store.contents.messages).toBe(waiting.length)
    await store.add({ ...AFTERWARDS, payload: Buffer.from('afterwards') })
    expect(told.filter(status => status !== 'set-aside')).toEqual([])
    for (const { messageId, payload } of waiting)
      if (messageId !== AFTERWARDS.messageId)
        expect(Buffer.from(payload).toString()).toBe(messageId.repeat(9))
    const held = new Set(waiting.map(({ messageId }) => Number(messageId)))
    expect(held.size).toBe(waiting.length)
    const ended = new Set(journal.map(({ messageId }) => Number(messageId)))
    return { held, ended, setAside: told.length, repairs }
  } finally {
    await store.close()
  }
}

const AFTERWARDS = { messageId: '0', topic: 'alarms', qos: 1, retain: false, storedAtMs: 1 } as const

async function allIn(store: MessageStore): Promise<StoredMessage[]> {
  const waiting: StoredMessage[] = []
  for (;;) {
    const more = await store.read(waiting.at(-1)?.position ?? 0, { messages: 1_000, bytes: 1_000_000 })
    waiting.push(...more)
    if (more.length === 0) return waiting
  }
}

type Found = Awaited<ReturnType<typeof found>>

/** Messages that were added, and have neither an outcome nor a record. */
function missing({ added }: Said, { held, ended }: Pick<Found, 'held' | 'ended'>): number[] {
  return [...added].filter(id => !held.has(id) && !ended.has(id))
}

async function killed(file: string, random: SeededRandom, said: Said): Promise<void> {
  const writer = await StoreProcess.start(file)
  await writer.hasSaid(1 + random.below(300))
  await writer.kill()
  said.take(writer)
}

function flip(file: string, random: SeededRandom): void {
  const bytes = readFileSync(file)
  if (bytes.length < 200) return
  const at = 100 + random.below(bytes.length - 100)
  bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8))
  writeFileSync(file, bytes)
}

/** Each round has a file of its own. Returns how many messages a damaged log has lost, which SQLite cannot count. */
async function rounds(
  kind: string,
  round: (random: SeededRandom, said: Said) => Promise<number>,
): Promise<void> {
  const random = new SeededRandom(SEED)
  let added = 0
  let lost = 0
  for (let count = 0; count < ROUNDS; count += 1) {
    const said = new Said()
    lost += await round(random, said)
    added += said.added.size
  }
  expect(added).toBeGreaterThanOrEqual(ROUNDS)
  if (ROUNDS >= 20)
    console.log(`${kind}, ${ROUNDS} rounds, seed ${SEED}: ${added} messages added, ${lost} lost with the log`)
}

const OPTIONS = { timeout: 20_000 + ROUNDS * 3_000 }

describe(`kill -9 together with other damage, ${ROUNDS} rounds each, seed ${SEED}:`, () => {
  it('a second writer is refused, and nothing is lost', OPTIONS, () =>
    rounds('two writers', async (random, said) => {
      const file = newFile()
      const writer = await StoreProcess.start(file)
      const second = StoreProcess.start(file, 1_000_000)
      await expect(second).rejects.toThrow('STORE_LOCKED')
      await writer.hasSaid(1 + random.below(200))
      const third = StoreProcess.start(file, 2_000_000).catch(() => undefined)
      await writer.kill()
      said.take(writer)
      // The third one has the lock only if it asked for it after the kill.
      const successor = (await third) ?? (await StoreProcess.start(file, 3_000_000))
      await successor.hasSaid(1 + random.below(100))
      await successor.kill()
      said.take(successor)
      const after = await found(file)
      expect(missing(said, after)).toEqual([])
      expect([...said.settled].filter(id => after.held.has(id))).toEqual([])
      return 0
    }),
  )

  it('on a full disk nothing is lost', OPTIONS, () =>
    rounds('full disk', async (random, said) => {
      const disk = SmallDisk.create(DISK_BYTES)
      const file = join(disk.folder, 'alarms.db')
      const writer = await StoreProcess.start(file)
      await writer.hasSaid(1 + random.below(100))
      disk.fill()
      await writer.hasSaidWord('failed')
      await writer.hasSaid(writer.lines.length + random.below(50))
      await writer.kill()
      said.take(writer)
      if (random.chance(0.5)) {
        const opened = await found(file).catch((error: unknown) => error)
        if (opened instanceof Error) expect(opened).toMatchObject({ code: 'STORE_FAILED' })
      }
      disk.free()
      const after = await found(file)
      expect(missing(said, after)).toEqual([])
      expect([...said.settled].filter(id => after.held.has(id))).toEqual([])
      expect(after.repairs).toEqual([])
      disk.remove()
      return 0
    }),
  )

  it('a truncated log loses the last commits only, and the store works', OPTIONS, () =>
    rounds('truncated log', async (random, said) => {
      const file = newFile()
      await killed(file, random, said)
      const log = `${file}-wal`
      if (existsSync(log)) truncateSync(log, random.below(statSync(log).size + 1))
      const after = await found(file)
      const gone = missing(said, after)
      const firstGone = Math.min(...gone, Number.POSITIVE_INFINITY)
      expect([...after.held, ...after.ended].filter(id => id > firstGone)).toEqual([])
      return gone.length
    }),
  )

  it('flipped bits lose nothing without an outcome or a report', OPTIONS, () =>
    rounds('flipped bits', async (random, said) => {
      const file = newFile()
      await killed(file, random, said)
      for (let flips = 1 + random.below(3); flips > 0; flips -= 1)
        flip(random.chance(0.5) && existsSync(`${file}-wal`) ? `${file}-wal` : file, random)
      const after = await found(file).catch((error: unknown) => error)
      if (after instanceof Error) {
        expect(after).toMatchObject({ code: 'STORE_CORRUPT' })
        return 0
      }
      const { setAside, repairs, ...rest } = after as Found
      const gone = missing(said, rest)
      if (gone.length > setAside) expect(repairs).toEqual([expect.stringContaining('the log of')])
      return Math.max(0, gone.length - setAside)
    }),
  )
})

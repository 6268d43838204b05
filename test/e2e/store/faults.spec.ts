import { execFile } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { MessageStore, StoredSettlement } from 'nestjs-mqtt/client'
import { sqliteStore } from 'nestjs-mqtt/store'
import { describe, expect, it } from 'vitest'
import { loadEngine } from '../../../src/store/sqlite-engine.js'
import { SeededRandom } from '../../support/seeded-random.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'
import { StoreProcess } from '../../support/store-process.js'

removeFilesAfterEach()

const execute = promisify(execFile)
const LIMIT = { messages: 10_000, bytes: 10_000_000 }
/** `STORE_FLIPS=400` for more. */
const FLIPS = Number(process.env['STORE_FLIPS'] ?? 40)
const SEED = Number(process.env['STORE_SEED'] ?? 11)
const listener = { settled: () => {} }

const messageOf = (id: number) => ({
  messageId: `message-${id}`,
  topic: 'alarms',
  payload: Buffer.from(`payload of message ${id} `.repeat(5)),
  qos: 1 as const,
  retain: false,
  storedAtMs: 1_000 + id,
})

/** Writes messages with the ids 1 to `count` into a new file, and closes it. */
async function fileWith(count: number): Promise<string> {
  const file = newFile()
  const store = sqliteStore(file)
  await store.open(listener)
  await Promise.all(Array.from({ length: count }, (_, index) => store.add(messageOf(index + 1))))
  await store.close()
  return file
}

async function opened(file: string, options = {}) {
  const store = sqliteStore(file, options)
  const told: StoredSettlement[] = []
  const repairs: string[] = []
  await store.open({ settled: settlement => told.push(settlement), repaired: text => repairs.push(text) })
  return { store, told, repairs }
}

const idsIn = async (store: MessageStore): Promise<string[]> =>
  (await store.read(0, LIMIT)).map(({ messageId }) => messageId)

async function runSql(file: string, sql: string): Promise<void> {
  const { open } = await loadEngine()
  const database = open(file)
  database.exec(sql)
  database.close()
}

function flip(file: string, at: number): void {
  const bytes = readFileSync(file)
  bytes[at] = (bytes[at] ?? 0) ^ 0xff
  writeFileSync(file, bytes)
}

const neighbours = (file: string, part: string): string[] =>
  readdirSync(dirname(file)).filter(name => name.includes(part))

describe('a file that cannot be opened', () => {
  it('of a newer version is STORE_VERSION, names the file, and is not changed', async () => {
    const file = await fileWith(1)
    await runSql(file, 'PRAGMA user_version = 99')
    const before = readFileSync(file)
    await expect(sqliteStore(file).open(listener)).rejects.toMatchObject({
      code: 'STORE_VERSION',
      message: `the store ${file}: it has version 99, and this version of nestjs-mqtt reads up to 1; update nestjs-mqtt, or use another file`,
    })
    expect(readFileSync(file).equals(before)).toBe(true)
  })

  it('of another application is STORE_CORRUPT, and is not changed', async () => {
    const file = newFile()
    await runSql(file, 'CREATE TABLE customers (name TEXT)')
    const before = readFileSync(file)
    await expect(sqliteStore(file, { onCorrupt: 'move-aside' }).open(listener)).rejects.toMatchObject({
      code: 'STORE_CORRUPT',
      message: `the store ${file}: it is a database of another application; use another file`,
    })
    expect(readFileSync(file).equals(before)).toBe(true)
  })

  it('because it is no database is STORE_CORRUPT, and is not changed', async () => {
    const file = newFile()
    writeFileSync(file, 'a text that somebody saved under this name. '.repeat(50))
    const before = readFileSync(file)
    await expect(sqliteStore(file).open(listener)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    expect(readFileSync(file).equals(before)).toBe(true)
  })

  it("is moved aside with onCorrupt: 'move-aside', and the store starts empty", async () => {
    const file = newFile()
    writeFileSync(file, 'a text that somebody saved under this name. '.repeat(50))
    const { store, repairs } = await opened(file, { onCorrupt: 'move-aside' })
    expect(store.contents.messages).toBe(0)
    await store.add(messageOf(1))
    await store.close()
    const [aside = ''] = neighbours(file, '.corrupt-')
    expect(readFileSync(join(dirname(file), aside), 'utf8')).toContain('a text that somebody saved')
    expect(repairs).toEqual([expect.stringContaining(aside)])
  })

  it('because its folder does not exist is STORE_FAILED, and says so', async () => {
    const file = join(dirname(newFile()), 'missing', 'alarms.db')
    await expect(sqliteStore(file).open(listener)).rejects.toMatchObject({
      code: 'STORE_FAILED',
      message: `the store ${file}: it cannot be opened; check that its folder exists and that this process may write there`,
    })
  })

  it('because another process uses it is STORE_LOCKED, until that process ends, also by kill -9', async () => {
    const file = newFile()
    const other = await StoreProcess.start(file)
    await expect(sqliteStore(file).open(listener)).rejects.toMatchObject({
      code: 'STORE_LOCKED',
      message: `the store ${file}: another process uses it; stop that process, or give each service its own file`,
    })
    await other.kill()
    const { store } = await opened(file)
    await store.close()
  })
})

describe('a damaged file', () => {
  it('with a flipped byte in a payload sets that message aside, and returns the others', async () => {
    const file = await fileWith(20)
    flip(file, readFileSync(file).indexOf('payload of message 7 ') + 3)
    const { store, told } = await opened(file)
    const ids = await idsIn(store)
    expect(ids).toHaveLength(19)
    expect(ids).not.toContain('message-7')
    expect(told).toMatchObject([
      { messageId: 'message-7', topic: 'alarms', outcome: { status: 'set-aside' } },
    ])
    expect(store.contents).toMatchObject({ messages: 19, setAside: 1 })
    expect(await store.outcomes({ messageId: 'message-7' })).toHaveLength(1)
    await store.close()
    const { store: again } = await opened(file)
    expect(again.contents).toMatchObject({ messages: 19, setAside: 1 })
    expect(await idsIn(again)).toHaveLength(19)
    await again.close()
  })

  it('with a damaged page is repaired: what can be read is kept, the rest is counted, and the damaged file stays', async () => {
    const file = await fileWith(500)
    const bytes = readFileSync(file)
    const page = Math.floor(bytes.indexOf('payload of message 250 ') / 4_096)
    bytes.fill(0xff, page * 4_096, page * 4_096 + 200)
    writeFileSync(file, bytes)
    const { store, told, repairs } = await opened(file)
    const ids = await idsIn(store)
    expect(ids.length).toBeGreaterThan(400)
    expect(ids).not.toContain('message-250')
    expect(told.length).toBe(500 - ids.length)
    expect(store.contents).toMatchObject({ messages: ids.length, setAside: told.length })
    const [aside = ''] = neighbours(file, '.damaged-')
    expect(readFileSync(join(dirname(file), aside)).equals(bytes)).toBe(true)
    expect(repairs).toEqual([expect.stringContaining(aside)])
    expect(await store.add(messageOf(501))).toEqual({ position: 501 })
    await store.close()
  })

  it('with flipped bytes anywhere never returns a wrong message, and loses none without counting it', {
    timeout: 60_000,
  }, async () => {
    const intact = await fileWith(60)
    const random = new SeededRandom(SEED)
    const size = statSync(intact).size
    let damaged = 0
    for (let round = 0; round < FLIPS; round += 1) {
      const file = newFile()
      copyFileSync(intact, file)
      for (let flips = 0; flips < 3; flips += 1) flip(file, 100 + random.below(size - 100))
      const found = await opened(file).catch((error: unknown) => error)
      if (found instanceof Error) {
        expect(found).toMatchObject({ code: 'STORE_CORRUPT' })
        continue
      }
      const { store } = found as Awaited<ReturnType<typeof opened>>
      const messages = await store.read(0, LIMIT)
      for (const message of messages) {
        const expected = messageOf(message.position)
        expect({ ...message, payload: Buffer.from(message.payload) }).toEqual({
          ...expected,
          position: message.position,
        })
      }
      expect(messages.length + store.contents.setAside).toBe(60)
      expect(store.contents.messages).toBe(messages.length)
      if (messages.length < 60) damaged += 1
      await store.add(messageOf(61))
      await store.close()
    }
    expect(damaged).toBeGreaterThan(FLIPS / 8)
  })

  it('with a truncated log opens with the messages up to the break', async () => {
    const source = newFile()
    const writer = await StoreProcess.start(source)
    await writer.hasSaid(40)
    await writer.kill()
    const size = statSync(`${source}-wal`).size
    for (const part of [0.3, 0.6, 0.9]) {
      const file = newFile()
      copyFileSync(source, file)
      copyFileSync(`${source}-wal`, `${file}-wal`)
      truncateSync(`${file}-wal`, Math.floor(size * part))
      const { store, told } = await opened(file)
      const messages = await store.read(0, LIMIT)
      expect(store.contents.messages).toBe(messages.length)
      for (const { messageId, payload } of messages)
        expect(Buffer.from(payload).toString()).toBe(messageId.repeat(9))
      expect(told).toEqual([])
      await store.add(messageOf(1))
      await store.close()
    }
  })
})

describe('the process of a store', () => {
  const script = fileURLToPath(new URL('../apps/store-once.mjs', import.meta.url))

  it('ends by itself when the store is open and idle', async () => {
    await execute(process.execPath, [script, newFile()], { timeout: 15_000 })
  })

  it('stays alive until it has the error of a failed open', async () => {
    const file = join(dirname(newFile()), 'missing', 'alarms.db')
    await expect(execute(process.execPath, [script, file], { timeout: 15_000 })).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining('STORE_FAILED'),
    })
  })

  it('stays alive until a pending message is durable', async () => {
    const file = newFile()
    await execute(process.execPath, [script, file, 'last words'], { timeout: 15_000 })
    const { store } = await opened(file)
    expect(await idsIn(store)).toEqual(['last words'])
    await store.close()
    expect(existsSync(`${file}-wal`)).toBe(false)
  })
})

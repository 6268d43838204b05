import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { MqttClient } from 'nestjs-mqtt/client'
import { type SqliteInbox, sqliteInbox, sqliteStore } from 'nestjs-mqtt/store'
import { EmbeddedBroker } from 'nestjs-mqtt/testing'
import { describe, expect, it } from 'vitest'
import { eventually } from '../../support/eventually.js'
import { SeededRandom } from '../../support/seeded-random.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'
import { StoreProcess } from '../../support/store-process.js'

removeFilesAfterEach()

/** `STORE_KILLS=300` for more. */
const KILLS = Number(process.env['STORE_KILLS'] ?? 5)
const SEED = Number(process.env['STORE_SEED'] ?? 1)
const SCOPE = { name: 'alarms/+id Alarms.onAlarm', maxAgeMs: 86_400_000, maxEntries: 100_000 }

/** Writes the keys `key 1` to `key <count>` into a new file, and closes it. */
async function fileWith(count: number): Promise<string> {
  const file = newFile('inbox.db')
  const inbox = sqliteInbox(file)
  await Promise.all(Array.from({ length: count }, (_, index) => inbox.add(`key ${index + 1}`, SCOPE)))
  await inbox.close()
  return file
}

async function known(inbox: SqliteInbox, count: number): Promise<number> {
  const found = await Promise.all(
    Array.from({ length: count }, (_, index) => inbox.has(`key ${index + 1}`, SCOPE)),
  )
  return found.filter(Boolean).length
}

/** Resolves with the text of the next warning of an inbox. */
async function nextWarning(): Promise<string> {
  const [warning] = await once(process, 'warning')
  return warning.code === 'NESTJS_MQTT_INBOX' ? warning.message : nextWarning()
}

describe('an inbox in a file', () => {
  it('recognises a repeat after a restart of the client', async () => {
    const file = newFile('inbox.db')
    const broker = await EmbeddedBroker.start()
    const ran: unknown[] = []
    for (const _start of [1, 2]) {
      const inbox = sqliteInbox(file)
      const client = await MqttClient.connect({ url: broker.url })
      const subscription = client.subscribe(
        'orders/+id',
        function onOrder({ payload }) {
          ran.push(payload)
        },
        { qos: 1, dedupe: { by: ({ payload }) => String(payload), store: inbox } },
      )
      await subscription.whenGranted()
      for (const order of [7, 8]) await client.publish('orders/1', order, { qos: 1 })
      await eventually(() => {
        const { handled, duplicates } = client.stats().inbound
        return handled + duplicates === 2
      })
      await client.close()
      await inbox.close()
    }
    expect(ran).toEqual([7, 8])
    await broker.stop()
  })

  it(`has every key whose add has resolved after ${KILLS} kills at random moments (seed ${SEED})`, {
    timeout: 20_000 + KILLS * 3_000,
  }, async () => {
    const file = newFile('inbox.db')
    const random = new SeededRandom(SEED)
    const added: string[] = []
    for (let kill = 0; kill < KILLS; kill += 1) {
      const writer = await StoreProcess.start(file, kill * 1_000_000, 'inbox-writer.mjs')
      await writer.hasSaid(1 + random.below(200))
      await writer.kill()
      added.push(...writer.ids('added'))
    }
    const inbox = sqliteInbox(file)
    const scope = { ...SCOPE, name: 'alarms' }
    const found = await Promise.all(added.map(id => inbox.has(id, scope)))
    expect(added.filter((_, index) => found[index] !== true)).toEqual([])
    expect(added.length).toBeGreaterThan(KILLS)
    await inbox.close()
  })

  it('that another process uses is STORE_LOCKED, until that process ends', async () => {
    const file = newFile('inbox.db')
    const other = await StoreProcess.start(file, 0, 'inbox-writer.mjs')
    const inbox = sqliteInbox(file)
    await expect(inbox.open()).rejects.toMatchObject({
      code: 'STORE_LOCKED',
      message: `the inbox ${file}: another process uses it; stop that process, or give each service its own file`,
    })
    await expect(inbox.has('key 1', SCOPE)).rejects.toMatchObject({ code: 'STORE_LOCKED' })
    await other.kill()
    await inbox.open()
    expect(await inbox.has('key 1', SCOPE)).toBe(false)
    await inbox.close()
  })

  it('that is a store of messages is STORE_CORRUPT, and is not changed', async () => {
    const file = newFile()
    const store = sqliteStore(file)
    await store.open({ settled: () => {} })
    await store.close()
    const before = readFileSync(file)
    const inbox = sqliteInbox(file, { onCorrupt: 'move-aside' })
    await expect(inbox.open()).rejects.toMatchObject({
      code: 'STORE_CORRUPT',
      message: `the inbox ${file}: it is a store of sqliteStore(); use another file`,
    })
    expect(readFileSync(file).equals(before)).toBe(true)
  })

  it('forgets a key whose record has a flipped byte, and says so', async () => {
    const file = await fileWith(20)
    const bytes = readFileSync(file)
    // In the index the key is intact, so that the damaged record is found.
    const records = [...bytes.toString('latin1').matchAll(/key 7/g)].map(({ index }) => index)
    const scopeBefore = (at: number): boolean => bytes.subarray(0, at).toString('latin1').endsWith('onAlarm')
    const at = records.filter(scopeBefore)
    expect(at.length).toBe(2)
    // The time of the record follows its key.
    const record = at.find(place => bytes.readUIntBE(place + 'key 7'.length, 6) > 1e12) ?? 0
    bytes[record + 'key 7'.length + 5] = (bytes[record + 'key 7'.length + 5] ?? 0) ^ 0xff
    writeFileSync(file, bytes)
    const warned = nextWarning()
    const inbox = sqliteInbox(file)
    expect(await inbox.has('key 7', SCOPE)).toBe(false)
    expect(await warned).toBe(
      `the inbox ${file}: the record of a key of "${SCOPE.name}" is damaged, so its message is handled again`,
    )
    expect(await known(inbox, 20)).toBe(19)
    await inbox.add('key 7', SCOPE)
    expect(await known(inbox, 20)).toBe(20)
    await inbox.close()
  })

  it('with a damaged page is repaired, says so, and keeps the damaged file', async () => {
    const file = await fileWith(500)
    const bytes = readFileSync(file)
    for (const { index } of [...bytes.toString('latin1').matchAll(/key 250/g)]) {
      const page = Math.floor(index / 4_096)
      bytes.fill(0xff, page * 4_096, page * 4_096 + 200)
    }
    writeFileSync(file, bytes)
    const warned = nextWarning()
    const inbox = sqliteInbox(file)
    await inbox.add('key 501', SCOPE)
    const left = await known(inbox, 501)
    const [aside] = readdirSync(dirname(file)).filter(name => name.includes('.damaged-'))
    expect(await warned).toContain(`${aside}`)
    expect(left).toBeGreaterThan(300)
    expect(left).toBeLessThan(501)
    await inbox.close()
  })

  it('can be used again after it was closed', async () => {
    const inbox = sqliteInbox(await fileWith(1))
    await inbox.close()
    expect(await inbox.has('key 1', SCOPE)).toBe(true)
    const closed = inbox.close()
    expect(await inbox.has('key 1', SCOPE)).toBe(true)
    await closed
    await inbox.close()
  })
})

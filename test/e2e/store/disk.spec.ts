import { readFileSync, rmSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { MqttClient } from 'nestjs-mqtt/client'
import { sqliteInbox, sqliteStore } from 'nestjs-mqtt/store'
import { EmbeddedBroker } from 'nestjs-mqtt/testing'
import { describe, expect, it } from 'vitest'
import { eventually } from '../../support/eventually.js'
import { freePort } from '../../support/free-port.js'
import { limitFileSize, removeDisksAfterEach, SmallDisk } from '../../support/small-disk.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'

removeFilesAfterEach()
removeDisksAfterEach()

const MEGABYTE = 1_048_576
const LIMIT = { messages: 10_000, bytes: 100 * MEGABYTE }
const IS_FULL = {
  code: 'STORE_FAILED',
  message: expect.stringMatching(/the disk is full|input\/output error/),
}

const messageOf = (id: number) => ({
  messageId: `message-${id}`,
  topic: 'alarms',
  payload: Buffer.alloc(10_000, id),
  qos: 1 as const,
  retain: false,
  storedAtMs: 1_000 + id,
})

async function opened(file: string, options = {}) {
  const store = sqliteStore(file, options)
  const repairs: string[] = []
  const outcomes: string[] = []
  const settled = ({ outcome }: { readonly outcome: { readonly status: string } }): void =>
    void outcomes.push(outcome.status)
  await store.open({ settled, repaired: text => repairs.push(text) })
  const add = async (id: number): Promise<string> =>
    store.add(messageOf(id)).then(
      () => 'stored',
      (error: unknown) => String(error),
    )
  const ids = async () => (await store.read(0, LIMIT)).map(({ messageId }) => messageId)
  return { store, add, ids, repairs, outcomes }
}

const idsTo = (count: number): string[] => Array.from({ length: count }, (_, index) => `message-${index + 1}`)

describe('a store on a disk that becomes full', () => {
  it('rejects with STORE_FAILED, keeps what it has, and works again when there is space, also after a restart', async () => {
    const disk = SmallDisk.create(2 * MEGABYTE)
    const file = join(disk.folder, 'alarms.db')
    const { store, add, ids } = await opened(file)
    for (let id = 1; id <= 20; id += 1) expect(await add(id)).toBe('stored')
    disk.fill()
    let stored = 20
    while ((await add(stored + 1)) === 'stored') stored += 1
    await expect(store.add(messageOf(stored + 1))).rejects.toMatchObject(IS_FULL)
    expect(await ids()).toEqual(idsTo(stored))
    disk.free()
    expect(await add(stored + 1)).toBe('stored')
    await store.close()
    const again = await opened(file)
    expect(await again.ids()).toEqual(idsTo(stored + 1))
    expect(again.repairs).toEqual([])
    await again.store.close()
  })

  it('keeps what was delivered until its outcome can be written', async () => {
    const disk = SmallDisk.create(MEGABYTE)
    const { store, add, ids } = await opened(join(disk.folder, 'alarms.db'))
    for (let id = 1; id <= 10; id += 1) await add(id)
    disk.fill()
    let last = 10
    while ((await add(last + 1)) === 'stored') last += 1
    const outcome = { status: 'delivered', reasonCode: 0 } as const
    const settled: boolean[] = []
    for (let position = 1; position <= last; position += 1)
      settled.push(
        await store.settle([{ position, outcome }]).then(
          () => true,
          () => false,
        ),
      )
    const left = idsTo(last).filter((_, index) => settled[index] === false)
    expect(left.length).toBeGreaterThan(0)
    expect(await ids()).toEqual(left)
    disk.free()
    await store.settle(idsTo(last).map((_, index) => ({ position: index + 1, outcome })))
    expect(await ids()).toEqual([])
    expect(await store.outcomes()).toHaveLength(last)
    await store.close()
  })

  it('cannot be created there, says why, and can be opened when there is space', async () => {
    const disk = SmallDisk.create(MEGABYTE)
    disk.fill()
    const file = join(disk.folder, 'alarms.db')
    await expect(sqliteStore(file).open({ settled: () => {} })).rejects.toMatchObject({
      code: 'STORE_FAILED',
      message: expect.stringContaining(file),
    })
    disk.free()
    const { store, add } = await opened(file)
    expect(await add(1)).toBe('stored')
    await store.close()
  })

  it('drops the publishes of a client as store-failed, and delivers those that it has stored', async () => {
    const disk = SmallDisk.create(MEGABYTE)
    const port = await freePort()
    const client = await MqttClient.connect({
      url: `mqtt://127.0.0.1:${port}`,
      connect: 'background',
      reconnect: { delayMs: [20] },
      store: sqliteStore(join(disk.folder, 'alarms.db')),
    })
    const publish = (id: number) =>
      client.publish('alarms', Buffer.alloc(10_000, id), { qos: 1, whenBlocked: 'store' })
    const outcomes: string[] = []
    for (let id = 0; id < 5; id += 1) outcomes.push((await publish(id)).status)
    disk.fill()
    let id = 5
    for (; outcomes.at(-1) === 'stored'; id += 1) outcomes.push((await publish(id)).status)
    expect(outcomes.at(-1)).toBe('dropped')
    expect(client.stats().outbound.dropped['store-failed']).toBe(1)
    disk.free()
    expect((await publish(id)).status).toBe('stored')
    const broker = await EmbeddedBroker.start({ port })
    await eventually(() => client.stats().store?.messages === 0)
    expect(client.stats().store).toMatchObject({ delivered: outcomes.length, stored: outcomes.length })
    await client.close()
    await broker.stop()
  })

  it('makes an inbox reject with STORE_FAILED, which works again when there is space', async () => {
    const disk = SmallDisk.create(MEGABYTE)
    const inbox = sqliteInbox(join(disk.folder, 'inbox.db'))
    const scope = { name: 'alarms', maxAgeMs: 86_400_000, maxEntries: 100_000 }
    await inbox.add('before', scope)
    disk.fill()
    const keys = (id: number) => Array.from({ length: 50 }, (_, index) => `${id}-${index}`.padEnd(128, 'x'))
    const addAll = (id: number) => Promise.all(keys(id).map(key => inbox.add(key, scope)))
    let id = 0
    while (
      await addAll(id).then(
        () => true,
        () => false,
      )
    )
      id += 1
    await expect(addAll(id)).rejects.toMatchObject(IS_FULL)
    expect(await inbox.has('before', scope)).toBe(true)
    disk.free()
    await addAll(id)
    for (let added = 0; added <= id; added += 1)
      for (const key of keys(added)) expect(await inbox.has(key, scope)).toBe(true)
    await inbox.close()
  })
})

describe('a store on a read-only disk', () => {
  it('cannot be opened, says so, and has its messages when the disk can be written again', async () => {
    const disk = SmallDisk.create(2 * MEGABYTE)
    const file = join(disk.folder, 'alarms.db')
    const { store, add } = await opened(file)
    await add(1)
    await store.close()
    disk.remount('ro')
    await expect(sqliteStore(file).open({ settled: () => {} })).rejects.toMatchObject({
      code: 'STORE_FAILED',
      message: expect.stringMatching(/it is read-only|it cannot be opened/),
    })
    const inbox = sqliteInbox(join(disk.folder, 'inbox.db'))
    await expect(inbox.open()).rejects.toMatchObject({ code: 'STORE_FAILED' })
    disk.remount('rw')
    const again = await opened(file)
    expect(await again.ids()).toEqual(['message-1'])
    expect(await again.add(2)).toBe('stored')
    await again.store.close()
    await inbox.open()
    await inbox.close()
  })
})

describe('a store whose disk reports an input/output error', () => {
  it('rejects with STORE_FAILED, keeps what it has, and works again after the error', async () => {
    const file = newFile()
    const { store, add, ids } = await opened(file)
    for (let id = 1; id <= 3; id += 1) await add(id)
    limitFileSize(20_000)
    expect(await add(4)).toContain('the disk reported an input/output error')
    const outcome = { status: 'delivered', reasonCode: 0 } as const
    await expect(store.settle([{ position: 1, outcome }])).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(store.contents.messages).toBe(3)
    limitFileSize('unlimited')
    expect(await ids()).toEqual(idsTo(3))
    expect(await add(5)).toBe('stored')
    await store.settle([{ position: 1, outcome }])
    await store.close()
    const again = await opened(file)
    expect(await again.ids()).toEqual(['message-2', 'message-3', 'message-5'])
    await again.store.close()
  })
})

describe('a store whose file is changed by somebody else while it is open', () => {
  it('is written again if the file was deleted, and loses nothing', async () => {
    const file = newFile()
    const { store, add, ids, repairs } = await opened(file)
    for (let id = 1; id <= 20; id += 1) await add(id)
    for (const part of ['', '-wal', '-shm']) rmSync(file + part, { force: true })
    expect(await add(21)).toBe('stored')
    expect(await ids()).toEqual(idsTo(21))
    expect(repairs).toEqual([
      expect.stringContaining('20 messages were kept, 0 could not be read. Its file had been removed'),
    ])
    await store.close()
    const again = await opened(file)
    expect(await again.ids()).toEqual(idsTo(21))
    await again.store.close()
  })

  it('keeps what it stores after the file was emptied', async () => {
    const file = newFile()
    const first = await opened(file)
    for (let id = 1; id <= 3; id += 1) await first.add(id)
    await first.store.close()
    const { store, add, repairs } = await opened(file)
    truncateSync(file, 0)
    expect(await add(4)).toBe('stored')
    expect(repairs).toEqual([expect.stringContaining('0 messages were kept, 3 could not be read')])
    await store.close()
    const again = await opened(file)
    expect(await again.ids()).toEqual(['message-4'])
    await again.store.close()
  })

  it('counts every message that is lost if the file was cut off', async () => {
    const file = newFile()
    const first = await opened(file)
    for (let id = 1; id <= 100; id += 1) await first.add(id)
    await first.store.close()
    const { store, ids, outcomes } = await opened(file)
    truncateSync(file, Math.floor(readFileSync(file).length / 3))
    const left = await ids()
    expect(left.length + outcomes.filter(status => status === 'set-aside').length).toBe(100)
    expect(store.contents).toMatchObject({ messages: left.length, setAside: 100 - left.length })
    await store.close()
  })
})

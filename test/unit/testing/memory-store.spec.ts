import { describe, expect, it } from 'vitest'
import type { InboxStore } from '../../../src/core/inbound/inbound-count.js'
import type { MessageStore } from '../../../src/core/outbound/message-store.js'
import {
  inboxStoreContract,
  memoryInbox,
  memoryStore,
  messageStoreContract,
} from '../../../src/testing/index.js'

const message = {
  messageId: '1',
  topic: 'alarms',
  payload: Buffer.from('fire'),
  qos: 1,
  retain: false,
  storedAtMs: 1,
} as const
const listener = { settled: () => {} }

describe('memoryStore', () => {
  const checks = messageStoreContract(() => {
    let store: MessageStore | undefined
    return { store: options => (store ??= memoryStore(options)) }
  })
  for (const { title, run } of checks) it(title, run)

  it('rejects every call with the failure of the test, until it is taken back', async () => {
    const store = memoryStore()
    await store.open(listener)
    store.failWith(new Error('no space left on device'))
    await expect(store.add(message)).rejects.toMatchObject({
      code: 'STORE_FAILED',
      message: 'the store in memory: no space left on device',
    })
    expect(store.contents.messages).toBe(0)
    store.failWith(undefined)
    await expect(store.add(message)).resolves.toEqual({ position: 1 })
  })

  it('names an option that does not exist', () => {
    expect(() => memoryStore(Object.fromEntries([['maxMesages', 1]]))).toThrow(
      'memoryStore options: unknown option "maxMesages"; did you mean "maxMessages"?',
    )
  })
})

describe('messageStoreContract', () => {
  it('fails for a store that forgets what it was given', async () => {
    const checks = messageStoreContract(() => ({
      store: options => {
        const store = memoryStore(options)
        return Object.assign(Object.create(store), { read: async () => [] })
      },
    }))
    const results = await Promise.allSettled(checks.map(check => check.run()))
    const failed = checks.filter((_, index) => results[index]?.status === 'rejected')
    expect(failed.length).toBeGreaterThan(8)
  })
})

describe('memoryInbox', () => {
  const checks = inboxStoreContract(() => {
    const inbox = memoryInbox()
    return { inbox: () => inbox }
  })
  for (const { title, run } of checks) it(title, run)

  it('throws the failure of the test from every call, until it is taken back', () => {
    const inbox = memoryInbox()
    const scope = { name: 'alarms', maxAgeMs: 1_000, maxEntries: 10 }
    inbox.failWith(new Error('no space left on device'))
    const failure = expect.objectContaining({
      code: 'STORE_FAILED',
      message: 'the inbox in memory: no space left on device',
    })
    expect(() => inbox.has('one', scope)).toThrow(failure)
    expect(() => inbox.add('one', scope)).toThrow(failure)
    inbox.failWith(undefined)
    expect(inbox.has('one', scope)).toBe(false)
  })
})

describe('inboxStoreContract', () => {
  const failed = async (wrong: (inbox: InboxStore) => Partial<InboxStore>): Promise<string[]> => {
    const checks = inboxStoreContract(() => {
      const inbox = memoryInbox()
      return { inbox: () => Object.assign(Object.create(inbox), wrong(inbox)) }
    })
    const results = await Promise.allSettled(checks.map(check => check.run()))
    return checks.map(({ title }) => title).filter((_, index) => results[index]?.status === 'rejected')
  }

  it('fails for an inbox that forgets, mixes scopes, cuts keys or keeps too many', async () => {
    expect(await failed(() => ({ add: () => {} }))).toContain(
      'has a key after it was added, and no other one',
    )
    expect(
      await failed(inbox => ({
        has: (key, scope) => inbox.has(key, { ...scope, name: '' }),
        add: (key, scope) => inbox.add(key, { ...scope, name: '' }),
      })),
    ).toContain('keeps the keys of each scope separate')
    expect(
      await failed(inbox => ({
        has: (key, scope) => inbox.has(key.toWellFormed(), scope),
        add: (key, scope) => inbox.add(key.toWellFormed(), scope),
      })),
    ).toEqual(['distinguishes any two strings'])
    expect(
      await failed(inbox => ({ add: (key, scope) => inbox.add(key, { ...scope, maxEntries: 1e9 }) })),
    ).toContain('removes the oldest keys of a scope beyond maxEntries, also after a restart')
  })
})

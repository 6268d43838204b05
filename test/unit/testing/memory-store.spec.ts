import { describe, expect, it } from 'vitest'
import type { MessageStore } from '../../../src/core/outbound/message-store.js'
import { memoryStore, messageStoreContract } from '../../../src/testing/index.js'

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

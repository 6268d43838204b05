import { describe, expect, it } from 'vitest'
import {
  exceeds,
  fullnessOf,
  isRejected,
  type MessageToStore,
  type StoreLimits,
  storeClosed,
  storedBytes,
  storedExpiry,
  storeOpen,
} from '../../../../src/core/outbound/message-store.js'

const LIMITS: StoreLimits = {
  maxMessages: 4,
  maxBytes: 1_000,
  maxAgeMs: undefined,
  overflow: 'drop-oldest',
  maxOutcomes: 10,
}
const DROP_NEWEST: StoreLimits = { ...LIMITS, overflow: 'drop-newest' }
const MESSAGE: MessageToStore = {
  messageId: 'id',
  topic: 'abc',
  payload: Buffer.alloc(100),
  qos: 1,
  retain: false,
  storedAtMs: 5_000,
}

describe('the size of a stored message', () => {
  it('is that of its topic and payload, and of the record around it', () => {
    expect(storedBytes(MESSAGE)).toBe(150 + 8 + 3 + 100)
  })
})

describe('the time at which a stored message expires', () => {
  it.each([
    [undefined, undefined, undefined],
    [9_000, undefined, 9_000],
    [undefined, 1_000, 6_000],
    [9_000, 1_000, 6_000],
    [5_500, 1_000, 5_500],
  ])('is the earlier one of its own, %j, and that of "maxAgeMs", %j', (expiresAtMs, maxAgeMs, expected) => {
    const own = expiresAtMs === undefined ? {} : { expiresAtMs }
    expect(storedExpiry({ ...MESSAGE, ...own }, maxAgeMs)).toBe(expected)
  })
})

describe('a store', () => {
  it.each([
    [3, 900, 100, false],
    [4, 900, 100, true],
    [3, 901, 100, true],
    [4, 1_000, 1_000, true],
  ])('with %i messages and %i bytes must make room for %i bytes: %j', (messages, bytes, more, isFull) => {
    expect(exceeds(more, { messages, bytes }, LIMITS)).toBe(isFull)
    expect(isRejected(more, { messages, bytes }, LIMITS)).toBe(false)
    expect(isRejected(more, { messages, bytes }, DROP_NEWEST)).toBe(isFull)
  })

  it.each([LIMITS, DROP_NEWEST])(
    'that is empty takes every message within its limit of bytes: %j',
    limits => {
      const empty = { messages: 0, bytes: 0 }
      expect([isRejected(1_000, empty, limits), isRejected(1_001, empty, limits)]).toEqual([false, true])
      // What is held besides messages does not go.
      expect(exceeds(1_000, { messages: 0, bytes: 500 }, limits)).toBe(false)
    },
  )

  it.each([
    [1, 100, 0.25],
    [1, 900, 0.9],
    [0, 0, 0],
    [4, 1_200, 1],
  ])('with %i messages and %i bytes is full to %d', (messages, bytes, fullness) => {
    expect(fullnessOf({ messages, bytes }, LIMITS)).toBe(fullness)
  })

  it('reports with its name that it is not open, or already open', () => {
    expect(storeClosed('the store "a"')).toMatchObject({
      code: 'STORE_FAILED',
      message: 'the store "a" is not open; open it first, and do not use it after close()',
    })
    expect(storeOpen('the store "a"')).toMatchObject({
      code: 'STORE_LOCKED',
      message: 'the store "a" is already open; use one store for each client',
    })
  })
})

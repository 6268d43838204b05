import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { Delivery } from '../../../../src/client/inbound/delivery.js'
import { HeldBytes, OpenMessages } from '../../../../src/core/inbound/open-messages.js'
import { RunScheduler, type ScheduledRun } from '../../../../src/core/inbound/run-scheduler.js'
import type { PublishPacket } from '../../../../src/core/protocol/packets.js'

const AT_ONCE = 16
const BATCHES = 400
const MESSAGE_NUMBERS = 150
/** A message has 1,200 bytes. */
const MAX_BYTES = AT_ONCE * BATCHES * 32

setFlagsFromString('--expose-gc')
// Seam: the function that the flag adds to a new context.
const collect = runInNewContext('gc') as (options?: { type: 'minor' }) => void

/** Bytes of the old generation, where only a full collection frees memory. */
const oldBytes = () =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === 'old_space')?.space_used_size ?? 0

/** What is held while two collections run becomes old. */
const age = () => {
  for (let n = 0; n < 2; n += 1) collect({ type: 'minor' })
}

/** @returns how many bytes are old after messages came and went, in small groups */
function grownBy<T>(begin: (n: number) => T, end: (one: T) => void): number {
  collect()
  const held = Array.from({ length: AT_ONCE }, (_, n) => begin(n))
  age()
  for (const one of held.splice(0)) end(one)
  const before = oldBytes()
  for (let batch = 0; batch < BATCHES; batch += 1) {
    const messages = Array.from({ length: AT_ONCE }, (_, n) => begin(n))
    for (const one of messages) end(one)
    if (batch % 4 === 0) collect({ type: 'minor' })
  }
  age()
  return oldBytes() - before
}

describe('messages that have ended', () => {
  it('leave the young generation of the heap when they were open', () => {
    const messages = new OpenMessages(new HeldBytes(1_000_000, { count: 0, bytes: 0 }), true)
    const begin = (n: number) => {
      const packet: PublishPacket = {
        cmd: 'publish',
        topic: `t/${n}`,
        payload: Buffer.alloc(0),
        qos: 0,
        retain: false,
        dup: false,
      }
      const delivery = Object.assign(new Delivery(packet), { content: new Array(MESSAGE_NUMBERS).fill(n) })
      messages.add(delivery)
      return delivery
    }
    expect(grownBy(begin, delivery => messages.finish(delivery))).toBeLessThan(MAX_BYTES)
  })

  it('leave the young generation of the heap when they were handled in the order of their topic', () => {
    const scheduler = new RunScheduler<typeof handler, ScheduledRun<typeof handler>>(100)
    const handler = { concurrency: 100, isPassive: false }
    const begin = (n: number) => {
      const run = {
        handler,
        key: `t/${n}`,
        state: 'waiting' as const,
        openRequests: 0,
        holdsLane: false,
        isTracked: false,
        content: new Array(MESSAGE_NUMBERS).fill(n),
      }
      scheduler.begin(run)
      return run
    }
    expect(grownBy(begin, run => scheduler.release(run))).toBeLessThan(MAX_BYTES)
  })
})

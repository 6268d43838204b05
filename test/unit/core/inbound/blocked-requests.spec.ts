import { describe, expect, it } from 'vitest'
import { type BlockableRequest, BlockedRequests } from '../../../../src/core/inbound/blocked-requests.js'
import type { RunState } from '../../../../src/core/inbound/run-scheduler.js'

interface Run {
  readonly state: RunState
  readonly isEnded: boolean
  readonly context: { readonly blockable: Set<BlockableRequest> } | undefined
}

/** A window of messages, each with a handler that waits for a response, or does not. */
function windowOf(deliveries: readonly (BlockableRequest['delivery'] | undefined)[], maxInFlight: number) {
  const requests = deliveries.map(delivery => delivery && { delivery, block: () => {} })
  const messages = {
    added: deliveries.length,
    unacknowledged: requests.map(request => {
      const context = request && { blockable: new Set([request]) }
      const runs: Run[] = [{ state: 'working', isEnded: false, context }]
      return { runs, started: 1, mayBeAcknowledged: false }
    }),
  }
  const pool = { blockable: deliveries.length, endedCount: 0, ahead: () => undefined }
  const blocked = new BlockedRequests<Run>(maxInFlight, messages, pool)
  const placesOf = (found: readonly BlockableRequest[]) =>
    found.map(one => requests.findIndex(request => request === one))
  return { blocked, messages, pool, placesOf }
}

describe('BlockedRequests', () => {
  it('finds the requests of the oldest message at once if both directions are delivered at QoS 1', () => {
    const { blocked, placesOf } = windowOf(['both', 'both'], 2)
    expect(placesOf(blocked.check(true, 0))).toEqual([0])
    expect(blocked.dueMs).toBeUndefined()
  })

  it('finds no request while the window has room', () => {
    const { blocked } = windowOf(['both', 'both'], 3)
    expect(blocked.check(true, 0)).toEqual([])
    expect(blocked.dueMs).toBeUndefined()
  })

  it('waits for a second of silence if the response may come at QoS 0', () => {
    const { blocked, placesOf } = windowOf(['response', 'response'], 2)
    expect(blocked.check(true, 0)).toEqual([])
    expect(blocked.dueMs).toBe(1_000)
    expect(placesOf(blocked.look(1_000))).toEqual([0])
  })

  it('restarts the silence with each change', () => {
    const { blocked, pool } = windowOf(['response', 'response'], 2)
    blocked.check(true, 0)
    blocked.check(true, 400)
    expect(blocked.dueMs).toBe(1_000)
    pool.endedCount += 1
    blocked.check(true, 500)
    expect(blocked.dueMs).toBe(1_500)
  })

  it('finds the requests of all messages once the broker has shown that its window was full', () => {
    const { blocked, messages, placesOf } = windowOf(['response', 'response', 'response'], 2)
    blocked.check(true, 0)
    expect(placesOf(blocked.look(1_000))).toEqual([0])
    messages.added += 1
    blocked.check(true, 1_100)
    expect(blocked.dueMs).toBe(2_100)
    expect(placesOf(blocked.look(2_100))).toEqual([0, 1, 2])
  })

  it('waits longer if the broker had nothing more to deliver', () => {
    const { blocked, messages } = windowOf(['response', 'response'], 2)
    blocked.check(true, 0)
    blocked.look(1_000)
    messages.added += 1
    blocked.check(true, 5_000)
    expect(blocked.dueMs).toBe(7_000)
  })

  it('finds no request while the oldest message waits for something else', () => {
    const { blocked } = windowOf([undefined, 'response'], 2)
    blocked.check(true, 0)
    expect(blocked.look(1_000)).toEqual([])
    expect(blocked.dueMs).toBe(2_000)
  })
})

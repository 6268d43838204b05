import { describe, expect, it } from 'vitest'
import { type BlockableRequest, BlockedRequests } from '../../../../src/core/inbound/blocked-requests.js'
import type { RunState } from '../../../../src/core/inbound/run-scheduler.js'

interface Run {
  readonly state: RunState
  readonly isEnded: boolean
  readonly context: { readonly blockable: Set<BlockableRequest> } | undefined
}

const runWith = (requests: readonly BlockableRequest[], fields: Partial<Run> = {}): Run => ({
  state: 'working',
  isEnded: false,
  context: requests.length > 0 ? { blockable: new Set(requests) } : undefined,
  ...fields,
})

type Delivered = BlockableRequest['delivery'] | undefined

/** A window of messages, each with a handler that waits for responses, or does not. */
function windowOf(deliveries: readonly (Delivered | readonly Delivered[])[], maxInFlight: number) {
  const requests: BlockableRequest[] = []
  const messageWith = (delivered: Delivered | readonly Delivered[]) => {
    const own = [delivered].flat().flatMap(delivery => (delivery ? [{ delivery, block: () => {} }] : []))
    requests.push(...own)
    return { runs: [runWith(own)], started: 1, mayBeAcknowledged: false }
  }
  const messages = { added: deliveries.length, unacknowledged: deliveries.map(messageWith) }
  const pool = {
    blockable: requests.length,
    endedCount: 0,
    ahead: (_run: Run): Run | undefined => undefined,
  }
  const blocked = new BlockedRequests<Run>(maxInFlight, messages, pool)
  const placesOf = (found: readonly BlockableRequest[]) => found.map(one => requests.indexOf(one))
  return { blocked, messages, messageWith, pool, placesOf }
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

/** Checks, and looks after a second of silence. */
function found({ blocked, placesOf }: ReturnType<typeof windowOf>, isWindowKnown = true): number[] {
  expect(blocked.check(isWindowKnown, 0)).toEqual([])
  return blocked.dueMs === undefined ? [] : placesOf(blocked.look(blocked.dueMs))
}

const full = (count: number, delivered: Delivered = 'response') =>
  Array.from({ length: count }, () => delivered)

describe('BlockedRequests on MQTT 3.1.1, whose window is unknown', () => {
  it('treat ten messages as a full window, but not nine', () => {
    expect(found(windowOf(full(9), 65_535), false)).toEqual([])
    expect(found(windowOf(full(10), 65_535), false)).toEqual([0])
  })

  it('treat as many messages as the broker has delivered before as a full window', () => {
    const parts = windowOf(full(12), 65_535)
    parts.blocked.check(false, 0)
    const [last] = parts.messages.unacknowledged.splice(11)
    parts.blocked.check(false, 100)
    expect(parts.blocked.look(1_000)).toEqual([])
    expect(parts.blocked.dueMs).toBeUndefined()
    if (last !== undefined) parts.messages.unacknowledged.push(last)
    parts.blocked.check(false, 2_000)
    expect(parts.placesOf(parts.blocked.look(3_000))).toEqual([0])
  })

  it('wait for a second of silence even if both directions are delivered at QoS 1', () => {
    expect(found(windowOf(full(10, 'both'), 65_535), false)).toEqual([0])
  })

  it('forget on the next connection what the broker delivered on this one', () => {
    const parts = windowOf(full(12), 65_535)
    parts.blocked.check(false, 0)
    parts.blocked.forget()
    expect(parts.blocked.dueMs).toBeUndefined()
    parts.messages.unacknowledged.splice(10)
    expect(found(parts, false)).toEqual([0])
  })
})

describe('BlockedRequests that are not certain', () => {
  it('find no request if nothing is unacknowledged any more', () => {
    const parts = windowOf(['response'], 1)
    parts.blocked.check(true, 0)
    parts.messages.unacknowledged.length = 0
    expect(parts.blocked.look(1_000)).toEqual([])
    expect(parts.blocked.dueMs).toBeUndefined()
    expect(parts.blocked.check(true, 1_000)).toEqual([])
  })

  it('find no request if the last one has been responded to, and do not look again', () => {
    const parts = windowOf(['response'], 1)
    parts.blocked.check(true, 0)
    parts.pool.blockable = 0
    expect(parts.blocked.look(1_000)).toEqual([])
    expect(parts.blocked.dueMs).toBeUndefined()
  })

  it('find no request if the window has room again, and do not look again', () => {
    const parts = windowOf(['response', 'response'], 2)
    parts.blocked.check(true, 0)
    parts.messages.unacknowledged.pop()
    expect(parts.blocked.look(1_000)).toEqual([])
    expect(parts.blocked.dueMs).toBeUndefined()
  })

  it('find no request if something has changed at the last moment, and wait for another second', () => {
    const parts = windowOf(['response', 'response'], 2)
    parts.blocked.check(true, 0)
    parts.messages.added += 1
    parts.pool.endedCount += 1
    expect(parts.blocked.look(1_000)).toEqual([])
    expect(parts.blocked.dueMs).toBe(2_000)
    expect(parts.placesOf(parts.blocked.look(2_000))).toEqual([0])
  })

  it('keep the start of a silence that continues, and wait again after a check', () => {
    const parts = windowOf([undefined, 'response'], 2)
    parts.blocked.check(true, 0)
    parts.blocked.look(1_000)
    parts.blocked.forget()
    parts.blocked.check(true, 5_000)
    expect(parts.blocked.dueMs).toBe(6_000)
  })
})

describe('a message in the window of BlockedRequests', () => {
  it('certainly blocks only if all of its requests are delivered at QoS 1 in both directions', () => {
    const parts = windowOf(['both'], 1)
    const [message] = parts.messages.unacknowledged
    message?.runs.push(runWith([{ delivery: 'response', block: () => {} }]))
    expect(parts.blocked.check(true, 0)).toEqual([])
  })

  it('certainly blocks if one of several requests of each handler is delivered at QoS 1 in both directions', () => {
    const { blocked, placesOf } = windowOf([['response', 'both']], 1)
    expect(placesOf(blocked.check(true, 0))).toEqual([0, 1])
  })

  it('does not block while one of its handlers waits for no response', () => {
    const parts = windowOf(['both'], 1)
    parts.messages.unacknowledged[0]?.runs.push(runWith([]))
    expect(found(parts)).toEqual([])
  })

  it('does not block while one of its handlers has no open request any more', () => {
    const parts = windowOf(['both'], 1)
    parts.messages.unacknowledged[0]?.runs.push(runWith([], { context: { blockable: new Set() } }))
    expect(found(parts)).toEqual([])
  })

  it('blocks regardless of what its finished handlers did', () => {
    const parts = windowOf(['both'], 1)
    parts.messages.unacknowledged[0]?.runs.unshift(runWith([], { isEnded: true }))
    expect(parts.placesOf(parts.blocked.check(true, 0))).toEqual([0])
  })

  it('does not block if all of its handlers have ended', () => {
    const parts = windowOf(['both', 'both'], 2)
    parts.messages.unacknowledged[0]?.runs.splice(0, 1, runWith([], { isEnded: true }))
    expect(found(parts)).toEqual([])
  })

  it('blocks because of the run ahead of one that has not started', () => {
    const parts = windowOf(['both'], 1)
    const ahead = parts.messages.unacknowledged[0]?.runs[0]
    const waiting = runWith([], { state: 'waiting' })
    parts.pool.ahead = run => (run === waiting ? ahead : undefined)
    parts.messages.unacknowledged[0]?.runs.splice(0, 1, waiting)
    expect(parts.placesOf(parts.blocked.check(true, 0))).toEqual([0])
  })

  it('does not block while its handler waits for a free slot', () => {
    const parts = windowOf(['both'], 1)
    parts.messages.unacknowledged[0]?.runs.splice(0, 1, runWith([], { state: 'waiting' }))
    expect(found(parts)).toEqual([])
  })
})

describe('the messages behind the oldest one', () => {
  /** The broker has shown that its window is full. */
  function proven(
    deliveries: Parameters<typeof windowOf>[0],
    change: (parts: ReturnType<typeof windowOf>) => void,
  ) {
    const parts = windowOf(deliveries, 2)
    parts.blocked.check(true, 0)
    parts.blocked.look(1_000)
    parts.messages.added += 1
    parts.blocked.check(true, 1_999)
    change(parts)
    return parts.placesOf(parts.blocked.look(2_999))
  }

  it('do not matter if they may be acknowledged, or if their handlers have not started', () => {
    const places = proven(['response', 'response', 'response', 'response'], ({ messages }) => {
      const [, second, third] = messages.unacknowledged
      if (second !== undefined) second.mayBeAcknowledged = true
      if (third !== undefined) third.started = 0
    })
    expect(places).toEqual([0, 3])
  })

  it('do not matter if the response alone is delivered to this connection', () => {
    expect(proven(['response', undefined, 'response'], () => {})).toEqual([0, 1])
  })

  it('may hold the handler that responds, if the request is delivered to this connection too', () => {
    const parts = windowOf([['response', 'request'], undefined], 2)
    expect(found(parts)).toEqual([])
    expect(parts.blocked.dueMs).toBe(2_000)
  })

  it('may hold it even if only one of several handlers of the oldest message waits for it', () => {
    const parts = windowOf(['response', undefined], 2)
    parts.messages.unacknowledged[0]?.runs.push(runWith([{ delivery: 'request', block: () => {} }]))
    expect(found(parts)).toEqual([])
  })

  it('do not block before the handlers of the oldest one have started', () => {
    const places = proven(['response', 'response'], ({ messages }) => {
      const [oldest] = messages.unacknowledged
      if (oldest === undefined) return
      oldest.started = 0
      oldest.runs.splice(0, 1, runWith([], { state: 'waiting' }))
    })
    expect(places).toEqual([])
  })

  it('may hold it on MQTT 3.1.1, where the window is unknown', () => {
    expect(found(windowOf([...full(9), undefined], 65_535), false)).toEqual([])
    expect(found(windowOf([...full(9), undefined], 10), true)).toEqual([0])
  })

  it('do not matter any more once the oldest message is blocked by a response alone', () => {
    expect(found(windowOf(['response', 'request', undefined], 3))).toEqual([0])
  })
})

describe('the silence before requests are considered blocked', () => {
  /** Fails requests at `lookedMs`, after which the broker delivers another message. @returns the next silence */
  function next(parts: ReturnType<typeof windowOf>, lookedMs: number, deliveredMs: number): number {
    parts.blocked.look(lookedMs)
    parts.messages.added += 1
    parts.blocked.check(true, deliveredMs)
    return (parts.blocked.dueMs ?? 0) - deliveredMs
  }

  it('doubles with each message that comes late, up to half a minute', () => {
    const parts = windowOf(['response', 'response'], 2)
    parts.blocked.check(true, 0)
    const silences: number[] = []
    let nowMs = 1_000
    for (let n = 0; n < 7; n += 1) {
      const silenceMs = next(parts, nowMs, nowMs + 1_000)
      silences.push(silenceMs)
      nowMs += 1_000 + silenceMs
    }
    expect(silences).toEqual([2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000])
  })

  it('depends on the next message, not on handlers that end before it', () => {
    const parts = windowOf(['response', 'response'], 2)
    parts.blocked.check(true, 0)
    parts.blocked.look(1_000)
    parts.pool.endedCount += 1
    parts.blocked.check(true, 1_100)
    expect(next(parts, 2_100, 9_000)).toBe(2_000)
  })

  it('is a second again once a message comes at once, and stays so for the next one', () => {
    const parts = windowOf(['response', 'response'], 2)
    parts.blocked.check(true, 0)
    expect(next(parts, 1_000, 5_000)).toBe(2_000)
    expect(next(parts, 7_000, 7_999)).toBe(1_000)
    expect(next(parts, 8_999, 20_000)).toBe(1_000)
    expect(next(parts, 21_000, 40_000)).toBe(2_000)
  })

  it('is a second again on the next connection, whose window has to be shown again', () => {
    const parts = windowOf(['response', 'response'], 2)
    parts.blocked.check(true, 0)
    expect(next(parts, 1_000, 5_000)).toBe(2_000)
    expect(next(parts, 7_000, 7_001)).toBe(1_000)
    parts.blocked.forget()
    parts.messages.added += 1
    parts.blocked.check(true, 10_000)
    expect(parts.placesOf(parts.blocked.look(11_000))).toEqual([0])
    parts.blocked.forget()
    parts.messages.added += 1
    parts.blocked.check(true, 20_000)
    expect(parts.blocked.dueMs).toBe(21_000)
  })
})

import { describe, expect, it } from 'vitest'
import { OutcomeCount, POLICIES } from '../../../../src/core/outbound/publish-outcome.js'

const NOTHING_DROPPED = {
  offline: 0,
  backlog: 0,
  'in-flight-full': 0,
  'queue-full': 0,
  superseded: 0,
  expired: 0,
  aborted: 0,
  closed: 0,
  'store-failed': 0,
  'store-full': 0,
}
const NOTHING = {
  attempted: 0,
  accepted: 0,
  sent: 0,
  acknowledged: 0,
  refused: 0,
  lost: 0,
  stored: 0,
  dropped: NOTHING_DROPPED,
}

describe('OutcomeCount', () => {
  it('starts at zero', () => {
    expect(new OutcomeCount().outcomes).toEqual(NOTHING)
  })

  it('counts a message that is sent at once as started and ended', () => {
    const count = new OutcomeCount()
    count.begun += 1
    count.ended.sent += 1
    expect(count.outcomes).toEqual({ ...NOTHING, attempted: 1, accepted: 1, sent: 1 })
  })

  it('counts a message that is dropped at once as attempted, not as accepted', () => {
    const count = new OutcomeCount()
    count.droppedAtOnce('offline')
    count.droppedAtOnce('backlog')
    const dropped = { ...NOTHING_DROPPED, offline: 1, backlog: 1 }
    expect(count.outcomes).toEqual({ ...NOTHING, attempted: 2, dropped })
  })

  it('counts an accepted message as attempted and accepted before it has ended', () => {
    const count = new OutcomeCount()
    count.begun += 1
    expect(count.outcomes).toEqual({ ...NOTHING, attempted: 1, accepted: 1 })
  })

  it('counts the end, and still counts it as accepted', () => {
    const count = new OutcomeCount()
    count.begun += 2
    count.ended.acknowledged += 1
    count.dropped.superseded += 1
    const dropped = { ...NOTHING_DROPPED, superseded: 1 }
    expect(count.outcomes).toEqual({ ...NOTHING, attempted: 2, accepted: 2, acknowledged: 1, dropped })
  })

  it('returns a snapshot', () => {
    const count = new OutcomeCount()
    const before = count.outcomes
    count.droppedAtOnce('closed')
    count.begun += 1
    expect(before).toEqual(NOTHING)
  })
})

describe('a publish that cannot be written now', () => {
  const limits = { whenBlocked: 'drop', maxDelayMs: 100, maxAgeMs: 1_000 } as const
  /** Of 1 byte per millisecond. */
  const link = { delayMs: (bytes: number) => bytes }

  it('is dropped without a connection, or if it would be late', () => {
    const { refuses } = POLICIES.drop
    expect(refuses(undefined, 1, limits)).toBe('offline')
    expect([refuses(link, 100, limits), refuses(link, 101, limits)]).toEqual([undefined, 'backlog'])
  })

  it.each(['latest', 'queue', 'wait', 'store'] as const)(
    'waits by the policy %s, whatever the link',
    mode => {
      const { refuses } = POLICIES[mode]
      expect([refuses(undefined, 1, limits), refuses(link, 1e9, limits)]).toEqual([undefined, undefined])
    },
  )
})

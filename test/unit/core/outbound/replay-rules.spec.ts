import { describe, expect, it } from 'vitest'
import type { OutboundMessage } from '../../../../src/core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../../../src/core/outbound/publish-outcome.js'
import {
  EarlyEnds,
  expiresAtMs,
  identified,
  isForNow,
  messageToSend,
  Obstacles,
  ReplayShare,
  replayWindow,
  StoredTopics,
  storedOutcomeOf,
} from '../../../../src/core/outbound/replay-rules.js'

const MESSAGE = {
  topic: 'trucks/7/alarm',
  payload: Buffer.from('1'),
  qos: 1,
  retain: false,
} satisfies OutboundMessage as OutboundMessage & { readonly qos: 1 }
const STORED = { ...MESSAGE, messageId: 'a', storedAtMs: 1_000_000 }

describe('the share of stored messages on a link', () => {
  it('is everything while no other publish waits', () => {
    const share = new ReplayShare()
    for (let written = 0; written < 1_000_000; written += 10_000) {
      share.offered(written)
      expect(share.mayWrite(false)).toBe(true)
      share.wrote(false, written + 10_000)
    }
  })

  it.each([50, 100, 1_000, 3_000])('is a tenth while others wait, with messages of %i bytes', size => {
    const share = new ReplayShare()
    const written = { live: 0, stored: 0 }
    const total = () => written.live + written.stored
    while (total() < 1_000_000) {
      share.offered(total())
      if (share.mayWrite(true)) {
        written.stored += size
        share.wrote(true, total())
      } else written.live += 200
    }
    expect(written.stored / total()).toBeCloseTo(0.1, 2)
  })

  it('is also a tenth if much is written at a time', () => {
    const share = new ReplayShare()
    const written = { live: 0, stored: 0 }
    const total = () => written.live + written.stored
    for (let turn = 0; turn < 100; turn += 1) {
      share.offered(total())
      while (share.mayWrite(true)) {
        written.stored += 100
        share.wrote(true, total())
      }
      written.live += 200_000
    }
    expect(written.stored / total()).toBeCloseTo(0.1, 2)
  })

  it('does not save up what was not used', () => {
    const share = new ReplayShare()
    for (let written = 0; written <= 10_000_000; written += 10_000) share.offered(written)
    let stored = 0
    while (share.mayWrite(true)) {
      stored += 100
      share.wrote(true, 10_000_000 + stored)
    }
    expect(stored).toBeLessThanOrEqual(4_200)
  })
})

describe('the number of stored messages in flight', () => {
  it.each([
    [1, 1],
    [2, 1],
    [4, 3],
    [20, 15],
    [1_000, 750],
  ])('leaves room for others: of %i at most %i', (most, stored) => {
    expect(replayWindow(most)).toBe(stored)
  })
})

describe('the topics of stored messages', () => {
  it('are waited for until each message of the topic was sent', () => {
    const topics = new StoredTopics()
    topics.add('a')
    topics.add('a')
    topics.remove('a')
    expect([topics.has('a'), topics.has('b')]).toEqual([true, false])
    topics.remove('a')
    expect(topics.has('a')).toBe(false)
  })

  it('are all waited for while messages of an earlier process are unsent', () => {
    const topics = new StoredTopics()
    topics.found(2)
    topics.add('a')
    expect(topics.has('b')).toBe(true)
    for (const topic of ['a', 'b']) topics.remove(topic)
    // The first "a" was of the earlier process, so that a message of "a" may still wait.
    expect(topics.has('a')).toBe(true)
    topics.remove('a')
    expect([topics.has('a'), topics.has('b')]).toEqual([false, false])
  })

  it('are remembered up to a limit, beyond which every topic waits', () => {
    const topics = new StoredTopics()
    for (let index = 0; index < 10_001; index += 1) topics.add(`t/${index}`)
    expect(topics.has('other')).toBe(true)
    topics.remove('t/10000')
    expect([topics.has('other'), topics.has('t/5')]).toEqual([false, true])
  })
})

describe('a message that the broker refuses for now', () => {
  it('is tried again with growing pauses of at most a minute', () => {
    const obstacles = new Obstacles()
    const pauses = Array.from({ length: 8 }, () => obstacles.refused(1))
    expect(pauses.map(after => !after.isGivenUp && after.pauseMs)).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000,
    ])
  })

  it('is given up after ten refusals if the broker accepts others', () => {
    const obstacles = new Obstacles()
    obstacles.refused(1)
    obstacles.accepted(2)
    const later = Array.from({ length: 9 }, () => obstacles.refused(1).isGivenUp)
    expect(later).toEqual([...Array(8).fill(false), true])
  })

  it('has its own pauses and refusals', () => {
    const obstacles = new Obstacles()
    for (let count = 0; count < 9; count += 1) obstacles.refused(1)
    obstacles.accepted(2)
    expect(obstacles.refused(3)).toEqual({ isGivenUp: false, pauseMs: 1_000 })
    const later = Array.from({ length: 9 }, () => obstacles.refused(3).isGivenUp)
    expect(later).not.toContain(true)
  })

  it('does not count as one that the broker accepts when it is acknowledged itself', () => {
    const obstacles = new Obstacles()
    obstacles.refused(1)
    obstacles.accepted(1)
    const later = Array.from({ length: 9 }, () => obstacles.refused(1).isGivenUp)
    expect(later).not.toContain(true)
  })

  it('is given up after a hundred refusals if the broker accepts none', () => {
    const obstacles = new Obstacles()
    const refusals = Array.from({ length: 100 }, () => obstacles.refused(1).isGivenUp)
    expect(refusals).toEqual([...Array(99).fill(false), true])
  })
})

describe('connections that end before a stored message is acknowledged', () => {
  it('make the client send the first message alone after three, and give it up after ten more', () => {
    const obstacles = new Obstacles()
    for (let count = 0; count < 3; count += 1) {
      expect(obstacles.sendsAlone).toBe(false)
      expect(obstacles.connectionEnded(false)).toBe(false)
    }
    expect(obstacles.sendsAlone).toBe(true)
    const endings = Array.from({ length: 10 }, () => obstacles.connectionEnded(true))
    expect(endings).toEqual([...Array(9).fill(false), true])
    expect(obstacles.sendsAlone).toBe(false)
  })

  it('give up nothing if the link never proved that it works', () => {
    const obstacles = new Obstacles()
    for (let count = 0; count < 1_000; count += 1) expect(obstacles.connectionEnded(false)).toBe(false)
  })

  it('are forgotten with the next acknowledgement', () => {
    const obstacles = new Obstacles()
    for (let count = 0; count < 3; count += 1) obstacles.connectionEnded(false)
    obstacles.accepted(1)
    expect(obstacles.sendsAlone).toBe(false)
    for (let count = 0; count < 9; count += 1) obstacles.connectionEnded(true)
    obstacles.accepted(1)
    expect(obstacles.connectionEnded(true)).toBe(false)
  })

  it('start from the first one again after a message was given up', () => {
    const obstacles = new Obstacles()
    for (let count = 0; count < 9; count += 1) obstacles.connectionEnded(true)
    expect([obstacles.connectionEnded(true), obstacles.connectionEnded(true)]).toEqual([true, false])
  })
})

describe('messages that the store ends before it has reported that they were added', () => {
  function ends() {
    const topics = new StoredTopics()
    return { topics, early: new EarlyEnds(topics) }
  }

  it('are reported with their addition, and leave no topic behind', () => {
    const { topics, early } = ends()
    early.ended(5, 'a', true)
    topics.add('b')
    expect([early.added(5, true), early.added(6, true)]).toEqual([true, false])
    expect(topics.has('b')).toBe(true)
  })

  it('are those behind the last one that was added', () => {
    const { topics, early } = ends()
    topics.add('a')
    early.added(5, true)
    early.ended(5, 'a', true)
    expect(topics.has('a')).toBe(false)
    expect(early.added(6, true)).toBe(false)
  })

  it('are none while nothing is being added', () => {
    const { topics, early } = ends()
    topics.add('a')
    early.ended(5, 'a', false)
    expect(topics.has('a')).toBe(false)
    expect(early.added(5, false)).toBe(false)
  })

  it('were in the store before if a later one is added first, and free their topics then', () => {
    const { topics, early } = ends()
    for (const topic of ['a', 'b', 'c']) topics.add(topic)
    early.ended(3, 'a', true)
    early.ended(4, 'b', true)
    early.ended(6, 'c', true)
    expect(early.added(4, true)).toBe(true)
    expect(['a', 'b', 'c'].map(topic => topics.has(topic))).toEqual([false, true, true])
    // Nothing is being added any more, so the last one was in the store before too.
    expect(early.added(5, false)).toBe(false)
    expect(topics.has('c')).toBe(false)
    expect(early.added(6, true)).toBe(false)
  })
})

describe('the outcome of a stored message', () => {
  const refused = { status: 'refused', reasonCode: 0x87, reasonString: 'no' } as const

  it.each([
    [
      { status: 'acknowledged', reasonCode: 0x10 },
      { status: 'delivered', reasonCode: 0x10 },
    ],
    [refused, refused],
    [{ status: 'dropped', reason: 'expired' }, { status: 'expired' }],
    [{ status: 'dropped', reason: 'closed' }, undefined],
    [{ status: 'lost', cause: new Error('gone') }, undefined],
  ] as const)('of a publish that ended with %j is %j', (outcome, expected) => {
    expect(storedOutcomeOf(outcome)).toEqual(expected)
  })

  it.each([
    [{ status: 'refused', reasonCode: 0x97 }, true],
    [{ status: 'refused', reasonCode: 0x87 }, false],
    [{ status: 'acknowledged', reasonCode: 0x97 }, false],
  ] satisfies readonly [PublishOutcome, boolean][])('%j is preliminary: %j', (outcome, isPreliminary) => {
    expect(isForNow(outcome)).toBe(isPreliminary)
  })
})

describe('the identity of a message', () => {
  it('is in User Properties, with the time of the call', () => {
    const { message, messageId } = identified(MESSAGE, 'id', '2026-01-02T03:04:05.006Z')
    expect(messageId).toBe('id')
    expect(message.properties).toEqual({
      userProperties: { 'message-id': 'id', 'stored-at': '2026-01-02T03:04:05.006Z' },
    })
  })

  it('is not an empty text, or one of several values', () => {
    for (const own of ['', ['a', 'b']]) {
      const properties = { userProperties: { 'message-id': own } }
      expect(identified({ ...MESSAGE, properties }, 'id', '').messageId).toBe('id')
    }
  })

  it('is the one that the caller has set', () => {
    const properties = { contentType: 'text/plain', userProperties: { 'message-id': 'mine', trace: 'x' } }
    const { message, messageId } = identified({ ...MESSAGE, properties }, 'id', '')
    expect(messageId).toBe('mine')
    expect(message.properties).toMatchObject({
      contentType: 'text/plain',
      userProperties: { 'message-id': 'mine', trace: 'x' },
    })
  })
})

describe('the Message Expiry Interval of a stored message', () => {
  const expiring = { ...STORED, properties: { messageExpiryInterval: 60 } }
  const leftAfter = (ms: number) =>
    messageToSend(expiring, STORED.storedAtMs + ms).properties?.messageExpiryInterval

  it('decreases while the message is stored', () => {
    expect([0, 999, 1_000, 59_000].map(leftAfter)).toEqual([60, 60, 59, 1])
  })

  it('does not increase when the clock is set back', () => {
    expect(leftAfter(-3_600_000)).toBe(60)
  })

  it('is not added to a message without one', () => {
    expect(messageToSend(STORED, STORED.storedAtMs + 5_000)).toEqual(MESSAGE)
  })

  it('stays 0 for a message that was published with 0', () => {
    const properties = { messageExpiryInterval: 0 }
    expect(messageToSend({ ...STORED, properties }, STORED.storedAtMs + 5_000).properties).toEqual(properties)
  })

  it('leaves the other properties as they are', () => {
    const properties = { contentType: 'text/plain' }
    expect(messageToSend({ ...STORED, properties }, 2_000_000)).toEqual({ ...MESSAGE, properties })
  })

  it('ends at a time of the clock', () => {
    expect(expiresAtMs({ messageExpiryInterval: 60 }, 1_000)).toBe(61_000)
    expect([expiresAtMs({}, 1_000), expiresAtMs(undefined, 1_000)]).toEqual([undefined, undefined])
  })
})

import { describe, expect, it } from 'vitest'
import type { OutboundMessage } from '../../../../src/core/outbound/outbound-message.js'
import {
  identified,
  messageToSend,
  Obstacles,
  ReplayShare,
  replayWindow,
  StoredTopics,
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
})

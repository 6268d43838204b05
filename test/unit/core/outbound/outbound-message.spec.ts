import { describe, expect, it } from 'vitest'
import {
  beginWait,
  expiryMs,
  messageAt,
  messageLeft,
  type OutboundMessage,
  Publication,
  type PublishTerms,
  weightOf,
  withUserProperties,
} from '../../../../src/core/outbound/outbound-message.js'
import type { WhenBlocked } from '../../../../src/options/options.js'
import { outboundMessage } from '../../../support/waiting-publish.js'

const OPTIONS = { whenBlocked: 'queue', maxDelayMs: 1_000, maxAgeMs: 60_000 } as const
const NOW_MS = 500

function wait(fields: Partial<OutboundMessage> = {}, { whenBlocked = 'queue' }: PublishTerms = {}) {
  const publication = new Publication(outboundMessage(fields))
  beginWait(publication, whenBlocked, OPTIONS, NOW_MS)
  return publication
}

const expiring = (messageExpiryInterval: number) => ({ properties: { messageExpiryInterval } })

describe('a publish', () => {
  it('has not settled, does not wait and was not sent before it is given to a client', () => {
    expect(new Publication(outboundMessage())).toMatchObject({
      isSettled: false,
      isWaiting: false,
      mode: 'drop',
      lateReason: 'expired',
      deadlineMs: Number.POSITIVE_INFINITY,
      messageId: 0,
      isSent: false,
      isRepeated: false,
      isReleased: false,
      isReleaseRepeated: false,
    })
  })

  it('may be sent without anyone waiting for its outcome', () => {
    expect(() => new Publication(outboundMessage()).resolve({ status: 'sent' })).not.toThrow()
  })
})

describe('a publish that starts to wait', () => {
  it.each([
    ['drop', NOW_MS + 1_000, 'backlog'],
    ['queue', NOW_MS + 60_000, 'expired'],
    ['latest', Number.POSITIVE_INFINITY, 'expired'],
    ['wait', Number.POSITIVE_INFINITY, 'expired'],
  ] as const)('%s has its own deadline', (whenBlocked: WhenBlocked, deadlineMs, lateReason) => {
    expect(wait({}, { whenBlocked })).toMatchObject({ enteredMs: NOW_MS, deadlineMs, lateReason })
  })

  it.each([
    ['drop', 0, NOW_MS, 'expired'],
    ['drop', 1, NOW_MS + 1_000, 'backlog'],
    ['drop', 2, NOW_MS + 1_000, 'backlog'],
    ['queue', 5, NOW_MS + 5_000, 'expired'],
    ['queue', 600, NOW_MS + 60_000, 'expired'],
    ['latest', 600, NOW_MS + 600_000, 'expired'],
    ['wait', 600, NOW_MS + 600_000, 'expired'],
  ] as const)('%s with a Message Expiry Interval of %i s has the earlier one', (...row) => {
    const [whenBlocked, seconds, deadlineMs, lateReason] = row
    expect(wait(expiring(seconds), { whenBlocked })).toMatchObject({ deadlineMs, lateReason })
  })

  it('stores the size of the message', () => {
    const fields = { topic: 'abc', payload: Buffer.alloc(100) }
    expect(wait(fields).bytes).toBe(weightOf(outboundMessage(fields)))
  })
})

describe('weightOf', () => {
  it('counts topic, payload and some bytes for the rest', () => {
    expect(weightOf(outboundMessage({ topic: 'abc', payload: Buffer.alloc(100) }))).toBe(111)
  })

  it.each([
    ['a text', { contentType: 'x'.repeat(5_000) }],
    ['a Buffer', { correlationData: Buffer.alloc(5_000) }],
    ['the value of a User Property', { userProperties: { name: 'x'.repeat(5_000) } }],
    ['the name of a User Property', { userProperties: { ['x'.repeat(5_000)]: 'value' } }],
    ['several values of a User Property', { userProperties: { name: Array(50).fill('x'.repeat(100)) } }],
  ])('counts %s in the properties', (_name, properties) => {
    const bytes = weightOf(outboundMessage({ properties }))
    expect(bytes).toBeGreaterThanOrEqual(5_000)
    expect(bytes).toBeLessThan(5_300)
  })

  it('counts numbers and flags', () => {
    const properties = { messageExpiryInterval: 5, payloadFormatIndicator: true }
    const names = Object.keys(properties).join('').length
    expect(weightOf(outboundMessage({ properties })) - weightOf(outboundMessage())).toBe(names + 2 * 8)
  })
})

describe('messageAt', () => {
  const userProperties = { name: 'value' }

  it.each([
    [10, 0, 10],
    [10, 999, 10],
    [10, 1_000, 9],
    [10, 1_999, 9],
    [10, 9_000, 1],
    [10, 9_999, 1],
    [1, 999, 1],
  ])(
    'with a Message Expiry Interval of %i s after a wait of %i ms, %i s are left',
    (given, waitedMs, left) => {
      const waiting = wait({ properties: { messageExpiryInterval: given, userProperties } })
      const written = messageAt(waiting, NOW_MS + waitedMs)
      expect(written.properties).toEqual({ messageExpiryInterval: left, userProperties })
      // What is kept for the next attempt still has all of it.
      expect(waiting.message.properties?.messageExpiryInterval).toBe(given)
    },
  )

  it('never writes 0, which some brokers interpret as "never"', () => {
    expect(messageAt(wait(expiring(3)), NOW_MS + 60_000).properties?.messageExpiryInterval).toBe(1)
  })

  it('does not change a message without one', () => {
    const plain = wait({ properties: { userProperties } })
    expect(messageAt(plain, NOW_MS + 60_000)).toBe(plain.message)
    const bare = wait()
    expect(messageAt(bare, NOW_MS + 60_000)).toBe(bare.message)
  })
})

describe('a message that is resent after an outage', () => {
  const leftAt = (nowMs: number) => {
    const publication = new Publication(
      outboundMessage({ properties: { contentType: 'a', messageExpiryInterval: 60 } }),
    )
    publication.expiresMs = 60_000
    return messageLeft(publication, nowMs).properties
  }

  it('has the rest of its Message Expiry Interval, in started seconds', () => {
    expect([0, 1, 1_000, 59_001].map(leftAt)).toEqual(
      [60, 60, 59, 1].map(messageExpiryInterval => ({ contentType: 'a', messageExpiryInterval })),
    )
  })

  it('is unchanged without one', () => {
    const publication = new Publication(outboundMessage())
    expect(messageLeft(publication, 5_000)).toBe(publication.message)
  })

  it('is not resent after its Message Expiry Interval', () => {
    expect(expiryMs(outboundMessage(expiring(60)), 500)).toBe(60_500)
    expect(expiryMs(outboundMessage(), 500)).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('added User Properties', () => {
  it('join those of the message, and take precedence', () => {
    const own = outboundMessage({ properties: { contentType: 'a', userProperties: { one: '1', two: '2' } } })
    expect(withUserProperties(own, { two: 'new', three: '3' })).toEqual({
      ...own,
      properties: { contentType: 'a', userProperties: { one: '1', two: 'new', three: '3' } },
    })
    expect(withUserProperties(outboundMessage(), { one: '1' }).properties).toEqual({
      userProperties: { one: '1' },
    })
  })
})

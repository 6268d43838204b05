import { describe, expect, it } from 'vitest'
import { brokerLimits } from '../../../../src/core/protocol/packets.js'
import {
  batches,
  isSameOptions,
  mergeOptions,
  nextBatch,
  refusal,
  SubscriptionIdentifiers,
  type SubscriptionOptions,
  subscribePacket,
  uncertainShare,
  unsubscribedError,
} from '../../../../src/core/subscriptions/subscription-rules.js'
import { parseTopicFilter } from '../../../../src/core/topic/topic-filter.js'

const options = (qos: 0 | 1 | 2, noLocal: boolean, retainHandling: 0 | 1 | 2): SubscriptionOptions => ({
  qos,
  noLocal,
  retainHandling,
})
const entryOf = (text: string) => ({ filter: parseTopicFilter(text) })

describe('the options of several handlers of one filter', () => {
  it.each([
    [options(0, true, 0), options(2, true, 1), options(2, true, 0)],
    [options(1, true, 2), options(0, false, 1), options(1, false, 1)],
    [options(1, false, 2), options(1, true, 2), options(1, false, 2)],
    [options(2, false, 1), options(1, false, 0), options(2, false, 0)],
  ])('%j and %j become %j, in any order', (a, b, merged) => {
    expect(mergeOptions(a, b)).toEqual(merged)
    expect(mergeOptions(b, a)).toEqual(merged)
  })

  it('are the same only if all of them are', () => {
    const base = options(1, true, 2)
    expect(isSameOptions(base, { ...base })).toBe(true)
    for (const other of [options(2, true, 2), options(1, false, 2), options(1, true, 1)])
      expect(isSameOptions(base, other)).toBe(false)
  })
})

describe('the errors of a subscription', () => {
  it('name the filter, the reason and the Reason Code if there is one', () => {
    expect(refusal('a/#', 'not authorized', 0x87)).toMatchObject({
      code: 'SUBSCRIBE_REFUSED',
      reasonCode: 0x87,
      message:
        'the broker refused the subscription "a/#": not authorized. Check the access rules of the broker for this user',
    })
    expect(refusal('a', 'x').reasonCode).toBeUndefined()
    expect(unsubscribedError('a')).toMatchObject({
      code: 'SUBSCRIBE_REFUSED',
      message: 'the subscription "a" was removed',
    })
  })

  it('for a Shared Subscription on MQTT 3.1.1 say how to check it', () => {
    expect(uncertainShare(parseTopicFilter('$share/g/a/+/b'))).toMatch(
      /^MQTT 3\.1\.1 .* grants "\$share\/g\/a\/\+\/b" .* a topic of "a\/\+\/b" .* the group "g" receives it/,
    )
  })
})

describe('Subscription Identifiers', () => {
  it('are the hash of the filter, so that another process assigns the same ones', () => {
    const identifiers = new SubscriptionIdentifiers()
    expect(['a', 'a/+', '$share/g/a', 'ü'].map(text => identifiers.assign(parseTopicFilter(text)))).toEqual(
      ['a', 'a/+', '$share/g/a', 'ü'].map(text =>
        new SubscriptionIdentifiers().assign(parseTopicFilter(text)),
      ),
    )
    // FNV-1a of "a" is 0xE40C292C.
    expect(new SubscriptionIdentifiers().assign(parseTopicFilter('a'))).toBe((0xe40c292c % 268_435_455) + 1)
  })

  it('are the next free one if the hash is taken', () => {
    const identifiers = new SubscriptionIdentifiers()
    const filter = parseTopicFilter('a')
    const first = identifiers.assign(filter)
    expect([identifiers.assign(filter), identifiers.assign(filter)]).toEqual([first + 1, first + 2])
    identifiers.release(first + 1)
    expect(identifiers.assign(filter)).toBe(first + 1)
  })

  it('name the subscriptions of a message, if they match its topic', () => {
    const identifiers = new SubscriptionIdentifiers()
    const [exact = 0, wild = 0, shared = 0] = ['a/b', 'a/+', '$share/g/a/#'].map(text =>
      identifiers.assign(parseTopicFilter(text)),
    )
    expect(identifiers.identify('a/b', exact)).toEqual(['a/b'])
    expect(identifiers.identify('a/x', wild)).toEqual(['a/+'])
    expect(identifiers.identify('a/b', [exact, wild, shared])).toEqual(['a/b', 'a/+', '$share/g/a/#'])
    expect(identifiers.identify('a/x', [exact, wild])).toEqual(['a/+'])
    expect(identifiers.identify('c', exact)).toBeUndefined()
    expect(identifiers.identify('c', [exact, wild])).toBeUndefined()
    expect(identifiers.identify('a/b', [])).toBeUndefined()
  })

  it('that are unknown or malformed name none', () => {
    const identifiers = new SubscriptionIdentifiers()
    const known = identifiers.assign(parseTopicFilter('a'))
    expect(identifiers.identify('a', known + 1)).toBeUndefined()
    expect(identifiers.identify('a', [known + 1, known])).toEqual(['a'])
    // Seam: the parser of mqtt returns `false` for a malformed identifier.
    expect(identifiers.identify('a', false as unknown as number)).toBeUndefined()
    identifiers.release(known)
    expect(identifiers.identify('a', known)).toBeUndefined()
  })
})

describe('the filters of one UNSUBSCRIBE', () => {
  it('are at most 50', () => {
    const all = Array.from({ length: 101 }, (_, index) => `f/${index}`)
    expect(batches(all, Number.POSITIVE_INFINITY).map(({ length }) => length)).toEqual([50, 50, 1])
    expect(batches(all, Number.POSITIVE_INFINITY).flat()).toEqual(all)
    expect(batches([], 100)).toEqual([])
  })

  it('take at most Maximum Packet Size, with 14 bytes per packet and 3 per filter', () => {
    expect(batches(['aaa', 'bbb'], 26)).toEqual([['aaa', 'bbb']])
    expect(batches(['aaa', 'bbb'], 25)).toEqual([['aaa'], ['bbb']])
    expect(batches(['üü', 'b'], 25)).toEqual([['üü', 'b']])
    expect(batches(['üü', 'b'], 24)).toEqual([['üü'], ['b']])
    expect(batches(['aaaaaaaaaa', 'b', 'c'], 20)).toEqual([['aaaaaaaaaa'], ['b'], ['c']])
  })
})

describe('the filters of one SUBSCRIBE', () => {
  const limits = (given: Parameters<typeof brokerLimits>[1] = {}) => brokerLimits(5, given)
  const NO_IDENTIFIERS = { subscriptionIdentifiersAvailable: false }
  const textsOf = (all: readonly { filter: { subscription: string } }[]) =>
    all.map(({ filter }) => filter.subscription)

  it('are one with a Subscription Identifier, and at most 50 without', () => {
    const all = Array.from({ length: 51 }, (_, index) => entryOf(`f/${index}`))
    expect(nextBatch(all, limits()).taken).toEqual(all.slice(0, 1))
    expect(nextBatch(all, limits(NO_IDENTIFIERS)).taken).toEqual(all.slice(0, 50))
    expect(nextBatch([], limits())).toEqual({ taken: [], unserved: new Map() })
  })

  it('take at most Maximum Packet Size together', () => {
    const all = [entryOf('aaa'), entryOf('bbb')]
    const taken = (maximumPacketSize: number) =>
      nextBatch(all, limits({ ...NO_IDENTIFIERS, maximumPacketSize })).taken
    expect(textsOf(taken(26))).toEqual(['aaa', 'bbb'])
    expect(textsOf(taken(25))).toEqual(['aaa'])
  })

  it.each([
    [
      'aaaa',
      { maximumPacketSize: 20 },
      0x95,
      'its SUBSCRIBE packet of 21 bytes is larger than the Maximum Packet Size of the broker, 20 (0x95)',
    ],
    [
      '$share/g/a',
      { sharedSubscriptionAvailable: false },
      0x9e,
      'the broker does not support Shared Subscriptions (0x9E)',
    ],
    [
      'a/+/b',
      { wildcardSubscriptionAvailable: false },
      0xa2,
      'the broker does not support wildcard subscriptions (0xA2)',
    ],
    [
      'a/#',
      { wildcardSubscriptionAvailable: false },
      0xa2,
      'the broker does not support wildcard subscriptions (0xA2)',
    ],
  ])('do not include "%s" if CONNACK has %j', (text, properties, reasonCode, why) => {
    const [wrong, fine] = [entryOf(text), entryOf('b')]
    const { taken, unserved } = nextBatch([wrong, fine], limits(properties))
    expect(taken).toEqual([fine])
    expect([...unserved.keys()]).toEqual([wrong])
    expect(unserved.get(wrong)).toMatchObject({
      code: 'SUBSCRIBE_REFUSED',
      reasonCode,
      message: `cannot subscribe to "${text}": ${why}`,
    })
  })

  it('include a filter of exactly Maximum Packet Size, and every kind that the broker supports', () => {
    expect(textsOf(nextBatch([entryOf('aaa')], limits({ maximumPacketSize: 20 })).taken)).toEqual(['aaa'])
    for (const text of ['$share/g/a', 'a/+', '#'])
      expect(textsOf(nextBatch([entryOf(text)], limits()).taken)).toEqual([text])
    const noWildcards = limits({ wildcardSubscriptionAvailable: false, sharedSubscriptionAvailable: true })
    expect(textsOf(nextBatch([entryOf('$share/g/a')], noWildcards).taken)).toEqual(['$share/g/a'])
  })
})

describe('a SUBSCRIBE packet', () => {
  it('has each filter with its options, and Retain As Published unless a cache needs the flag of 3.1.1', () => {
    const entries = [
      { ...entryOf('a'), options: options(2, true, 1) },
      { ...entryOf('b'), options: { ...options(0, false, 0), retainAsPublished: false } as const },
    ]
    expect(subscribePacket(7, entries, undefined)).toEqual({
      cmd: 'subscribe',
      messageId: 7,
      subscriptions: [
        { topic: 'a', qos: 2, nl: true, rap: true, rh: 1 },
        { topic: 'b', qos: 0, nl: false, rap: false, rh: 0 },
      ],
    })
  })

  it('has its Subscription Identifier, and no No Local in a Shared Subscription [MQTT-3.8.3-4]', () => {
    const entries = [{ ...entryOf('$share/g/a'), options: options(1, true, 0) }]
    expect(subscribePacket(7, entries, 9)).toEqual({
      cmd: 'subscribe',
      messageId: 7,
      subscriptions: [{ topic: '$share/g/a', qos: 1, nl: false, rap: true, rh: 0 }],
      properties: { subscriptionIdentifier: 9 },
    })
  })
})

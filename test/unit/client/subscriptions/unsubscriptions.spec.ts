import { describe, expect, it } from 'vitest'
import type { Packet } from '../../../../src/client/connection/link.js'
import { Hook, type Notice } from '../../../../src/client/events.js'
import { Unsubscriptions } from '../../../../src/client/subscriptions/subscription-entries.js'
import { brokerLimits, PacketIds } from '../../../../src/core/protocol/packets.js'
import { idleLink } from '../../../support/idle-link.js'

const nothing = (): void => {}

function newLink() {
  const sent: { readonly messageId: number; readonly filters: readonly string[] }[] = []
  const link = idleLink({
    send: (packet: Packet) => {
      if (packet.cmd !== 'unsubscribe') throw new Error(`${packet.cmd} was not expected`)
      sent.push({ messageId: packet.messageId ?? 0, filters: packet.unsubscriptions })
    },
  })
  return { link, sent }
}

const limits = brokerLimits(5, {})

const unsuback = (messageId: number, ...granted: number[]) =>
  ({ cmd: 'unsuback', messageId, granted }) as const
const rules = { ackTimeoutMs: 30_000, onOverdue: nothing }

function newUnsubscriptions() {
  const packetIds = new PacketIds(0)
  const unsubscriptions = new Unsubscriptions(packetIds, rules, new Hook<Notice>(nothing))
  const { link, sent } = newLink()
  unsubscriptions.connected(link, limits)
  return { packetIds, unsubscriptions, link, sent }
}

describe('Unsubscriptions', () => {
  it('are sent together, once', () => {
    const { unsubscriptions, sent } = newUnsubscriptions()
    for (const filter of ['a', 'b', 'a']) void unsubscriptions.add(filter)
    unsubscriptions.flush()
    unsubscriptions.flush()
    expect(sent.map(({ filters }) => filters)).toEqual([['a', 'b']])
  })

  it('are not sent for filters that are subscribed again', () => {
    const { unsubscriptions, sent } = newUnsubscriptions()
    void unsubscriptions.add('a')
    void unsubscriptions.add('b')
    unsubscriptions.remove('a')
    unsubscriptions.flush()
    expect(sent.map(({ filters }) => filters)).toEqual([['b']])
  })

  it('are split if the broker only accepts small packets', () => {
    const { unsubscriptions, link, sent } = newUnsubscriptions()
    const filters = ['first', 'other', 'third'].map(name => name.repeat(10))
    for (const filter of filters) void unsubscriptions.add(filter)
    unsubscriptions.connected(link, brokerLimits(5, { maximumPacketSize: 100 }))
    unsubscriptions.flush()
    expect(sent.length).toBeGreaterThan(1)
    expect(sent.flatMap(packet => packet.filters)).toEqual(filters)
  })

  it('are confirmed one by one, and free their Packet Identifiers', async () => {
    const { unsubscriptions, sent, packetIds } = newUnsubscriptions()
    const events: string[] = []
    void unsubscriptions.add('a')
    unsubscriptions.flush()
    void unsubscriptions.add('b')
    unsubscriptions.flush()
    void unsubscriptions.whenSettled().then(() => events.push('settled'))
    const [first, second] = sent.map(({ messageId }) => messageId)
    if (first === undefined || second === undefined) throw new Error('two packets were expected')
    unsubscriptions.responded(unsuback(first))
    unsubscriptions.responded(unsuback(first))
    unsubscriptions.responded(unsuback(999))
    await Promise.resolve()
    expect(events).toEqual([])
    unsubscriptions.responded(unsuback(second))
    await Promise.resolve()
    expect(events).toEqual(['settled'])
    for (let count = 0; count < 65_535; count += 1) expect(packetIds.allocate()).toBeDefined()
    expect(packetIds.allocate()).toBeUndefined()
  })

  it('are not affected by unexpected responses', async () => {
    await newUnsubscriptions().unsubscriptions.whenSettled()
  })

  it('are sent again on the next connection if the broker may still have the filters', async () => {
    const { unsubscriptions, link, sent } = newUnsubscriptions()
    void unsubscriptions.add('a')
    unsubscriptions.flush()
    const answered = unsubscriptions.whenSettled()
    unsubscriptions.lost(true)
    await answered
    unsubscriptions.connected(link, limits)
    unsubscriptions.flush()
    expect(sent.map(({ filters }) => filters)).toEqual([['a'], ['a']])
  })

  it('end with the connection in a clean session', () => {
    const { unsubscriptions, link, sent } = newUnsubscriptions()
    void unsubscriptions.add('a')
    unsubscriptions.flush()
    unsubscriptions.lost(false)
    unsubscriptions.connected(link, limits)
    unsubscriptions.flush()
    expect(sent).toHaveLength(1)
  })

  it('end when the broker has lost the session', () => {
    const { unsubscriptions, sent } = newUnsubscriptions()
    void unsubscriptions.add('a')
    unsubscriptions.clear()
    unsubscriptions.flush()
    expect(sent).toEqual([])
  })

  it('wait for a free Packet Identifier', () => {
    const { unsubscriptions, sent, packetIds } = newUnsubscriptions()
    const [taken] = Array.from({ length: 65_535 }, () => packetIds.allocate())
    void unsubscriptions.add('a')
    unsubscriptions.flush()
    expect(sent).toEqual([])
    packetIds.release(taken ?? 0)
    unsubscriptions.flush()
    expect(sent.map(({ filters }) => filters)).toEqual([['a']])
  })
})

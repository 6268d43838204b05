import { describe, expect, it } from 'vitest'
import { brokerLimits, type ConnackProperties } from '../../../../src/transport/connection/broker-limits.js'
import {
  assertWithinLimits,
  dropReason,
  type MeasuredPublish,
} from '../../../../src/transport/outbound/outbound-gate.js'
import { errorOf } from '../../errors-of.js'

const FREE = { isClosing: false, isConnected: true, isCongested: false, inFlight: 0, maxInFlight: 10 }
const FULL = { inFlight: 10, maxInFlight: 10 }
const QOS = [0, 1, 2] as const

describe('dropReason', () => {
  it.each(QOS)('lets QoS %i go when nothing is in the way', qos => {
    expect(dropReason(FREE, qos)).toBeUndefined()
  })

  it.each(
    QOS.flatMap(qos => [
      { qos, situation: { isClosing: true }, reason: 'closed' },
      { qos, situation: { isConnected: false }, reason: 'offline' },
      { qos, situation: { isCongested: true }, reason: 'backlog' },
    ]),
  )('drops QoS $qos as $reason for $situation', ({ qos, situation, reason }) => {
    expect(dropReason({ ...FREE, ...situation }, qos)).toBe(reason)
  })

  it.each([
    [0, 9, undefined],
    [0, 10, undefined],
    [0, 11, undefined],
    [1, 9, undefined],
    [1, 10, 'in-flight-full'],
    [1, 11, 'in-flight-full'],
    [2, 9, undefined],
    [2, 10, 'in-flight-full'],
    [2, 11, 'in-flight-full'],
  ] as const)('says of QoS %i with %i of 10 in flight: %s', (qos, inFlight, reason) => {
    expect(dropReason({ ...FREE, inFlight }, qos)).toBe(reason)
  })

  it('names the first of several reasons: closed, offline, backlog, in-flight-full', () => {
    const all = { isClosing: true, isConnected: false, isCongested: true, ...FULL }
    expect(dropReason(all, 1)).toBe('closed')
    expect(dropReason({ ...all, isClosing: false }, 1)).toBe('offline')
    expect(dropReason({ ...all, isClosing: false, isConnected: true }, 1)).toBe('backlog')
    expect(dropReason({ ...FREE, ...FULL }, 1)).toBe('in-flight-full')
  })
})

describe('assertWithinLimits', () => {
  const publish: MeasuredPublish = { topic: 'a/b', qos: 2, retain: true, bytes: 1_000_000_000 }
  const check = (changes: Partial<MeasuredPublish>, limits: ConnackProperties) => () =>
    assertWithinLimits({ ...publish, bytes: 10, ...changes }, brokerLimits(5, limits))

  it('lets everything go to a broker without limits', () => {
    expect(() => assertWithinLimits(publish, brokerLimits(5))).not.toThrow()
    expect(() => assertWithinLimits(publish, brokerLimits(4))).not.toThrow()
  })

  it.each([
    [0, 0, true],
    [1, 0, false],
    [2, 0, false],
    [0, 1, true],
    [1, 1, true],
    [2, 1, false],
    [2, 2, true],
  ] as const)('says whether QoS %i goes with Maximum QoS %i: %j', (qos, maximumQoS, goes) => {
    const attempt = check({ qos }, { maximumQoS })
    if (goes) {
      expect(attempt).not.toThrow()
    } else {
      const error = errorOf(attempt)
      expect(error.code).toBe('QOS_NOT_SUPPORTED')
      expect(error.message).toBe(`QoS ${qos} for "a/b": the broker takes at most QoS ${maximumQoS}`)
    }
  })

  it('refuses retain where the broker keeps nothing, and only then', () => {
    const error = errorOf(check({}, { retainAvailable: false }))
    expect(error.code).toBe('RETAIN_NOT_SUPPORTED')
    expect(error.message).toBe('retain for "a/b": the broker keeps no retained messages')
    expect(check({ retain: false }, { retainAvailable: false })).not.toThrow()
    expect(check({ retain: true }, { retainAvailable: true })).not.toThrow()
  })

  it('refuses one byte more than Maximum Packet Size, and not one less', () => {
    expect(check({ bytes: 100 }, { maximumPacketSize: 100 })).not.toThrow()
    const error = errorOf(check({ bytes: 101 }, { maximumPacketSize: 100 }))
    expect(error.code).toBe('PACKET_TOO_LARGE')
    expect(error.message).toBe('the packet for "a/b" has 101 bytes; the broker takes at most 100')
  })
})

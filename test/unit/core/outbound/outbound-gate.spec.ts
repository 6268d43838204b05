import { describe, expect, it } from 'vitest'
import { assertWithinLimits, type MeasuredPublish } from '../../../../src/core/outbound/outbound-message.js'
import { brokerLimits, type ConnackProperties } from '../../../../src/core/protocol/packets.js'
import { errorOf } from '../../errors-of.js'

describe('assertWithinLimits', () => {
  const publish: MeasuredPublish = { topic: 'a/b', qos: 2, retain: true, bytes: 1_000_000_000 }
  const check = (changes: Partial<MeasuredPublish>, limits: ConnackProperties) => () =>
    assertWithinLimits({ ...publish, bytes: 10, ...changes }, brokerLimits(5, limits))

  it('accepts everything for a broker without limits', () => {
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
  ] as const)('decides whether QoS %i is allowed with Maximum QoS %i: %j', (qos, maximumQoS, goes) => {
    const attempt = check({ qos }, { maximumQoS })
    if (goes) {
      expect(attempt).not.toThrow()
    } else {
      const error = errorOf(attempt)
      expect(error.code).toBe('QOS_NOT_SUPPORTED')
      expect(error.message).toBe(`QoS ${qos} for "a/b": the broker supports at most QoS ${maximumQoS}`)
    }
  })

  it('refuses retain only if the broker does not support it', () => {
    const error = errorOf(check({}, { retainAvailable: false }))
    expect(error.code).toBe('RETAIN_NOT_SUPPORTED')
    expect(error.message).toBe('retain for "a/b": the broker does not support retained messages')
    expect(check({ retain: false }, { retainAvailable: false })).not.toThrow()
    expect(check({ retain: true }, { retainAvailable: true })).not.toThrow()
  })

  it('refuses one byte more than Maximum Packet Size, not one less', () => {
    expect(check({ bytes: 100 }, { maximumPacketSize: 100 })).not.toThrow()
    const error = errorOf(check({ bytes: 101 }, { maximumPacketSize: 100 }))
    expect(error.code).toBe('PACKET_TOO_LARGE')
    expect(error.message).toBe('the packet for "a/b" has 101 bytes; the broker accepts at most 100')
  })
})

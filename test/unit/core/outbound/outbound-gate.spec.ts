import { describe, expect, it } from 'vitest'
import { MqttError } from '../../../../src/core/errors.js'
import {
  assertTaken,
  assertWithinLimits,
  excessOf,
  isUnlimited,
  type MeasuredPublish,
  refusalOf,
} from '../../../../src/core/outbound/outbound-message.js'
import { brokerLimits, type ConnackProperties } from '../../../../src/core/protocol/packets.js'
import { outboundMessage } from '../../../support/waiting-publish.js'
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

describe('the limits of a connection', () => {
  const link = (properties: ConnackProperties, sizeOf = () => 10) => ({
    limits: brokerLimits(5, properties),
    sizeOf,
  })
  const neverMeasured = () => {
    throw new Error('the packet was measured')
  }

  it.each([
    [{}, true],
    [{ maximumQoS: 1 }, false],
    [{ retainAvailable: false }, false],
    [{ maximumPacketSize: 1_000 }, false],
  ] as const)('%j are none: %j', (properties, isNone) => {
    expect(isUnlimited(brokerLimits(5, properties))).toBe(isNone)
  })

  it('measure a packet only if the broker limits its size', () => {
    const message = outboundMessage({ qos: 1, retain: true })
    expect(() => assertTaken(message, link({}, neverMeasured))).not.toThrow()
    expect(() => assertTaken(message, link({ maximumPacketSize: 10 }))).not.toThrow()
    expect(errorOf(() => assertTaken(message, link({ maximumPacketSize: 9 }))).code).toBe('PACKET_TOO_LARGE')
  })

  it.each([
    ['the size of QoS 0', {}, { maximumPacketSize: 9 }, 'PACKET_TOO_LARGE'],
    ['the QoS', { qos: 1 }, { maximumQoS: 0 }, 'QOS_NOT_SUPPORTED'],
    ['retain at QoS 0', { retain: true }, { retainAvailable: false }, 'RETAIN_NOT_SUPPORTED'],
  ] as const)(
    'are the reason for which a message that waited is refused: %s',
    (_what, fields, limits, code) => {
      const excess = excessOf(outboundMessage(fields), link(limits))
      expect(excess).toMatchObject({ code })
      expect(refusalOf(excess)).toEqual({
        status: 'refused',
        reasonCode: excess?.reasonCode,
        reasonString: excess?.message,
      })
    },
  )

  it('are no reason for a message within them', () => {
    const message = outboundMessage({ qos: 0, retain: false })
    expect(excessOf(message, link({ maximumQoS: 0, retainAvailable: false }, neverMeasured))).toBeUndefined()
  })

  it('leave an unexpected error to the caller', () => {
    expect(() => excessOf(outboundMessage(), link({ maximumPacketSize: 9 }, neverMeasured))).toThrow(
      'measured',
    )
  })

  it('have no Reason Code for a packet that cannot be encoded, which is an unspecified error', () => {
    expect(refusalOf(new Error('no packet'))).toEqual({
      status: 'refused',
      reasonCode: 0x80,
      reasonString: 'no packet',
    })
    expect(refusalOf(new MqttError('PACKET_TOO_LARGE', 'too large'))).toMatchObject({ reasonCode: 0x80 })
  })
})

import { describe, expect, it } from 'vitest'
import { brokerLimits } from '../../../../src/core/protocol/packets.js'

const UNLIMITED = {
  receiveMaximum: 65_535,
  maximumQoS: 2,
  retainAvailable: true,
  maximumPacketSize: Number.POSITIVE_INFINITY,
  wildcardSubscriptionAvailable: true,
  subscriptionIdentifiersAvailable: true,
  sharedSubscriptionAvailable: true,
  topicAliasMaximum: 0,
}

describe('brokerLimits', () => {
  it('are the defaults of MQTT 5, 3.2.2.3 for properties that CONNACK omits', () => {
    expect(brokerLimits(5)).toEqual(UNLIMITED)
    expect(brokerLimits(5, {})).toEqual(UNLIMITED)
  })

  it('have no Subscription Identifiers and no limits on MQTT 3.1.1', () => {
    expect(brokerLimits(4)).toEqual({ ...UNLIMITED, subscriptionIdentifiersAvailable: false })
    expect(brokerLimits(4, { subscriptionIdentifiersAvailable: true }).subscriptionIdentifiersAvailable).toBe(
      false,
    )
  })

  it.each([
    [{ receiveMaximum: 1 }],
    [{ receiveMaximum: 20 }],
    [{ maximumQoS: 0 }],
    [{ maximumQoS: 1 }],
    [{ retainAvailable: false }],
    [{ retainAvailable: true }],
    [{ maximumPacketSize: 1_024 }],
    [{ wildcardSubscriptionAvailable: false }],
    [{ subscriptionIdentifiersAvailable: false }],
    [{ sharedSubscriptionAvailable: false }],
    [{ topicAliasMaximum: 10 }],
  ])('are the properties of CONNACK: %j', properties => {
    expect(brokerLimits(5, properties)).toEqual({ ...UNLIMITED, ...properties })
  })

  it('treat an unknown Maximum QoS as 2', () => {
    expect(brokerLimits(5, { maximumQoS: 7 }).maximumQoS).toBe(2)
  })
})

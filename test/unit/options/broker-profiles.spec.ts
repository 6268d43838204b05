import { describe, expect, it } from 'vitest'
import { limited } from '../../../src/client/connection/link.js'
import { type BrokerLimits, brokerLimits } from '../../../src/core/protocol/packets.js'
import { brokerProfiles } from '../../../src/options/broker-profiles.js'
import { resolveOptions } from '../../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../../src/options/options.js'

const URL = 'mqtt://localhost'
const resolved = (options: Partial<MqttModuleOptions>) => resolveOptions({ url: URL, ...options })
const SESSION = { broker: URL, protocolVersion: 5, sessionPresent: false } as const
const limitsOf = (options: Partial<MqttModuleOptions>) => (announced: BrokerLimits) =>
  limited({ ...SESSION, limits: announced }, resolved(options).brokerLimits).limits
const ANNOUNCED = brokerLimits(5, {})

describe('the option brokerLimits', () => {
  it('changes nothing if it is not set', () => {
    expect(limitsOf({})(ANNOUNCED)).toEqual(ANNOUNCED)
  })

  it('applies the stricter one of each pair of limits', () => {
    const within = limitsOf({
      brokerLimits: { receiveMaximum: 100, maximumQoS: 1, maximumPacketSize: 1_000, topicAliasMaximum: 5 },
    })
    const announced = { receiveMaximum: 20, maximumQoS: 2, maximumPacketSize: 2_000, topicAliasMaximum: 10 }
    expect(within(brokerLimits(5, announced))).toMatchObject({
      receiveMaximum: 20,
      maximumQoS: 1,
      maximumPacketSize: 1_000,
      topicAliasMaximum: 5,
    })
    expect(within(brokerLimits(5, { maximumQoS: 0 })).maximumQoS).toBe(0)
  })

  it.each([
    'retainAvailable',
    'wildcardSubscriptionAvailable',
    'subscriptionIdentifiersAvailable',
    'sharedSubscriptionAvailable',
  ] as const)('excludes %s, and cannot add it', name => {
    expect(limitsOf({ brokerLimits: { [name]: false } })(ANNOUNCED)[name]).toBe(false)
    const within = limitsOf({ brokerLimits: { [name]: true } })
    expect(within(brokerLimits(5, { [name]: false }))[name]).toBe(false)
    expect(within(ANNOUNCED)[name]).toBe(true)
  })

  it.each<[string, Partial<MqttModuleOptions>, RegExp]>([
    ['an unknown limit', { brokerLimits: { maximumQos: 1 } as object }, /maximumQos/],
    ['an invalid value', { brokerLimits: { receiveMaximum: 0 } }, /receiveMaximum.*1 to 65,?535/],
    [
      'a will of QoS 2',
      { ...brokerProfiles.awsIotCore, will: { topic: 'a', payload: 'x', qos: 2 } },
      /"will" is published at QoS 2, but "brokerLimits" excludes it/,
    ],
    [
      'a retained will',
      { ...brokerProfiles.azureEventGrid, will: { topic: 'a', payload: 'x', retain: true } },
      /"will" is a retained message, but "brokerLimits" excludes it/,
    ],
    [
      'presence without retained messages',
      { ...brokerProfiles.azureEventGrid, presence: { topic: 'a', online: 1, offline: 0 } },
      /"presence" is a retained message, but "brokerLimits" excludes it/,
    ],
    [
      'presence without QoS 1',
      { brokerLimits: { maximumQoS: 0 }, presence: { topic: 'a', online: 1, offline: 0 } },
      /"presence" is published at QoS 1/,
    ],
    [
      'a shared group',
      { ...brokerProfiles.rabbitMq, sharedGroup: 'billing' },
      /"sharedGroup" needs Shared Subscriptions, but "brokerLimits" excludes it/,
    ],
  ])('rejects %s at the start', (_name, options, message) => {
    expect(() => resolved(options)).toThrow(message)
  })

  it('accepts what it does not exclude', () => {
    const presence = { topic: 'a', online: 1, offline: 0 }
    expect(() => resolved({ ...brokerProfiles.awsIotCore, presence, sharedGroup: 'billing' })).not.toThrow()
  })
})

describe('the profiles of brokers', () => {
  it.each(Object.entries(brokerProfiles))('%s is valid', (_name, profile) => {
    expect(() => resolved(profile)).not.toThrow()
  })

  it('have the documented limits', () => {
    const limits = Object.entries(brokerProfiles).map(([name, profile]) => [
      name,
      limitsOf(profile)(ANNOUNCED),
    ])
    expect(Object.fromEntries(limits)).toEqual({
      awsIotCore: { ...ANNOUNCED, maximumQoS: 1, receiveMaximum: 100, maximumPacketSize: 131_072 },
      azureEventGrid: {
        ...ANNOUNCED,
        maximumQoS: 1,
        retainAvailable: false,
        sharedSubscriptionAvailable: false,
        subscriptionIdentifiersAvailable: false,
        maximumPacketSize: 524_288,
      },
      emqx: { ...ANNOUNCED, maximumPacketSize: 1_048_576 },
      rabbitMq: { ...ANNOUNCED, maximumQoS: 1, sharedSubscriptionAvailable: false },
      nats: {
        ...ANNOUNCED,
        maximumQoS: 1,
        sharedSubscriptionAvailable: false,
        maximumPacketSize: 1_048_576,
      },
    })
  })

  it('choose the version and Keep Alive', () => {
    const { awsIotCore, azureEventGrid, nats } = brokerProfiles
    // AWS IoT Core allows 30 to 1,200 s, and Azure Event Grid up to 1,160 s.
    expect([awsIotCore, azureEventGrid]).toMatchObject([
      { protocolVersion: 5, keepalive: 60 },
      { protocolVersion: 5, keepalive: 60 },
    ])
    expect(nats.protocolVersion).toBe(4)
  })
})

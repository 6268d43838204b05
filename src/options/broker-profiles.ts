import * as v from 'valibot'
import type { MqttModuleOptions } from './options.js'
import type { KnownLimits } from './pass-through.js'
import { integer, invalidOption, MAX_UINT16, oneOf, parseOptions, strictObject } from './schema.js'

/** Options for a known broker: spread them into the options of a connection. */
export type BrokerProfile = Pick<
  MqttModuleOptions,
  'protocolVersion' | 'keepalive' | 'brokerLimits' | 'outbound'
>

const KIB = 1_024
const MIB = 1_048_576

/**
 * Limits of brokers that do not announce all of them, from the documentation of their vendors; see `docs/brokers.md`. With
 * them, the client rejects packets for which the broker would close the connection.
 */
export const brokerProfiles = {
  /** No QoS 2, 100 publishes in flight, 128 KiB. */
  awsIotCore: {
    protocolVersion: 5,
    keepalive: 60,
    brokerLimits: { maximumQoS: 1, receiveMaximum: 100, maximumPacketSize: 128 * KIB },
  },
  /** No QoS 2, no retained messages, no Shared Subscriptions, 512 KiB. */
  azureEventGrid: {
    protocolVersion: 5,
    keepalive: 60,
    brokerLimits: {
      maximumQoS: 1,
      retainAvailable: false,
      sharedSubscriptionAvailable: false,
      subscriptionIdentifiersAvailable: false,
      maximumPacketSize: 512 * KIB,
    },
  },
  /** 1 MiB, unless `mqtt.max_packet_size` is set. The other limits are announced on MQTT 5. */
  emqx: { brokerLimits: { maximumPacketSize: MIB } },
  /** No QoS 2 and no Shared Subscriptions. */
  rabbitMq: { brokerLimits: { maximumQoS: 1, sharedSubscriptionAvailable: false } },
  /** MQTT 3.1.1, no QoS 2 (before 2.10), no Shared Subscriptions, 1 MiB unless `max_payload` is set. */
  nats: {
    protocolVersion: 4,
    brokerLimits: { maximumQoS: 1, sharedSubscriptionAvailable: false, maximumPacketSize: MIB },
  },
} as const satisfies Readonly<Record<string, BrokerProfile>>

const flag = v.optional(v.boolean('true or false'))

const schema = strictObject({
  brokerLimits: v.optional(
    strictObject({
      receiveMaximum: v.optional(integer(1, MAX_UINT16)),
      maximumQoS: v.optional(oneOf([0, 1, 2])),
      retainAvailable: flag,
      maximumPacketSize: v.optional(integer(128, Number.MAX_SAFE_INTEGER)),
      wildcardSubscriptionAvailable: flag,
      subscriptionIdentifiersAvailable: flag,
      sharedSubscriptionAvailable: flag,
      topicAliasMaximum: v.optional(integer(0, MAX_UINT16)),
    }),
  ),
})

/** @throws MqttError `INVALID_OPTION`, also for other options that the broker would refuse */
export function resolveBrokerLimits(owner: string, options: MqttModuleOptions): KnownLimits {
  if (options.brokerLimits === undefined) return {}
  const { brokerLimits } = options
  parseOptions(owner, schema, { brokerLimits })
  const { maximumQoS = 2, retainAvailable = true, sharedSubscriptionAvailable = true } = brokerLimits
  const wrong = (problem: string) => invalidOption(owner, `${problem}, but "brokerLimits" excludes it`)
  const will = options.presence === undefined ? options.will : PRESENCE_WILL
  const name = options.presence === undefined ? 'will' : 'presence'
  if ((will?.qos ?? 0) > maximumQoS) throw wrong(`"${name}" is published at QoS ${will?.qos}`)
  if (will?.retain === true && !retainAvailable) throw wrong(`"${name}" is a retained message`)
  if (options.sharedGroup !== undefined && !sharedSubscriptionAvailable)
    throw wrong('"sharedGroup" needs Shared Subscriptions')
  return { brokerLimits }
}

const PRESENCE_WILL = { qos: 1, retain: true } as const

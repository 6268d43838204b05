/** What the broker allows on this connection, from CONNACK (MQTT 5, 3.2.2.3); MQTT 3.1.1 brokers state no limits. */
export interface BrokerLimits {
  readonly receiveMaximum: number
  readonly maximumQoS: 0 | 1 | 2
  readonly retainAvailable: boolean
  /** Bytes of a whole packet; Infinity where the broker states none. */
  readonly maximumPacketSize: number
  readonly wildcardSubscriptionAvailable: boolean
  readonly subscriptionIdentifiersAvailable: boolean
  readonly sharedSubscriptionAvailable: boolean
  /** Topic Aliases that the broker takes (MQTT 5, 3.2.2.3.8). */
  readonly topicAliasMaximum: number
}

export interface ConnackProperties {
  readonly receiveMaximum?: number
  readonly maximumQoS?: number
  readonly retainAvailable?: boolean
  readonly maximumPacketSize?: number
  readonly wildcardSubscriptionAvailable?: boolean
  readonly subscriptionIdentifiersAvailable?: boolean
  readonly sharedSubscriptionAvailable?: boolean
  readonly topicAliasMaximum?: number
}

const MAX_UINT16 = 65_535

export function brokerLimits(protocolVersion: 4 | 5, properties: ConnackProperties = {}): BrokerLimits {
  return {
    receiveMaximum: properties.receiveMaximum ?? MAX_UINT16,
    maximumQoS: properties.maximumQoS === 0 ? 0 : properties.maximumQoS === 1 ? 1 : 2,
    retainAvailable: properties.retainAvailable ?? true,
    maximumPacketSize: properties.maximumPacketSize ?? Number.POSITIVE_INFINITY,
    wildcardSubscriptionAvailable: properties.wildcardSubscriptionAvailable ?? true,
    subscriptionIdentifiersAvailable:
      protocolVersion === 5 && (properties.subscriptionIdentifiersAvailable ?? true),
    sharedSubscriptionAvailable: properties.sharedSubscriptionAvailable ?? true,
    topicAliasMaximum: properties.topicAliasMaximum ?? 0,
  }
}

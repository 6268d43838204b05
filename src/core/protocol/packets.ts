/** Properties of a PUBLISH packet (MQTT 5, 3.3.2.3). */
export interface PublishProperties {
  payloadFormatIndicator?: boolean
  /** In seconds. */
  messageExpiryInterval?: number
  topicAlias?: number
  responseTopic?: string
  correlationData?: Buffer
  userProperties?: Record<string, string | string[]>
  /** Several, where a broker sends one copy for several subscriptions. */
  subscriptionIdentifier?: number | number[]
  contentType?: string
}

/** A PUBLISH packet as it arrived (MQTT 5, 3.3). */
export interface PublishPacket {
  cmd: 'publish'
  topic: string
  payload: string | Buffer
  qos: 0 | 1 | 2
  dup: boolean
  retain: boolean
  messageId?: number
  /** Remaining Length, in bytes. */
  length?: number
  properties?: PublishProperties
}

/** A SUBSCRIBE packet as it is sent (MQTT 5, 3.8). */
export interface SubscribePacket {
  cmd: 'subscribe'
  messageId: number
  subscriptions: { topic: string; qos: 0 | 1 | 2; nl: boolean; rap: boolean; rh: 0 | 1 | 2 }[]
  properties?: { subscriptionIdentifier: number }
}

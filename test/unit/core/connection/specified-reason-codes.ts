/** What the specifications say, written down once more and on their own: the yardstick for the tables of the code. */
export type SpecifiedCode = readonly [reasonCode: number, name: string]

/** MQTT 5, 3.2.2.2, table 3-1: all that is not 0x00 Success. */
export const MQTT_5_CONNACK: readonly SpecifiedCode[] = [
  [0x80, 'Unspecified error'],
  [0x81, 'Malformed Packet'],
  [0x82, 'Protocol Error'],
  [0x83, 'Implementation specific error'],
  [0x84, 'Unsupported Protocol Version'],
  [0x85, 'Client Identifier not valid'],
  [0x86, 'Bad User Name or Password'],
  [0x87, 'Not authorized'],
  [0x88, 'Server unavailable'],
  [0x89, 'Server busy'],
  [0x8a, 'Banned'],
  [0x8c, 'Bad authentication method'],
  [0x90, 'Topic Name invalid'],
  [0x95, 'Packet too large'],
  [0x97, 'Quota exceeded'],
  [0x99, 'Payload format invalid'],
  [0x9a, 'Retain not supported'],
  [0x9b, 'QoS not supported'],
  [0x9c, 'Use another server'],
  [0x9d, 'Server moved'],
  [0x9f, 'Connection rate exceeded'],
]

/** MQTT 3.1.1, 3.2.2.3, table 3.1: all that is not 0x00 Connection Accepted. */
export const MQTT_3_1_1_CONNACK: readonly SpecifiedCode[] = [
  [0x01, 'Unacceptable protocol version'],
  [0x02, 'Identifier rejected'],
  [0x03, 'Server unavailable'],
  [0x04, 'Bad user name or password'],
  [0x05, 'Not authorized'],
]

/** MQTT 5, 3.14.2.1, table 3-10: all that a Server may send, so not 0x04 Disconnect with Will Message. */
export const MQTT_5_DISCONNECT: readonly SpecifiedCode[] = [
  [0x00, 'Normal disconnection'],
  [0x80, 'Unspecified error'],
  [0x81, 'Malformed Packet'],
  [0x82, 'Protocol Error'],
  [0x83, 'Implementation specific error'],
  [0x87, 'Not authorized'],
  [0x89, 'Server busy'],
  [0x8b, 'Server shutting down'],
  [0x8d, 'Keep Alive timeout'],
  [0x8e, 'Session taken over'],
  [0x8f, 'Topic Filter invalid'],
  [0x90, 'Topic Name invalid'],
  [0x93, 'Receive Maximum exceeded'],
  [0x94, 'Topic Alias invalid'],
  [0x95, 'Packet too large'],
  [0x96, 'Message rate too high'],
  [0x97, 'Quota exceeded'],
  [0x98, 'Administrative action'],
  [0x99, 'Payload format invalid'],
  [0x9a, 'Retain not supported'],
  [0x9b, 'QoS not supported'],
  [0x9c, 'Use another server'],
  [0x9d, 'Server moved'],
  [0x9e, 'Shared Subscriptions not supported'],
  [0x9f, 'Connection rate exceeded'],
  [0xa0, 'Maximum connect time'],
  [0xa1, 'Subscription Identifiers not supported'],
  [0xa2, 'Wildcard Subscriptions not supported'],
]

/** `0x8E`, as the specification writes a code. */
export const hex = (reasonCode: number): string =>
  `0x${reasonCode.toString(16).padStart(2, '0').toUpperCase()}`

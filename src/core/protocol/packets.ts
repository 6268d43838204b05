import type { MqttError } from '../errors.js'

/** How long a response may take, and what follows. */
export interface AckRules {
  /** In milliseconds. */
  readonly ackTimeoutMs: number
  /** Called when the connection must be closed. */
  readonly onOverdue: (cause: MqttError) => void
}

/** Properties of a PUBLISH packet (MQTT 5, 3.3.2.3). */
export interface PublishProperties {
  payloadFormatIndicator?: boolean
  /** In seconds. */
  messageExpiryInterval?: number
  topicAlias?: number
  responseTopic?: string
  correlationData?: Buffer
  userProperties?: Record<string, string | string[]>
  /** A list if the broker sends one copy for several subscriptions. */
  subscriptionIdentifier?: number | number[]
  contentType?: string
}

const MESSAGE_EXPIRY_INTERVAL = 0x02
const CONTENT_TYPE = 0x03
const RESPONSE_TOPIC = 0x08
const CORRELATION_DATA = 0x09
const USER_PROPERTY = 0x26
/** Their length then takes at most two bytes, also with a Topic Alias. */
const LONGEST_PROPERTIES = 16_000
/** For short strings, a loop costs less than a call into the runtime. */
const SHORT_TEXT = 32

/** Writes text that takes `bytes` bytes. @returns where the next byte goes */
export function writeText(target: Buffer, at: number, text: string, bytes: number): number {
  if (bytes !== text.length || bytes > SHORT_TEXT) return at + target.write(text, at)
  for (let index = 0; index < bytes; index += 1) target[at + index] = text.charCodeAt(index)
  return at + bytes
}

/** Returns the bytes of these properties without their length. Undefined if `writeProperties` does not support them. */
export function propertiesLength(properties: PublishProperties): number | undefined {
  let total = 0
  for (const name in properties) {
    const bytes = propertyLength(properties, name)
    if (bytes === undefined) return undefined
    total += bytes
  }
  return total > LONGEST_PROPERTIES ? undefined : total
}

/** The values may come from untyped code. */
function propertyLength(properties: PublishProperties, name: string): number | undefined {
  switch (name) {
    case 'contentType':
    case 'responseTopic': {
      const text: unknown = properties[name]
      return typeof text === 'string' ? 3 + Buffer.byteLength(text) : undefined
    }
    case 'correlationData':
      return Buffer.isBuffer(properties[name]) ? 3 + properties[name].length : undefined
    case 'messageExpiryInterval': {
      const seconds: unknown = properties[name]
      const isUint32 = typeof seconds === 'number' && seconds >>> 0 === seconds
      return isUint32 ? 5 : undefined
    }
    case 'userProperties':
      return userPropertiesLength(properties[name])
    default:
      return undefined
  }
}

function userPropertiesLength(named: PublishProperties['userProperties']): number | undefined {
  if (typeof named !== 'object' || named === null) return undefined
  let total = 0
  for (const [name, value] of Object.entries(named)) {
    if (typeof value !== 'string') return undefined
    total += 5 + Buffer.byteLength(name) + Buffer.byteLength(value)
  }
  return total
}

/** Writes properties that `propertiesLength` has measured, in their order. @returns where the next byte goes */
export function writeProperties(target: Buffer, start: number, properties: PublishProperties): number {
  let at = start
  for (const name in properties) {
    if (name === 'responseTopic') at = writeField(target, at, RESPONSE_TOPIC, properties[name])
    else if (name === 'contentType') at = writeField(target, at, CONTENT_TYPE, properties[name])
    else if (name === 'correlationData') at = writeField(target, at, CORRELATION_DATA, properties[name])
    else if (name === 'messageExpiryInterval') {
      target[at] = MESSAGE_EXPIRY_INTERVAL
      at = target.writeUInt32BE(properties[name] ?? 0, at + 1)
    } else {
      for (const [key, value] of Object.entries(properties.userProperties ?? {})) {
        at = writeField(target, at, USER_PROPERTY, key)
        at = writeSized(target, at, String(value))
      }
    }
  }
  return at
}

function writeField(target: Buffer, at: number, kind: number, value: string | Buffer = ''): number {
  target[at] = kind
  return writeSized(target, at + 1, value)
}

function writeSized(target: Buffer, at: number, value: string | Buffer): number {
  const bytes = Buffer.byteLength(value)
  target[at] = bytes >> 8
  target[at + 1] = bytes & 0xff
  if (typeof value === 'string') return writeText(target, at + 2, value, bytes)
  target.set(value, at + 2)
  return at + 2 + bytes
}

/** A received PUBLISH packet (MQTT 5, 3.3). */
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

/** A SUBSCRIBE packet to send (MQTT 5, 3.8). */
export interface SubscribePacket {
  cmd: 'subscribe'
  messageId: number
  subscriptions: { topic: string; qos: 0 | 1 | 2; nl: boolean; rap: boolean; rh: 0 | 1 | 2 }[]
  properties?: { subscriptionIdentifier: number }
}

/** Limits of the broker for this connection, from CONNACK (MQTT 5, 3.2.2.3). MQTT 3.1.1 brokers send no limits. */
export interface BrokerLimits {
  readonly receiveMaximum: number
  readonly maximumQoS: 0 | 1 | 2
  readonly retainAvailable: boolean
  /** Maximum size of a packet in bytes; Infinity if the broker sets no limit. */
  readonly maximumPacketSize: number
  readonly wildcardSubscriptionAvailable: boolean
  readonly subscriptionIdentifiersAvailable: boolean
  readonly sharedSubscriptionAvailable: boolean
  /** Number of Topic Aliases that the broker accepts (MQTT 5, 3.2.2.3.8). */
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

export const PACKET_IDENTIFIER_NOT_FOUND = 0x92

/** Names of Reason Codes (MQTT 5, 2.4) and of CONNACK return codes (MQTT 3.1.1, 3.2.2.3). */
const NAMES: ReadonlyMap<number, string> = new Map([
  [0x00, 'Success'],
  [0x01, 'Unacceptable protocol version'],
  [0x02, 'Identifier rejected'],
  [0x03, 'Server unavailable'],
  [0x04, 'Bad username or password'],
  [0x05, 'Not authorized'],
  [0x10, 'No matching subscribers'],
  [0x11, 'No subscription existed'],
  [0x18, 'Continue authentication'],
  [0x19, 'Re-authenticate'],
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
  [0x8b, 'Server shutting down'],
  [0x8c, 'Bad authentication method'],
  [0x8d, 'Keep Alive timeout'],
  [0x8e, 'Session taken over'],
  [0x8f, 'Topic Filter invalid'],
  [0x90, 'Topic Name invalid'],
  [0x91, 'Packet identifier in use'],
  [0x92, 'Packet Identifier not found'],
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
])

/** Returns a Reason Code as number and name (MQTT 5, 2.4). */
export function describeReasonCode(reasonCode: number): string {
  const hex = `0x${reasonCode.toString(16).padStart(2, '0').toUpperCase()}`
  return `${hex} ${NAMES.get(reasonCode) ?? 'Unknown Reason Code'}`
}

/** Largest Packet Identifier. */
export const MAX_PACKET_ID = 65_535

/**
 * The Packet Identifiers of one client for PUBLISH, SUBSCRIBE and UNSUBSCRIBE (MQTT 5, 2.2.1). An identifier that is in use
 * is not assigned again.
 */
export class PacketIds<Publish = unknown> {
  /**
   * Publishes that the broker has not acknowledged, in the order in which their last packet (PUBLISH or PUBREL) was
   * written.
   */
  readonly unacknowledged = new Map<number, Publish>()
  private readonly reserved = new Set<number>()
  /** Called once, when the next identifier is released. */
  private wake: (() => void) | undefined = undefined

  /**
   * @param last the identifier before the first one. A new process should not start at 1 like the previous one, because
   * the broker may still hold QoS 2 messages with these identifiers.
   */
  constructor(private last = 0) {}

  /** @returns the next free identifier, or undefined if all 65,535 are in use */
  next(): number | undefined {
    const { unacknowledged, reserved } = this
    if (unacknowledged.size + reserved.size === MAX_PACKET_ID) return undefined
    do {
      this.last = this.last === MAX_PACKET_ID ? 1 : this.last + 1
    } while (unacknowledged.has(this.last) || (reserved.size > 0 && reserved.has(this.last)))
    return this.last
  }

  /** Takes an identifier for SUBSCRIBE or UNSUBSCRIBE. */
  allocate(): number | undefined {
    const id = this.next()
    if (id !== undefined) this.reserved.add(id)
    return id
  }

  release(id: number): void {
    this.reserved.delete(id)
    this.freed()
  }

  /** A publish is acknowledged, so its identifier is free. */
  acknowledged(id: number): void {
    this.unacknowledged.delete(id)
    if (this.wake !== undefined) this.freed()
  }

  /** Calls `wake` once, when the next identifier is released. */
  whenFree(wake: () => void): void {
    this.wake = wake
  }

  private freed(): void {
    const { wake } = this
    this.wake = undefined
    wake?.()
  }
}

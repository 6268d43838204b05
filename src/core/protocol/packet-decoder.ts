import type { PublishPacket, PublishProperties } from './packets.js'

/** The bit of a Variable Byte Integer that says that another byte follows. */
export const CONTINUES = 0x80
const MAX_LENGTH_BYTES = 4

/**
 * Returns the size in bytes of the packet that begins at `at`: 0 while its fixed header is incomplete, NaN if its Remaining
 * Length is malformed (MQTT 5, 1.5.5 and 2.1.4).
 */
export function packetSizeAt(bytes: Uint8Array, at: number): number {
  let length = 0
  let factor = 1
  for (let index = 1; index <= MAX_LENGTH_BYTES; index += 1) {
    const byte = bytes[at + index]
    if (byte === undefined) return 0
    length += (byte & (CONTINUES - 1)) * factor
    if (byte < CONTINUES) return length + index + 1
    factor *= CONTINUES
  }
  return Number.NaN
}

export const PUBLISH = 3
const PUBACK = 4

const NUL = 0x00
const HASH = 0x23
const PLUS = 0x2b

export const PAYLOAD_FORMAT_INDICATOR = 0x01
export const MESSAGE_EXPIRY_INTERVAL = 0x02
const CONTENT_TYPE = 0x03
const RESPONSE_TOPIC = 0x08
export const CORRELATION_DATA = 0x09
export const SUBSCRIPTION_IDENTIFIER = 0x0b
export const USER_PROPERTY = 0x26

/** Text with these characters may come from bytes that are not UTF-8, or is not allowed (MQTT 5, 1.5.4). */
const SUSPECT = /[\0\ufffd]/

/** Reason Codes of PUBACK (MQTT 5, 3.4.2.1). */
const PUBACK_CODES = new Set([0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])

/** A PUBACK packet (MQTT 5, 3.4) without properties. */
export interface PubackPacket {
  cmd: 'puback'
  messageId: number
  reasonCode?: number
}

/**
 * Decodes the two packets that make up nearly all traffic: PUBLISH at QoS 0 and 1, and PUBACK. Returns undefined for any other
 * packet, and for everything unusual in these two, which is left to the parser of `mqtt`: a malformed field, a Topic Alias, a
 * topic that is empty, has wildcards or is not ASCII.
 */
export function decodePacket(
  bytes: Buffer,
  at: number,
  end: number,
  protocolVersion: 4 | 5,
): PublishPacket | PubackPacket | undefined {
  const header = bytes[at] ?? 0
  const kind = header >> 4
  if (kind !== PUBLISH && kind !== PUBACK) return undefined
  let body = at + 2
  while ((bytes[body - 1] ?? 0) >= CONTINUES) body += 1
  if (kind === PUBLISH) return decodePublish(bytes, header, body, end, protocolVersion)
  return header === PUBACK << 4 ? decodePuback(bytes, body, end, protocolVersion) : undefined
}

function decodePuback(bytes: Buffer, at: number, end: number, version: 4 | 5): PubackPacket | undefined {
  const messageId = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
  if (messageId === 0) return undefined
  if (version === 4) return end - at === 2 ? { cmd: 'puback', messageId } : undefined
  if (end - at === 2) return { cmd: 'puback', messageId, reasonCode: 0 }
  const reasonCode = bytes[at + 2] ?? 0
  return end - at === 3 && PUBACK_CODES.has(reasonCode) ? { cmd: 'puback', messageId, reasonCode } : undefined
}

function decodePublish(
  bytes: Buffer,
  header: number,
  body: number,
  end: number,
  version: 4 | 5,
): PublishPacket | undefined {
  const qos = (header >> 1) & 3
  const topicAt = body + 2
  const topicEnd = topicAt + (((bytes[body] ?? 0) << 8) | (bytes[body + 1] ?? 0))
  const dup = (header & 8) !== 0
  if (qos > 1 || (qos === 0 && dup) || topicEnd === topicAt || topicEnd + qos * 2 > end) return undefined
  if (!isPlainTopic(bytes, topicAt, topicEnd)) return undefined
  const packet: PublishPacket = {
    cmd: 'publish',
    retain: (header & 1) !== 0,
    qos: qos === 1 ? 1 : 0,
    dup,
    length: end - body,
    topic: bytes.toString('latin1', topicAt, topicEnd),
    payload: bytes,
  }
  let next = topicEnd + qos * 2
  if (qos === 1) {
    packet.messageId = ((bytes[topicEnd] ?? 0) << 8) | (bytes[topicEnd + 1] ?? 0)
    if (packet.messageId === 0) return undefined
  }
  if (version === 5) {
    const first = bytes[next] ?? CONTINUES
    const second = first < CONTINUES ? 0 : (bytes[next + 1] ?? CONTINUES)
    // Properties of more than 16 KiB have a length of three bytes.
    if (second >= CONTINUES) return undefined
    const length = (first & (CONTINUES - 1)) + second * CONTINUES
    next += first < CONTINUES ? 1 : 2
    if (next + length > end) return undefined
    if (length > 0) {
      const properties = decodeProperties(bytes, next, next + length)
      if (properties === undefined) return undefined
      packet.properties = properties
      next += length
    }
  }
  packet.payload = bytes.subarray(next, end)
  return packet
}

function isPlainTopic(bytes: Uint8Array, at: number, end: number): boolean {
  for (let index = at; index < end; index += 1) {
    const byte = bytes[index] ?? NUL
    if (byte >= CONTINUES || byte === HASH || byte === PLUS || byte === NUL) return false
  }
  return true
}

/**
 * Properties of PUBLISH (MQTT 5, 3.3.2.3). Returns undefined if one is malformed, unknown, or repeated although it may
 * occur only once.
 */
function decodeProperties(bytes: Buffer, start: number, end: number): PublishProperties | undefined {
  const properties: PublishProperties = {}
  let at = start
  while (at < end) {
    const kind = bytes[at]
    const next =
      kind === SUBSCRIPTION_IDENTIFIER
        ? takeSubscriptionIdentifier(bytes, at + 1, properties)
        : kind === USER_PROPERTY
          ? takeUserProperty(bytes, at + 1, end, properties)
          : takeProperty(bytes, at, end, properties)
    if (next === 0 || next > end) return undefined
    at = next
  }
  return properties
}

/** @returns where the next property begins; 0 if this one is malformed */
function takeSubscriptionIdentifier(bytes: Buffer, at: number, properties: PublishProperties): number {
  let identifier = 0
  let factor = 1
  for (let index = 0; index < MAX_LENGTH_BYTES; index += 1) {
    const byte = bytes[at + index] ?? CONTINUES
    identifier += (byte & (CONTINUES - 1)) * factor
    factor *= CONTINUES
    if (byte >= CONTINUES) continue
    const { subscriptionIdentifier: before } = properties
    if (identifier === 0) return 0
    if (before === undefined) properties.subscriptionIdentifier = identifier
    else
      properties.subscriptionIdentifier = Array.isArray(before)
        ? [...before, identifier]
        : [before, identifier]
    return at + index + 1
  }
  return 0
}

function takeUserProperty(bytes: Buffer, at: number, end: number, properties: PublishProperties): number {
  const nameEnd = endOfField(bytes, at, end)
  const valueEnd = nameEnd === 0 ? 0 : endOfField(bytes, nameEnd, end)
  if (valueEnd === 0) return 0
  const name = bytes.toString('utf8', at + 2, nameEnd)
  const value = bytes.toString('utf8', nameEnd + 2, valueEnd)
  if (SUSPECT.test(name) || SUSPECT.test(value)) return 0
  // Without a prototype, so that a name such as "__proto__" is a name like any other.
  const named: Record<string, string | string[]> = properties.userProperties ?? Object.create(null)
  const before = named[name]
  if (before === undefined) named[name] = value
  else named[name] = Array.isArray(before) ? [...before, value] : [before, value]
  properties.userProperties = named
  return valueEnd
}

/** A property that occurs once. */
function takeProperty(bytes: Buffer, at: number, end: number, properties: PublishProperties): number {
  const value = at + 1
  switch (bytes[at]) {
    case PAYLOAD_FORMAT_INDICATOR:
      if (properties.payloadFormatIndicator !== undefined) return 0
      properties.payloadFormatIndicator = bytes[value] !== 0
      return value + 1
    case MESSAGE_EXPIRY_INTERVAL:
      if (properties.messageExpiryInterval !== undefined || value + 4 > end) return 0
      properties.messageExpiryInterval = bytes.readUInt32BE(value)
      return value + 4
    case CONTENT_TYPE: {
      const next = endOfField(bytes, value, end)
      if (properties.contentType !== undefined || next === 0) return 0
      properties.contentType = bytes.toString('utf8', value + 2, next)
      return SUSPECT.test(properties.contentType) ? 0 : next
    }
    case RESPONSE_TOPIC: {
      const next = endOfField(bytes, value, end)
      if (properties.responseTopic !== undefined || next === 0) return 0
      properties.responseTopic = bytes.toString('utf8', value + 2, next)
      return SUSPECT.test(properties.responseTopic) ? 0 : next
    }
    case CORRELATION_DATA: {
      const next = endOfField(bytes, value, end)
      if (properties.correlationData !== undefined || next === 0) return 0
      properties.correlationData = bytes.subarray(value + 2, next)
      return next
    }
    default:
      return 0
  }
}

/** Returns the end of a field with a length of two bytes; 0 if it does not end within its properties. */
export function endOfField(bytes: Uint8Array, at: number, end: number): number {
  if (at + 2 > end) return 0
  const fieldEnd = at + 2 + (((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0))
  return fieldEnd > end ? 0 : fieldEnd
}

/** `mqtt` resolves a Topic Alias for its 'message' event only, not in the packet that the client gets. */
export function resolveTopicAlias(
  packet: { topic: string },
  alias: number,
  aliases: Map<number, string>,
): void {
  if (packet.topic === '') packet.topic = aliases.get(alias) ?? ''
  else aliases.set(alias, packet.topic)
}

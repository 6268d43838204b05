import {
  CONTINUES,
  CORRELATION_DATA,
  endOfField,
  MESSAGE_EXPIRY_INTERVAL,
  PAYLOAD_FORMAT_INDICATOR,
  PUBLISH,
  packetSizeAt,
  SUBSCRIPTION_IDENTIFIER,
  USER_PROPERTY,
} from './packet-decoder.js'

const TOPIC_ALIAS = 0x23
const UTF8 = new TextDecoder('utf-8', { fatal: true })

function isText(bytes: Uint8Array): boolean {
  try {
    UTF8.decode(bytes)
    return true
  } catch {
    return false
  }
}

/**
 * Whether the texts of a packet are valid if it is a PUBLISH: well-formed UTF-8, and no U+0000 in a property (MQTT 5, 1.5.4;
 * MQTT 3.1.1, 1.5.3). The parser of `mqtt` replaces invalid bytes. Returns undefined while `bytes` ends before the texts do,
 * and for a packet that is malformed in another way, which the parser of `mqtt` reports.
 */
export function hasValidText(bytes: Buffer, start: number, end: number, version: 4 | 5): boolean | undefined {
  if ((bytes[start] ?? 0) >> 4 !== PUBLISH) return true
  const texts = new PublishTexts(version)
  return texts.take(bytes.subarray(start, end)) && (texts.isComplete || undefined)
}

/** The texts of one packet that arrives in pieces, as described at `hasValidText`. It holds at most one property. */
export class PublishTexts {
  /** All of them have arrived. */
  isComplete = false
  /** The beginning of what has not arrived completely. */
  private held: Buffer | undefined
  /** Number of bytes of properties that have not arrived. Undefined until their length has arrived. */
  private missing: number | undefined

  constructor(private readonly version: 4 | 5) {}

  /** @param piece the next bytes of the packet @returns false if a text is invalid */
  take(piece: Buffer): boolean {
    if (this.isComplete) return true
    if (this.missing !== undefined) return this.takeProperties(piece, this.missing)
    const bytes = this.held === undefined ? piece : Buffer.concat([this.held, piece])
    this.held = bytes
    const header = bytes[0] ?? 0
    this.isComplete = header >> 4 !== PUBLISH
    const topic = endOfInteger(bytes, 1)
    const topicEnd = endOfField(bytes, topic, bytes.length)
    if (this.isComplete || topicEnd === 0) return true
    if (!isText(bytes.subarray(topic + 2, topicEnd))) return false
    this.isComplete = this.version === 4
    const length = topicEnd + ((header & 6) === 0 ? 0 : 2)
    // The size of a packet includes its first byte, which the length of the properties does not have.
    const size = packetSizeAt(bytes, length - 1)
    if (this.isComplete || !(size > 0)) return true
    const start = endOfInteger(bytes, length)
    this.held = undefined
    return this.takeProperties(bytes.subarray(start), size - 1 - (start - length))
  }

  private takeProperties(piece: Buffer, missing: number): boolean {
    const fresh = piece.subarray(0, missing)
    const bytes = this.held === undefined ? fresh : Buffer.concat([this.held, fresh])
    this.missing = missing - fresh.length
    const at = endOfValidProperties(bytes)
    if (at === INVALID) return false
    this.held = bytes.subarray(at)
    this.isComplete = this.missing === 0 && at === bytes.length
    return true
  }
}

/** Where a Variable Byte Integer ends. */
function endOfInteger(bytes: Uint8Array, start: number): number {
  let last = start
  while ((bytes[last] ?? 0) >= CONTINUES) last += 1
  return last + 1
}

const INVALID = -1

/** @returns the end of the last complete property; `INVALID` if one has an invalid text */
function endOfValidProperties(bytes: Buffer): number {
  for (let at = 0; ; ) {
    const next = at < bytes.length ? endOfProperty(bytes, at) : 0
    if (next === INVALID) return INVALID
    if (next === 0 || next > bytes.length) return at
    at = next
  }
}

/** @returns the end of a property, which may be behind the end of `bytes`; 0 if it is unknown; `INVALID` if its text is */
function endOfProperty(bytes: Buffer, start: number): number {
  const kind = bytes[start] ?? 0
  let at = start + 1
  if (kind === PAYLOAD_FORMAT_INDICATOR) return at + 1
  if (kind === TOPIC_ALIAS) return at + 2
  if (kind === MESSAGE_EXPIRY_INTERVAL) return at + 4
  if (kind === SUBSCRIPTION_IDENTIFIER) return endOfInteger(bytes, at)
  for (let fields = kind === USER_PROPERTY ? 2 : 1; fields > 0; fields -= 1) {
    const next = endOfField(bytes, at, bytes.length)
    if (next === 0) return 0
    const content = bytes.subarray(at + 2, next)
    if (kind !== CORRELATION_DATA && (content.includes(0) || !isText(content))) return INVALID
    at = next
  }
  return at
}

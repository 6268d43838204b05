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
  const header = bytes[start] ?? 0
  if (header >> 4 !== PUBLISH) return true
  const limit = Math.min(end, bytes.length)
  const at = endOfInteger(bytes, start + 1)
  const topicEnd = endOfField(bytes, at, limit)
  if (topicEnd === 0) return undefined
  if (!isText(bytes.subarray(at + 2, topicEnd))) return false
  if (version === 4) return true
  return hasValidProperties(bytes, topicEnd + ((header & 6) === 0 ? 0 : 2), limit)
}

/** Where a Variable Byte Integer ends. */
function endOfInteger(bytes: Uint8Array, start: number): number {
  let last = start
  while ((bytes[last] ?? 0) >= CONTINUES) last += 1
  return last + 1
}

function hasValidProperties(bytes: Buffer, start: number, limit: number): boolean | undefined {
  // The size of a packet includes its first byte, which the length of the properties does not have.
  const end = start - 1 + packetSizeAt(bytes, start - 1)
  if (!(end >= start && end <= limit)) return undefined
  let at = endOfInteger(bytes, start)
  while (at < end) {
    const kind = bytes[at] ?? 0
    at += 1
    if (kind === PAYLOAD_FORMAT_INDICATOR) at += 1
    else if (kind === TOPIC_ALIAS) at += 2
    else if (kind === MESSAGE_EXPIRY_INTERVAL) at += 4
    else if (kind === SUBSCRIPTION_IDENTIFIER) at = endOfInteger(bytes, at)
    else {
      for (let fields = kind === USER_PROPERTY ? 2 : 1; fields > 0; fields -= 1) {
        const next = endOfField(bytes, at, end)
        if (next === 0) return undefined
        const content = bytes.subarray(at + 2, next)
        if (kind !== CORRELATION_DATA && (content.includes(0) || !isText(content))) return false
        at = next
      }
    }
  }
  return true
}

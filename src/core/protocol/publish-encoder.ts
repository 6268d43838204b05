/** A PUBLISH whose only property may be a Topic Alias. */
export interface PlainPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly messageId: number | undefined
  /** Undefined on MQTT 3.1.1, which has no properties. */
  readonly alias: { readonly alias: number; readonly isNew: boolean } | undefined
}

/** Largest Remaining Length, which has four bytes (MQTT 5, 1.5.5). */
export const MAX_REMAINING_LENGTH = 268_435_455

const PUBLISH = 0x30
const TOPIC_ALIAS = 0x23
const ALIAS_BYTES = 3
const CONTINUES = 0x80

/** Number of bytes after the fixed header (MQTT 5, 2.1.4). */
export function remainingLength(publish: PlainPublish, topicBytes: number, hasProperties: boolean): number {
  const identifier = publish.qos === 0 ? 0 : 2
  const properties = hasProperties ? 1 + (publish.alias === undefined ? 0 : ALIAS_BYTES) : 0
  return 2 + topicBytes + identifier + properties + publish.payload.length
}

/** Number of bytes of the Topic Name in this packet: 0 if the broker knows its alias. */
export function topicLength({ topic, alias }: PlainPublish): number {
  return alias !== undefined && !alias.isNew ? 0 : Buffer.byteLength(topic)
}

/** Number of bytes of the fixed header, for a given Remaining Length. */
export function fixedHeaderLength(remaining: number): number {
  if (remaining < 128) return 2
  if (remaining < 16_384) return 3
  return remaining < 2_097_152 ? 4 : 5
}

/**
 * Writes a PUBLISH packet up to its payload (MQTT 5, 3.3) and returns the offset of the payload. `mqtt-packet`, which
 * encodes all other packets, takes several times as long for this most frequent packet.
 */
export function writePublishHeader(
  target: Buffer,
  start: number,
  publish: PlainPublish,
  topicBytes: number,
  remaining: number,
  hasProperties: boolean,
): number {
  const { topic, qos, retain, messageId = 0, alias } = publish
  let at = start
  target[at++] = PUBLISH + qos * 2 + (retain ? 1 : 0)
  let rest = remaining
  while (rest >= CONTINUES) {
    target[at++] = (rest % CONTINUES) + CONTINUES
    rest = Math.floor(rest / CONTINUES)
  }
  target[at++] = rest
  at = writeUint16(target, at, topicBytes)
  if (topicBytes > 0) at += writeText(target, at, topic, topicBytes)
  if (qos > 0) at = writeUint16(target, at, messageId)
  if (!hasProperties) return at
  target[at++] = alias === undefined ? 0 : ALIAS_BYTES
  if (alias === undefined) return at
  target[at++] = TOPIC_ALIAS
  return writeUint16(target, at, alias.alias)
}

function writeUint16(target: Buffer, at: number, value: number): number {
  target[at] = value >> 8
  target[at + 1] = value & 0xff
  return at + 2
}

/** For short strings a loop is faster than a call into the runtime. */
const SHORT_TEXT = 32

function writeText(target: Buffer, at: number, text: string, bytes: number): number {
  if (bytes !== text.length || bytes > SHORT_TEXT) return target.write(text, at)
  for (let index = 0; index < bytes; index += 1) target[at + index] = text.charCodeAt(index)
  return bytes
}

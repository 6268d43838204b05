import type { PublishPacket } from './packets.js'

const CONTINUES = 0x80

/** Returns the length of a packet, read from its fixed header (MQTT 5, 1.5.5 and 2.1.4). */
export function announcedLength(bytes: Buffer): number {
  let length = 0
  for (let at = 1; at < 5; at += 1) {
    const byte = bytes[at] ?? 0
    length += (byte % CONTINUES) * CONTINUES ** (at - 1)
    if (byte < CONTINUES) return length + at + 1
  }
  return Number.NaN
}

/** Approximate size of the objects that hold a message. */
const OVERHEAD_BYTES = 512

/** Approximate memory use of a message, in bytes. */
export function bytesOf({ length, topic, payload }: PublishPacket): number {
  return OVERHEAD_BYTES + (length ?? topic.length + payload.length)
}

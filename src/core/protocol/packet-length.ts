import type { PublishPacket } from './packets.js'

const CONTINUES = 0x80
const MAX_LENGTH_BYTES = 4

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

/**
 * Checks the Remaining Length of incoming packets (MQTT 5, 2.1.4), so that a packet that is too large ends the connection
 * before the parser buffers it.
 */
export class InboundSizeGuard {
  /** Remaining bytes of the current packet. */
  private rest = 0
  private isInHeader = false
  private length = 0
  private lengthBytes = 0

  constructor(private readonly maxPacketBytes: number) {}

  /** @returns the size of a packet that is too large, or undefined */
  feed(bytes: Uint8Array): number | undefined {
    let at = 0
    while (at < bytes.length) {
      if (this.rest > 0) {
        const passed = Math.min(this.rest, bytes.length - at)
        this.rest -= passed
        at += passed
      } else if (this.isInHeader) {
        const byte = bytes[at] ?? 0
        at += 1
        this.length += (byte % CONTINUES) * CONTINUES ** this.lengthBytes
        this.lengthBytes += 1
        // A longer length field is malformed; the parser ends the connection.
        if (byte >= CONTINUES && this.lengthBytes < MAX_LENGTH_BYTES) continue
        this.isInHeader = false
        this.rest = this.length
        const size = 1 + this.lengthBytes + this.length
        if (size > this.maxPacketBytes) return size
      } else {
        this.isInHeader = true
        this.length = 0
        this.lengthBytes = 0
        at += 1
      }
    }
    return undefined
  }
}

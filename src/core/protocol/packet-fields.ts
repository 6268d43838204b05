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

/** Largest Packet Identifier. */
export const MAX_PACKET_ID = 65_535

/**
 * The Packet Identifiers of one client for PUBLISH, SUBSCRIBE and UNSUBSCRIBE (MQTT 5, 2.2.1). None is given that is in
 * use.
 */
export class PacketIds<Publish = unknown> {
  /** Publishes that the broker has not acknowledged, in the order in which PUBLISH, or else PUBREL, was written. */
  readonly unacknowledged = new Map<number, Publish>()
  private readonly reserved = new Set<number>()
  /** Called once, with the next one that is free again. */
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

  /** A publish is acknowledged, and its identifier is free. */
  acknowledged(id: number): void {
    this.unacknowledged.delete(id)
    if (this.wake !== undefined) this.freed()
  }

  /** Calls `wake` once, with the next one that is released. */
  whenFree(wake: () => void): void {
    this.wake = wake
  }

  private freed(): void {
    const { wake } = this
    this.wake = undefined
    wake?.()
  }
}

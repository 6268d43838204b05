/** Packet Identifiers go from 1 to this. */
export const MAX_PACKET_ID = 65_535

/**
 * Packet Identifiers of one connection, for PUBLISH, SUBSCRIBE and UNSUBSCRIBE together (MQTT 5, 2.2.1).
 * Never hands out one that is in use.
 */
export class PacketIds {
  private readonly used = new Set<number>()

  /**
   * @param last the identifier before the first one. A process that finds a session of the one before it should not
   * start at 1 like that one did: the broker may still hold QoS 2 messages of these identifiers.
   */
  constructor(private last = 0) {}

  /** The next free identifier, or undefined when all 65,535 are in use. */
  allocate(): number | undefined {
    if (this.used.size === MAX_PACKET_ID) return undefined
    do {
      this.last = this.last === MAX_PACKET_ID ? 1 : this.last + 1
    } while (this.used.has(this.last))
    this.used.add(this.last)
    return this.last
  }

  release(id: number): void {
    this.used.delete(id)
  }
}

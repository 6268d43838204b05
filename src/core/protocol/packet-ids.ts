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

/** Largest Packet Identifier. */
export const MAX_PACKET_ID = 65_535

/**
 * Assigns the Packet Identifiers of one connection to PUBLISH, SUBSCRIBE and UNSUBSCRIBE (MQTT 5, 2.2.1). Never assigns an
 * identifier that is in use.
 */
export class PacketIds {
  private readonly used = new Set<number>()
  private wake: (() => void) | undefined

  /**
   * @param last the identifier before the first one. A new process should not start at 1 like the previous one, because
   * the broker may still hold QoS 2 messages with these identifiers.
   */
  constructor(private last = 0) {}

  /** @returns the next free identifier, or undefined if all 65,535 are in use */
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
    if (this.wake !== undefined) this.wakeUp(this.wake)
  }

  /** Calls `wake` once, with the next one that is released. */
  whenFree(wake: () => void): void {
    this.wake = wake
  }

  private wakeUp(wake: () => void): void {
    this.wake = undefined
    wake()
  }
}

/** A QoS 1 message that is not acknowledged yet. */
export interface AckSlot {
  readonly messageId: number
  isDone: boolean
}

/**
 * Releases acknowledgements in the order in which the messages came [MQTT-4.6.0-2], however their handlers
 * end. One window belongs to one network connection: an acknowledgement must not go to a later one.
 */
export class AckWindow {
  private readonly slots: AckSlot[] = []

  get size(): number {
    return this.slots.length
  }

  /** Place of a slot in the order of arrival, from 0; -1 when it is not in this window. */
  positionOf(slot: AckSlot): number {
    return this.slots.indexOf(slot)
  }

  add(messageId: number): AckSlot {
    const slot = { messageId, isDone: false }
    this.slots.push(slot)
    return slot
  }

  /** Marks a message as handled and takes out what may be acknowledged now, in order. */
  complete(slot: AckSlot): number[] {
    slot.isDone = true
    const firstOpen = this.slots.findIndex(candidate => !candidate.isDone)
    const ready = this.slots.splice(0, firstOpen === -1 ? this.slots.length : firstOpen)
    return ready.map(done => done.messageId)
  }
}

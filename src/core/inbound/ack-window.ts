/** A QoS 1 message that is not acknowledged yet. */
export interface AckSlot<T> {
  readonly messageId: number
  readonly message: T
  isDone: boolean
}

/**
 * Releases acknowledgements in the order in which the messages came [MQTT-4.6.0-2], however their handlers
 * end. One window belongs to one network connection: an acknowledgement must not go to a later one.
 */
export class AckWindow<T> {
  private readonly slots: AckSlot<T>[] = []

  get size(): number {
    return this.slots.length
  }

  /** Messages whose acknowledgement has not left, in order. */
  get open(): readonly AckSlot<T>[] {
    return this.slots
  }

  /** Place of a slot in the order of arrival, from 0; -1 when it is not in this window. */
  positionOf(slot: AckSlot<T>): number {
    return this.slots.indexOf(slot)
  }

  add(messageId: number, message: T): AckSlot<T> {
    const slot = { messageId, message, isDone: false }
    this.slots.push(slot)
    return slot
  }

  /** Marks a message as handled and takes out what may be acknowledged now, in order. */
  complete(slot: AckSlot<T>): readonly AckSlot<T>[] {
    slot.isDone = true
    if (this.slots[0] !== slot) return []
    if (this.slots[1]?.isDone !== true) {
      this.slots.shift()
      return [slot]
    }
    const firstOpen = this.slots.findIndex(candidate => !candidate.isDone)
    return this.slots.splice(0, firstOpen === -1 ? this.slots.length : firstOpen)
  }
}

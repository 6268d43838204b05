/** A QoS 1 message that is not acknowledged yet. */
export interface AckSlot<T> {
  readonly messageId: number
  readonly message: T
  /** Of the connection by which the message came. */
  readonly connection: number
  isDone: boolean
}

/**
 * Releases acknowledgements in the order in which the messages came [MQTT-4.6.0-2], however their handlers
 * end. An acknowledgement must not go to a later connection than the one by which its message came.
 */
export class AckWindow<T> {
  private slots: AckSlot<T>[] = []
  private connection = 0
  /** How many came, over all connections. */
  added = 0

  /** How many are not acknowledged on the present connection. */
  get size(): number {
    return this.slots.length
  }

  /** Messages of the present connection whose acknowledgement has not left, in order. */
  get open(): readonly AckSlot<T>[] {
    return this.slots
  }

  /** Whether such a message with this Packet Identifier is not acknowledged on the present connection. */
  has(messageId: number | undefined, isIt: (message: T) => boolean): boolean {
    return this.slots.some(slot => slot.messageId === messageId && isIt(slot.message))
  }

  /** Whether the acknowledgement is to leave on the present connection. */
  owes(slot: AckSlot<T> | undefined): boolean {
    return slot?.connection === this.connection
  }

  /** The connection is gone. @returns what it has not acknowledged, and never will */
  renew(): readonly AckSlot<T>[] {
    const { slots } = this
    this.slots = []
    this.connection += 1
    return slots
  }

  /** Place in the order of arrival, from 0; -1 for what is not acknowledged on the present connection. */
  positionOf(slot: AckSlot<T> | undefined): number {
    return slot === undefined ? -1 : this.slots.indexOf(slot)
  }

  add(messageId: number, message: T): AckSlot<T> {
    const slot = { messageId, message, connection: this.connection, isDone: false }
    this.slots.push(slot)
    this.added += 1
    return slot
  }

  /** Marks a message as handled and takes out what may be acknowledged now, in order. */
  complete(slot: AckSlot<T>): readonly AckSlot<T>[] {
    slot.isDone = true
    if (this.slots[0] !== slot) return NONE
    if (this.slots[1]?.isDone !== true) {
      this.slots.shift()
      return [slot]
    }
    const firstOpen = this.slots.findIndex(candidate => !candidate.isDone)
    return this.slots.splice(0, firstOpen === -1 ? this.slots.length : firstOpen)
  }
}

const NONE: readonly never[] = []

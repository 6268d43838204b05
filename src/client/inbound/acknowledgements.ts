import { type AckSlot, AckWindow } from '../../core/inbound/ack-window.js'
import type { Link } from '../connection/link.js'
import type { Delivery } from './delivery.js'

/** Which acknowledgements are owed on the present connection, and to whom. */
export class Acknowledgements {
  private window = new AckWindow<Delivery>()

  /** How many are not acknowledged on the present connection. */
  get size(): number {
    return this.window.size
  }

  /** What is not acknowledged on the present connection, in the order of arrival. */
  get open(): readonly AckSlot<Delivery>[] {
    return this.window.open
  }

  /** A QoS 1 message came: it is acknowledged by the connection it came by. */
  owe(delivery: Delivery, link: Link, messageId = delivery.packet.messageId): void {
    if (delivery.packet.qos !== 1 || messageId === undefined) return
    delivery.ack = { window: this.window, slot: this.window.add(messageId, delivery), link }
  }

  /** Whether its acknowledgement is to leave on the present connection. */
  owes({ ack }: Delivery): boolean {
    return ack !== undefined && ack.window === this.window
  }

  /** The message is done: its PUBACK leaves when those of all before it have. @returns those whose PUBACK left now */
  pay({ ack }: Delivery): readonly AckSlot<Delivery>[] {
    if (ack === undefined) return NONE
    const ready = ack.window.complete(ack.slot)
    // The window of an earlier connection: the broker has taken these back.
    if (ack.window !== this.window) return NONE
    for (const { messageId } of ready) ack.link.send({ cmd: 'puback', messageId })
    return ready
  }

  /** Place in the order of arrival; -1 for what is not acknowledged on this connection. */
  positionOf({ ack }: Delivery): number {
    return ack === undefined ? -1 : this.window.positionOf(ack.slot)
  }

  /** The connection is gone. @returns what is unpaid for ever */
  renew(): readonly AckSlot<Delivery>[] {
    const { open } = this.window
    this.window = new AckWindow()
    return open
  }
}

const NONE: readonly AckSlot<Delivery>[] = []

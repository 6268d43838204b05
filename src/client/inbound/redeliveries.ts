import type { PublishPacket } from '../connection/link.js'
import type { Delivery } from './delivery.js'

/**
 * Messages of a kept session whose handlers have begun, and whose acknowledgement did not leave before the
 * connection was lost. The broker sends them again with their Packet Identifier and DUP (MQTT 5, 4.4): what is
 * handled already, or is just being handled, is not handled once more for that.
 */
export class Redeliveries {
  private readonly expected = new Map<number, Delivery>()

  /** The connection of this message is gone. */
  expect(messageId: number, delivery: Delivery): void {
    this.expected.set(messageId, delivery)
  }

  /** The message that this packet brings again, if it is one. */
  claim(packet: PublishPacket): Delivery | undefined {
    if (packet.messageId === undefined) return undefined
    const delivery = this.expected.get(packet.messageId)
    if (delivery === undefined) return undefined
    this.expected.delete(packet.messageId)
    // Without DUP the broker has given the identifier to another message.
    return packet.dup && delivery.outcome !== 'givenBack' && delivery.isSameAs(packet) ? delivery : undefined
  }

  /** The broker has forgotten the session. */
  clear(): void {
    this.expected.clear()
  }
}

import { MqttError } from '../../errors.js'
import type { PublishOutcome } from '../../publish-outcome.js'
import type { Packet } from '../connection/link.js'
import type { PacketIds } from '../connection/packet-ids.js'
import { excessOf } from './outbound-gate.js'
import type { OutboundMessage, Publication } from './outbound-message.js'
import type { PacedLink } from './paced-link.js'

interface Pending {
  /** Undefined once it was given up: the broker may answer all the same, and the identifier is in use until then. */
  publication: Publication | undefined
  readonly message: OutboundMessage
  /** QoS 2: PUBREC came, so PUBREL is what is sent from now on. */
  isReceived: boolean
  /** Sent on the present connection. */
  isSent: boolean
  /** Sent on an earlier connection, too: the broker may have it already. */
  isRepeated: boolean
}

/** Resumed connections in a row that ended without an answer to anything; then the oldest publish is given up. */
const FRUITLESS_CONNECTIONS = 10
const FAILURE = 0x80
const PACKET_IDENTIFIER_IN_USE = 0x91
const PACKET_IDENTIFIER_NOT_FOUND = 0x92

/**
 * QoS 1 and 2 publishes that the broker has not acknowledged: over a loss in a kept session, and until the
 * session is resumed or forgotten.
 */
export class InFlight {
  private readonly pending = new Map<number, Pending>()
  private readonly identifiers = new Map<Publication, number>()
  /** How many of the pending were not sent on the present connection. */
  private unsent = 0
  private fruitless = 0

  constructor(
    private readonly packetIds: PacketIds,
    private readonly maximum: number,
    private readonly settled: (publication: Publication, outcome: PublishOutcome) => void,
  ) {}

  /** Publishes that nobody has given up. */
  get size(): number {
    return this.identifiers.size
  }

  /** Whether one more may be sent: not before what a resumed session left open. */
  hasRoom(receiveMaximum: number): boolean {
    return this.unsent === 0 && this.pending.size < Math.min(this.maximum, receiveMaximum)
  }

  /** Sends a message that the broker is to acknowledge. @returns false when no Packet Identifier is free */
  send(paced: PacedLink, publication: Publication, message: OutboundMessage): boolean {
    const messageId = this.packetIds.allocate()
    if (messageId === undefined) return false
    try {
      paced.publish(message, messageId)
    } catch (error) {
      this.packetIds.release(messageId)
      throw error
    }
    this.pending.set(messageId, { publication, message, isReceived: false, isSent: true, isRepeated: false })
    this.identifiers.set(publication, messageId)
    return true
  }

  /** What is sent stays sent; nobody waits for its answer any more. @returns whether it was in flight */
  giveUp(publication: Publication): boolean {
    const messageId = this.identifiers.get(publication)
    const pending = messageId === undefined ? undefined : this.pending.get(messageId)
    if (pending === undefined) return false
    pending.publication = undefined
    this.identifiers.delete(publication)
    return true
  }

  /** Takes the broker's answer. @returns whether something has settled */
  answered(packet: Packet, paced: PacedLink): boolean {
    const messageId = packet.messageId
    const pending = messageId === undefined ? undefined : this.pending.get(messageId)
    // An answer to a packet that this connection has not sent cannot be trusted.
    if (messageId === undefined || !pending?.isSent) return false
    this.fruitless = 0
    const { qos } = pending.message
    if (packet.cmd === 'pubrec' && qos === 2) return this.takePubrec(messageId, pending, packet, paced)
    if (packet.cmd === 'pubcomp' && qos === 2)
      return this.settle(messageId, pending, pubcompCode(packet, pending), packet.properties?.reasonString)
    if (packet.cmd === 'puback' && qos === 1)
      return this.settle(messageId, pending, packet.reasonCode ?? 0, packet.properties?.reasonString)
    return false
  }

  /** A connection came that goes on with the session. */
  resumed(): void {
    this.fruitless = this.pending.size > 0 ? this.fruitless + 1 : 0
    if (this.fruitless > FRUITLESS_CONNECTIONS) this.giveUpOldest()
  }

  /**
   * What a resumed session left open, in order, with DUP and its Packet Identifier (MQTT 5, 4.4); no more of it
   * than the broker takes at once, and than the link carries soon.
   */
  resend(paced: PacedLink): void {
    if (this.unsent === 0) return
    let room = paced.limits.receiveMaximum - (this.pending.size - this.unsent)
    for (const [messageId, pending] of [...this.pending]) {
      if (room <= 0 || !paced.isOpen()) return
      if (pending.isSent || !this.pending.has(messageId)) continue
      const excess = pending.isReceived ? undefined : excessOf(pending.message, paced)
      if (excess !== undefined) {
        this.end(messageId, pending, { status: 'lost', cause: excess })
        continue
      }
      room -= 1
      pending.isSent = true
      this.unsent -= 1
      repeat(paced, messageId, pending)
    }
  }

  /** The connection is gone; the session may be resumed. */
  disconnected(): void {
    for (const pending of this.pending.values()) {
      pending.isRepeated ||= pending.isSent
      pending.isSent = false
    }
    this.unsent = this.pending.size
  }

  /** The session is gone: no answer will come. */
  loseAll(cause: MqttError): void {
    this.fruitless = 0
    for (const [messageId, pending] of [...this.pending])
      this.end(messageId, pending, { status: 'lost', cause })
  }

  private takePubrec(
    messageId: number,
    pending: Pending,
    packet: Extract<Packet, { cmd: 'pubrec' }>,
    paced: PacedLink,
  ): boolean {
    const reasonCode = packet.reasonCode ?? 0
    // Some brokers answer so to a PUBLISH with DUP that they have taken on the earlier connection.
    const isKnown = pending.isRepeated && reasonCode === PACKET_IDENTIFIER_IN_USE
    if (reasonCode >= FAILURE && !isKnown)
      return this.settle(messageId, pending, reasonCode, packet.properties?.reasonString)
    pending.isReceived = true
    paced.link.send({ cmd: 'pubrel', messageId })
    return false
  }

  /**
   * A broker reads in order, so what it hangs up on without a word is the oldest publish. Sent again for ever, it
   * would end every connection.
   */
  private giveUpOldest(): void {
    const [oldest] = this.pending
    if (oldest === undefined) return
    const text = `${FRUITLESS_CONNECTIONS} connections in a row ended before the broker answered this publish`
    this.end(...oldest, { status: 'lost', cause: new MqttError('CONNECTION_LOST', text) })
    this.fruitless = 0
  }

  private settle(messageId: number, pending: Pending, reasonCode: number, reasonString?: string): true {
    if (reasonCode < FAILURE) this.end(messageId, pending, { status: 'acknowledged', reasonCode })
    else {
      const said = reasonString === undefined ? {} : { reasonString }
      this.end(messageId, pending, { status: 'refused', reasonCode, ...said })
    }
    return true
  }

  private end(messageId: number, pending: Pending, outcome: PublishOutcome): void {
    if (!pending.isSent) this.unsent -= 1
    this.pending.delete(messageId)
    this.packetIds.release(messageId)
    const { publication } = pending
    if (publication === undefined) return
    this.identifiers.delete(publication)
    this.settled(publication, outcome)
  }
}

function repeat(paced: PacedLink, messageId: number, { message, isReceived }: Pending): void {
  if (isReceived) return paced.link.send({ cmd: 'pubrel', messageId })
  paced.link.send({ cmd: 'publish', ...message, messageId, dup: true })
  paced.count(paced.sizeOf(message))
}

/** The answer to the PUBREL of an earlier connection was lost: 0x92 is no error then (MQTT 5, 3.7.2.1). */
function pubcompCode(packet: Extract<Packet, { cmd: 'pubcomp' }>, pending: Pending): number {
  const reasonCode = packet.reasonCode ?? 0
  return pending.isReceived && reasonCode === PACKET_IDENTIFIER_NOT_FOUND ? 0 : reasonCode
}

import { MqttError } from '../../core/errors.js'
import { counted } from '../../core/log-lines.js'
import {
  excessOf,
  expiryMs,
  messageLeft,
  type OutboundMessage,
  type Publication,
} from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import { PACKET_IDENTIFIER_NOT_FOUND, type PacketIds } from '../../core/protocol/packets.js'
import type { OutboundOptions } from '../../options/options.js'
import { AckDeadline, type AckWatch, dueFor, unexpected } from '../connection/ack-deadline.js'
import type { AcknowledgingPacket } from '../connection/link.js'
import type { MqttConnection } from '../connection/mqtt-connection.js'
import type { PacedLink } from './paced-link.js'
import type { Outcomes } from './publishes.js'

/** Consecutive resumed connections without any acknowledgement after which the oldest publish is `lost`. */
const FRUITLESS_CONNECTIONS = 10
const FAILURE = 0x80
const PACKET_IDENTIFIER_IN_USE = 0x91
/** The slowest link whose speed is allowed for in the time limit of a large message, in bytes per millisecond. */
const SLOWEST_LINK = 1

/**
 * QoS 1 and 2 publishes that the broker has not acknowledged. With a kept session they survive a lost connection, until the
 * broker resumes the session or has lost it.
 */
export class InFlight implements AckWatch<Publication> {
  /** Publishes that have not settled. */
  size = 0
  /** Number of those that were not sent on the current connection. */
  unsent = 0
  private readonly pending: Map<number, Publication>
  /** Position at which resending continues. */
  private next: IterableIterator<Publication> | undefined
  private fruitless = 0
  /** Maximum number of unacknowledged publishes on this connection. */
  mostPending = 0
  private deadline: AckDeadline<Publication> | undefined
  private paced: PacedLink | undefined

  constructor(
    private readonly packetIds: PacketIds<Publication>,
    private readonly options: Pick<Required<OutboundOptions>, 'maxInFlight' | 'ackTimeoutMs'>,
    private readonly outcomes: Outcomes,
    private readonly connection: Pick<MqttConnection, 'terminate'>,
  ) {
    this.pending = packetIds.unacknowledged
  }

  /** Whether the broker has acknowledged nothing for half of `ackTimeoutMs`. */
  get isLate(): boolean {
    return this.deadline?.isLate === true
  }

  /** Whether another publish may be sent. Unacknowledged publishes of a resumed session are sent first. */
  hasRoom(): boolean {
    return this.unsent === 0 && this.pending.size < this.mostPending
  }

  /** Sends a message that the broker must acknowledge. @returns false if no Packet Identifier is free */
  send(paced: PacedLink, publication: Publication, message: OutboundMessage): boolean {
    const messageId = this.packetIds.next()
    if (messageId === undefined) return false
    paced.publish(message, messageId)
    const { nowMs } = paced
    publication.messageId = messageId
    publication.sentMs = nowMs
    publication.sentBytes = paced.bytes
    publication.isSent = true
    if (message.properties !== undefined) publication.expiresMs = expiryMs(message, nowMs)
    this.pending.set(messageId, publication)
    this.size += 1
    if (this.deadline?.isArmed === false) this.deadline.sent()
    return true
  }

  /** The publish was sent and stays sent, but its acknowledgement is no longer waited for. */
  giveUp(publication: Publication, cause: MqttError): void {
    if (publication.messageId !== 0) this.settle(publication, { status: 'lost', cause })
  }

  /** Handles an acknowledgement. @returns whether a publish has finished, so that another one may be sent */
  acknowledged(packet: AcknowledgingPacket, paced: PacedLink): boolean {
    const publication = packet.messageId === undefined ? undefined : this.pending.get(packet.messageId)
    // An acknowledgement of a packet that was not sent on this connection is not reliable.
    if (!publication?.isSent) return publication === undefined && releaseUnknown(packet, paced)
    const { isReleased, message } = publication
    // RabbitMQ downgrades QoS 2 to QoS 1 and sends PUBACK.
    const isDue =
      packet.cmd === 'puback' ? !isReleased : packet.cmd === 'pubrec' ? message.qos === 2 : isReleased
    if (!isDue) {
      this.connection.terminate(unexpected(packet, publication))
      return false
    }
    this.fruitless = 0
    if (this.deadline !== undefined) this.deadline.acknowledgedMs = paced.nowMs
    if (packet.cmd === 'pubrec') return this.takePubrec(publication, packet, paced)
    const reasonCode = packet.reasonCode ?? 0
    if (reasonCode === 0 || this.isLostPubcomp(publication, packet)) this.end(publication, ACKNOWLEDGED)
    else if (reasonCode < FAILURE) this.end(publication, { status: 'acknowledged', reasonCode })
    else this.end(publication, refusal(reasonCode, packet.properties?.reasonString))
    return true
  }

  /** @param isResumed whether the broker has resumed the session */
  connected(paced: PacedLink, isResumed: boolean): void {
    if (isResumed) this.resumed()
    else
      this.loseAll(
        new MqttError('CONNECTION_LOST', 'the broker lost the session before it acknowledged the publish'),
      )
    const { ackTimeoutMs, maxInFlight } = this.options
    this.paced = paced
    this.mostPending = Math.min(maxInFlight, paced.limits.receiveMaximum)
    this.deadline = new AckDeadline(paced.link, ackTimeoutMs, this)
  }

  oldest(): Publication | undefined {
    for (const publication of this.pending.values()) if (publication.isSent) return publication
    return undefined
  }

  /** Additional time for a publish that the broker cannot have read yet. */
  extraMs({ sentBytes }: Publication): number {
    return Math.max(0, sentBytes - (this.paced?.readBytes ?? sentBytes)) / SLOWEST_LINK
  }

  onOverdue(publication: Publication): void {
    const open = counted(this.pending.size, 'publish is', 'publishes are')
    const text = `the broker sent no ${dueFor(publication)} for the publish to "${publication.message.topic}" within ${this.options.ackTimeoutMs} ms; ${open} unacknowledged`
    this.connection.terminate(new MqttError('TIMEOUT', text, { reasonCode: FAILURE }))
  }

  /**
   * Resends the unacknowledged publishes of a resumed session, in order, with DUP and their Packet Identifiers (MQTT 5,
   * 4.4). Sends no more than the broker accepts at once and the link carries soon.
   */
  resend(paced: PacedLink): void {
    let room = paced.limits.receiveMaximum - (this.pending.size - this.unsent)
    while (this.unsent > 0 && room > 0 && paced.isOpen()) {
      this.next ??= this.pending.values()
      const { value: publication } = this.next.next()
      if (publication === undefined) {
        this.next = undefined
        return
      }
      if (!publication.isSent && this.repeat(paced, publication)) room -= 1
    }
  }

  /** The connection has ended. @param isKept whether the session may be resumed */
  lost(cause: MqttError, isKept: boolean): void {
    this.deadline?.stop()
    this.deadline = undefined
    if (!isKept) return this.loseAll(cause)
    for (const publication of this.pending.values()) {
      publication.isRepeated ||= publication.isSent
      publication.isReleaseRepeated ||= publication.isSent && publication.isReleased
      publication.isSent = false
    }
    this.releasedFirst()
    this.unsent = this.pending.size
    this.next = undefined
  }

  /** The session has ended, so no acknowledgement will arrive. */
  loseAll(cause: MqttError): void {
    this.fruitless = 0
    for (const publication of [...this.pending.values()]) this.end(publication, { status: 'lost', cause })
  }

  /**
   * PUBREL is resent before the PUBLISH of later messages. Otherwise, on a slow link, the flow of these could end first, and the
   * broker would forward them in the wrong order (MQTT 5, 4.6).
   */
  private releasedFirst(): void {
    const { pending } = this
    const publications = [...pending.values()]
    if (!publications.some(({ isReleased }) => isReleased)) return
    for (const publication of publications) {
      if (publication.isReleased) continue
      pending.delete(publication.messageId)
      pending.set(publication.messageId, publication)
    }
  }

  private resumed(): void {
    this.fruitless = this.pending.size > 0 ? this.fruitless + 1 : 0
    if (this.fruitless > FRUITLESS_CONNECTIONS) this.giveUpOldest()
  }

  /** @returns whether it was written */
  private repeat(paced: PacedLink, publication: Publication): boolean {
    if (!publication.isReleased) {
      const { nowMs } = paced
      const isExpired = publication.expiresMs <= nowMs
      const excess = isExpired ? undefined : excessOf(publication.message, paced)
      if (!isExpired && excess === undefined) {
        paced.repeat(messageLeft(publication, nowMs), publication.messageId)
        this.wrote(paced, publication)
        return true
      }
      const outcome: PublishOutcome = excess === undefined ? EXPIRED : { status: 'lost', cause: excess }
      if (publication.message.qos === 1) {
        this.end(publication, outcome)
        return false
      }
      this.settle(publication, outcome)
      // The broker may have received the PUBLISH, and reserves the identifier until PUBREL.
      publication.isReleased = true
    }
    paced.link.send({ cmd: 'pubrel', messageId: publication.messageId })
    this.wrote(paced, publication)
    return true
  }

  private wrote(paced: PacedLink, publication: Publication): void {
    if (!publication.isSent) this.unsent -= 1
    publication.isSent = true
    publication.sentMs = paced.nowMs
    publication.sentBytes = paced.bytes
    if (this.deadline?.isArmed === false) this.deadline.sent()
  }

  private takePubrec(
    publication: Publication,
    packet: Extract<AcknowledgingPacket, { cmd: 'pubrec' }>,
    paced: PacedLink,
  ): boolean {
    const { messageId } = publication
    const reasonCode = packet.reasonCode ?? 0
    // Some brokers send this in response to a PUBLISH with DUP that they accepted on an earlier connection.
    const isKnown = publication.isRepeated && reasonCode === PACKET_IDENTIFIER_IN_USE
    if (reasonCode >= FAILURE && !isKnown) {
      this.end(publication, refusal(reasonCode, packet.properties?.reasonString))
      return true
    }
    publication.isReleased = true
    paced.link.send({ cmd: 'pubrel', messageId })
    this.wrote(paced, publication)
    this.pending.delete(messageId)
    this.pending.set(messageId, publication)
    return false
  }

  /**
   * A broker processes packets in order, so if it closes the connection without a reason, the oldest publish is the likely
   * cause. Resending it again and again would end every connection.
   */
  private giveUpOldest(): void {
    const [oldest] = this.pending.values()
    if (oldest === undefined) return
    const text = `${FRUITLESS_CONNECTIONS} consecutive connections ended before the broker acknowledged this publish`
    this.end(oldest, { status: 'lost', cause: new MqttError('CONNECTION_LOST', text) })
    this.fruitless = 0
  }

  /** The Packet Identifier is free. */
  private end(publication: Publication, outcome: PublishOutcome): void {
    if (!publication.isSent) this.unsent -= 1
    this.packetIds.acknowledged(publication.messageId)
    if (publication.isSettled) return
    this.size -= 1
    this.outcomes.settle(publication, outcome)
  }

  /** Settles a publish whose Packet Identifier remains in use. */
  private settle(publication: Publication, outcome: PublishOutcome): void {
    if (publication.isSettled) return
    this.size -= 1
    this.outcomes.settle(publication, outcome)
  }

  /** The response to the PUBREL of an earlier connection was lost, so 0x92 is not an error (MQTT 5, 3.7.2.1). */
  private isLostPubcomp(
    { isReleaseRepeated }: Publication,
    { cmd, reasonCode }: AcknowledgingPacket,
  ): boolean {
    return cmd === 'pubcomp' && isReleaseRepeated && reasonCode === PACKET_IDENTIFIER_NOT_FOUND
  }
}

const ACKNOWLEDGED: PublishOutcome = { status: 'acknowledged', reasonCode: 0 }
const EXPIRED: PublishOutcome = { status: 'dropped', reason: 'expired' }

/** Otherwise the broker would keep the message of an earlier process, and reserve its identifier (MQTT 5, 4.3.3). */
function releaseUnknown(packet: AcknowledgingPacket, { link }: PacedLink): false {
  const { cmd, messageId = 0, reasonCode = 0 } = packet
  if (cmd === 'pubrec' && messageId > 0 && reasonCode < FAILURE)
    link.send({ cmd: 'pubrel', messageId, reasonCode: PACKET_IDENTIFIER_NOT_FOUND })
  return false
}

function refusal(reasonCode: number, reasonString: string | undefined): PublishOutcome {
  return { status: 'refused', reasonCode, ...(reasonString === undefined ? {} : { reasonString }) }
}

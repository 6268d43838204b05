import { MqttError } from '../../core/errors.js'
import { excessOf } from '../../core/outbound/outbound-gate.js'
import type {
  OutboundMessage,
  Pending,
  Publication,
  PublishObserver,
} from '../../core/outbound/outbound-message.js'
import { messageLeft, pubcompCode, SECOND_MS, unacknowledged } from '../../core/outbound/pending-publish.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import type { PacketIds } from '../../core/protocol/packet-ids.js'
import type { OutboundOptions } from '../../options/options.js'
import { AckDeadline } from '../connection/ack-deadline.js'
import type { AcknowledgingPacket } from '../connection/link.js'
import type { PacedLink } from './paced-link.js'

export interface InFlightObserver {
  settle(publication: Publication, outcome: PublishOutcome): void
}

/** Consecutive resumed connections without any acknowledgement after which the oldest publish is `lost`. */
const FRUITLESS_CONNECTIONS = 10
const FAILURE = 0x80
const PACKET_IDENTIFIER_IN_USE = 0x91
/** The slowest link that a large message is given time for, in bytes per millisecond. */
const SLOWEST_LINK = 1

/**
 * QoS 1 and 2 publishes that the broker has not acknowledged: over a loss in a kept session, and until the
 * session is resumed or forgotten.
 */
export class InFlight {
  /** In the order in which PUBLISH, or else PUBREL, was written. */
  private readonly pending = new Map<number, Pending>()
  /** Publishes that nobody has given up. */
  size = 0
  /** How many of the pending were not sent on the present connection. */
  unsent = 0
  /** Where sending again goes on. */
  private next: IterableIterator<Pending> | undefined
  private fruitless = 0
  /** How many may be unacknowledged on this connection. */
  private mostPending = 0
  private deadline: AckDeadline<Pending> | undefined

  constructor(
    private readonly packetIds: PacketIds,
    private readonly options: Pick<Required<OutboundOptions>, 'maxInFlight' | 'ackTimeoutMs'>,
    private readonly observer: InFlightObserver,
    private readonly connection: Pick<PublishObserver, 'onUnacknowledged'>,
  ) {}

  /** Whether the broker has acknowledged nothing for half of the time after which the connection is given up. */
  get isLate(): boolean {
    return this.deadline?.isLate === true
  }

  /** Whether one more may be sent: not before what a resumed session left open. */
  hasRoom(): boolean {
    return this.unsent === 0 && this.pending.size < this.mostPending
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
    const { nowMs } = paced
    const seconds = message.properties?.messageExpiryInterval
    const pending: Pending = {
      publication,
      messageId,
      message,
      expiresMs: seconds === undefined ? undefined : nowMs + seconds * SECOND_MS,
      sentMs: nowMs,
      sentBytes: paced.bytes,
      isReleased: false,
      isReleaseRepeated: false,
      isSent: true,
      isRepeated: false,
    }
    this.pending.set(messageId, pending)
    publication.pending = pending
    this.size += 1
    if (this.deadline?.isArmed === false) this.deadline.sent()
    return true
  }

  /** What is sent stays sent; nobody waits for its acknowledgement any more. @returns whether it was in flight */
  giveUp({ pending }: Publication): boolean {
    if (pending === undefined) return false
    this.forget(pending)
    return true
  }

  /** Takes the broker's acknowledgement. @returns whether a publish is over, so that another one may be sent */
  acknowledged(packet: AcknowledgingPacket, paced: PacedLink): boolean {
    const pending = packet.messageId === undefined ? undefined : this.pending.get(packet.messageId)
    // An acknowledgement of a packet that this connection has not sent cannot be trusted.
    if (!pending?.isSent) return false
    this.fruitless = 0
    if (this.deadline !== undefined) this.deadline.acknowledgedMs = paced.nowMs
    const isQoS2 = pending.message.qos === 2
    if (packet.cmd === 'pubrec') return isQoS2 && this.takePubrec(pending, packet, paced)
    // Some brokers do QoS 1 where they are asked for QoS 2, and send PUBACK.
    if (packet.cmd === 'puback' ? pending.isReleased : !isQoS2) return false
    const reasonCode = packet.cmd === 'puback' ? (packet.reasonCode ?? 0) : pubcompCode(packet, pending)
    if (reasonCode < FAILURE) this.end(pending, { status: 'acknowledged', reasonCode })
    else this.end(pending, refusal(reasonCode, packet.properties?.reasonString))
    return true
  }

  /** @param isResumed whether the broker goes on with the session */
  connected(paced: PacedLink, isResumed: boolean): void {
    if (isResumed) this.resumed()
    else
      this.loseAll(
        new MqttError('CONNECTION_LOST', 'the broker lost the session before it acknowledged the publish'),
      )
    const { ackTimeoutMs, maxInFlight } = this.options
    this.mostPending = Math.min(maxInFlight, paced.limits.receiveMaximum)
    this.deadline = new AckDeadline(paced.link, ackTimeoutMs, {
      oldest: () => this.oldest(),
      extraMs: ({ sentBytes }) => Math.max(0, sentBytes - paced.readBytes) / SLOWEST_LINK,
      onOverdue: oldest =>
        this.connection.onUnacknowledged(unacknowledged(oldest, ackTimeoutMs, this.pending.size)),
    })
  }

  /**
   * What a resumed session left open, in order, with DUP and its Packet Identifier (MQTT 5, 4.4); no more of it
   * than the broker takes at once, and than the link carries soon.
   */
  resend(paced: PacedLink): void {
    let room = paced.limits.receiveMaximum - (this.pending.size - this.unsent)
    while (this.unsent > 0 && room > 0 && paced.isOpen()) {
      this.next ??= this.pending.values()
      const { value: pending } = this.next.next()
      if (pending === undefined) {
        this.next = undefined
        return
      }
      if (!pending.isSent && this.repeat(paced, pending)) room -= 1
    }
  }

  /** The connection is gone. @param isKept whether the session may be resumed */
  lost(cause: MqttError, isKept: boolean): void {
    this.deadline?.stop()
    this.deadline = undefined
    if (!isKept) return this.loseAll(cause)
    for (const pending of this.pending.values()) {
      pending.isRepeated ||= pending.isSent
      pending.isReleaseRepeated ||= pending.isSent && pending.isReleased
      pending.isSent = false
    }
    this.unsent = this.pending.size
    this.next = undefined
  }

  /** The session has ended, so no acknowledgement will arrive. */
  loseAll(cause: MqttError): void {
    this.fruitless = 0
    for (const pending of [...this.pending.values()]) this.end(pending, { status: 'lost', cause })
  }

  private oldest(): Pending | undefined {
    for (const pending of this.pending.values()) if (pending.isSent) return pending
    return undefined
  }

  private resumed(): void {
    this.fruitless = this.pending.size > 0 ? this.fruitless + 1 : 0
    if (this.fruitless > FRUITLESS_CONNECTIONS) this.giveUpOldest()
  }

  /** @returns whether it was written */
  private repeat(paced: PacedLink, pending: Pending): boolean {
    if (!pending.isReleased) {
      const { nowMs } = paced
      const isExpired = pending.expiresMs !== undefined && pending.expiresMs <= nowMs
      const excess = isExpired ? undefined : excessOf(pending.message, paced)
      if (!isExpired && excess === undefined) {
        paced.repeat(messageLeft(pending, nowMs), pending.messageId)
        this.wrote(paced, pending)
        return true
      }
      const outcome: PublishOutcome = excess === undefined ? EXPIRED : { status: 'lost', cause: excess }
      if (pending.message.qos === 1) {
        this.end(pending, outcome)
        return false
      }
      this.abandon(pending, outcome)
      // The broker may have taken the PUBLISH, and holds the identifier until it is released.
      pending.isReleased = true
    }
    paced.link.send({ cmd: 'pubrel', messageId: pending.messageId })
    this.wrote(paced, pending)
    return true
  }

  private wrote(paced: PacedLink, pending: Pending): void {
    if (!pending.isSent) this.unsent -= 1
    pending.isSent = true
    pending.sentMs = paced.nowMs
    pending.sentBytes = paced.bytes
    if (this.deadline?.isArmed === false) this.deadline.sent()
  }

  private takePubrec(
    pending: Pending,
    packet: Extract<AcknowledgingPacket, { cmd: 'pubrec' }>,
    paced: PacedLink,
  ): boolean {
    const { messageId } = pending
    const reasonCode = packet.reasonCode ?? 0
    // Some brokers respond like this to a PUBLISH with DUP that they accepted on an earlier connection.
    const isKnown = pending.isRepeated && reasonCode === PACKET_IDENTIFIER_IN_USE
    if (reasonCode >= FAILURE && !isKnown) {
      this.end(pending, refusal(reasonCode, packet.properties?.reasonString))
      return true
    }
    pending.isReleased = true
    paced.link.send({ cmd: 'pubrel', messageId })
    this.wrote(paced, pending)
    this.pending.delete(messageId)
    this.pending.set(messageId, pending)
    return false
  }

  /**
   * A broker reads in order, so what it hangs up on without a word is the oldest publish. Sent again for ever, it
   * would end every connection.
   */
  private giveUpOldest(): void {
    const [oldest] = this.pending.values()
    if (oldest === undefined) return
    const text = `${FRUITLESS_CONNECTIONS} consecutive connections ended before the broker acknowledged this publish`
    this.end(oldest, { status: 'lost', cause: new MqttError('CONNECTION_LOST', text) })
    this.fruitless = 0
  }

  /** The Packet Identifier is free, and nobody waits for it any more. */
  private end(pending: Pending, outcome: PublishOutcome): void {
    if (!pending.isSent) this.unsent -= 1
    this.pending.delete(pending.messageId)
    this.packetIds.release(pending.messageId)
    this.abandon(pending, outcome)
  }

  /** Settles a publish whose Packet Identifier is still in use. */
  private abandon(pending: Pending, outcome: PublishOutcome): void {
    const { publication } = pending
    if (publication === undefined) return
    this.forget(pending)
    this.observer.settle(publication, outcome)
  }

  /** Nobody waits for it any more. */
  private forget(pending: Pending): void {
    if (pending.publication === undefined) return
    pending.publication.pending = undefined
    pending.publication = undefined
    this.size -= 1
  }
}

const EXPIRED: PublishOutcome = { status: 'dropped', reason: 'expired' }

function refusal(reasonCode: number, reasonString: string | undefined): PublishOutcome {
  return { status: 'refused', reasonCode, ...(reasonString === undefined ? {} : { reasonString }) }
}

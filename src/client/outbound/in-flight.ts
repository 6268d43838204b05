import { MqttError } from '../../core/errors.js'
import { excessOf } from '../../core/outbound/outbound-gate.js'
import type { OutboundMessage, Publication } from '../../core/outbound/outbound-message.js'
import {
  expiresMs,
  messageLeft,
  type Pending,
  pubcompCode,
  unacknowledged,
} from '../../core/outbound/pending-publish.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import type { PacketIds } from '../../core/protocol/packet-ids.js'
import type { OutboundOptions } from '../../options/options.js'
import { AckDeadline } from '../connection/ack-deadline.js'
import type { Packet } from '../connection/link.js'
import type { PacedLink } from './paced-link.js'

export interface InFlightObserver {
  settled(publication: Publication, outcome: PublishOutcome): void
  /** The broker acknowledges nothing on this connection, which is to be given up. */
  onUnacknowledged(cause: MqttError): void
}

/** Resumed connections in a row that ended without an answer to anything; then the oldest publish is given up. */
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
  private readonly identifiers = new Map<Publication, number>()
  /** How many of the pending were not sent on the present connection. */
  private unsent = 0
  /** Where sending again goes on. */
  private next: IterableIterator<Pending> | undefined
  private fruitless = 0
  private deadline: AckDeadline<Pending> | undefined

  constructor(
    private readonly packetIds: PacketIds,
    private readonly options: Pick<Required<OutboundOptions>, 'maxInFlight' | 'ackTimeoutMs'>,
    private readonly observer: InFlightObserver,
  ) {}

  /** Publishes that nobody has given up. */
  get size(): number {
    return this.identifiers.size
  }

  /** Whether the broker has acknowledged nothing for half of the time after which the connection is given up. */
  get isLate(): boolean {
    return this.deadline?.isLate === true
  }

  /** Whether one more may be sent: not before what a resumed session left open. */
  hasRoom(receiveMaximum: number): boolean {
    return this.unsent === 0 && this.pending.size < Math.min(this.options.maxInFlight, receiveMaximum)
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
    this.pending.set(messageId, {
      publication,
      messageId,
      message,
      expiresMs: expiresMs(message, paced.nowMs),
      sentMs: paced.nowMs,
      sentBytes: paced.bytes,
      isReleased: false,
      isReleaseRepeated: false,
      isSent: true,
      isRepeated: false,
    })
    this.identifiers.set(publication, messageId)
    this.deadline?.sent()
    return true
  }

  /** What is sent stays sent; nobody waits for its answer any more. @returns whether it was in flight */
  giveUp(publication: Publication): boolean {
    const messageId = this.identifiers.get(publication)
    const pending = messageId === undefined ? undefined : this.pending.get(messageId)
    if (pending === undefined) return false
    this.forget(pending)
    return true
  }

  /** Takes the broker's answer. @returns whether something has settled */
  answered(packet: Packet, paced: PacedLink): boolean {
    const messageId = packet.messageId
    const pending = messageId === undefined ? undefined : this.pending.get(messageId)
    // An answer to a packet that this connection has not sent cannot be trusted.
    if (!pending?.isSent) return false
    this.fruitless = 0
    this.deadline?.answered(paced.nowMs)
    const { qos } = pending.message
    if (packet.cmd === 'pubrec' && qos === 2) return this.takePubrec(pending, packet, paced)
    if (packet.cmd === 'pubcomp' && qos === 2)
      return this.settle(pending, pubcompCode(packet, pending), packet.properties?.reasonString)
    // Some brokers do QoS 1 where they are asked for QoS 2, and send PUBACK.
    if (packet.cmd === 'puback' && !pending.isReleased)
      return this.settle(pending, packet.reasonCode ?? 0, packet.properties?.reasonString)
    return false
  }

  /** @param isResumed whether the broker goes on with the session */
  connected(paced: PacedLink, isResumed: boolean): void {
    if (isResumed) this.resumed()
    else
      this.loseAll(
        new MqttError('CONNECTION_LOST', 'the broker forgot the session before it acknowledged the publish'),
      )
    const { ackTimeoutMs } = this.options
    this.deadline = new AckDeadline(paced.link, ackTimeoutMs, {
      oldest: () => this.oldest(),
      extraMs: ({ sentBytes }) => Math.max(0, sentBytes - paced.readBytes) / SLOWEST_LINK,
      onOverdue: oldest =>
        this.observer.onUnacknowledged(unacknowledged(oldest, ackTimeoutMs, this.pending.size)),
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

  /** The session is gone: no answer will come. */
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
      if (isExpired) this.forget(pending, EXPIRED)
      else if (excess !== undefined) this.forget(pending, { status: 'lost', cause: excess })
      else {
        paced.repeat(messageLeft(pending, nowMs), pending.messageId)
        this.wrote(paced, pending)
        return true
      }
      if (pending.message.qos === 1) {
        this.remove(pending)
        return false
      }
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
    this.deadline?.sent()
  }

  private takePubrec(
    pending: Pending,
    packet: Extract<Packet, { cmd: 'pubrec' }>,
    paced: PacedLink,
  ): boolean {
    const { messageId } = pending
    const reasonCode = packet.reasonCode ?? 0
    // Some brokers answer so to a PUBLISH with DUP that they have taken on the earlier connection.
    const isKnown = pending.isRepeated && reasonCode === PACKET_IDENTIFIER_IN_USE
    if (reasonCode >= FAILURE && !isKnown)
      return this.settle(pending, reasonCode, packet.properties?.reasonString)
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
    const text = `${FRUITLESS_CONNECTIONS} connections in a row ended before the broker answered this publish`
    this.end(oldest, { status: 'lost', cause: new MqttError('CONNECTION_LOST', text) })
    this.fruitless = 0
  }

  private settle(pending: Pending, reasonCode: number, reasonString?: string): true {
    if (reasonCode < FAILURE) this.end(pending, { status: 'acknowledged', reasonCode })
    else {
      const said = reasonString === undefined ? {} : { reasonString }
      this.end(pending, { status: 'refused', reasonCode, ...said })
    }
    return true
  }

  private end(pending: Pending, outcome: PublishOutcome): void {
    this.remove(pending)
    this.forget(pending, outcome)
  }

  /** The Packet Identifier is free. */
  private remove({ messageId, isSent }: Pending): void {
    if (!isSent) this.unsent -= 1
    this.pending.delete(messageId)
    this.packetIds.release(messageId)
  }

  /** Nobody waits for it any more. */
  private forget(pending: Pending, outcome?: PublishOutcome): void {
    const { publication } = pending
    if (publication === undefined) return
    pending.publication = undefined
    this.identifiers.delete(publication)
    if (outcome !== undefined) this.observer.settled(publication, outcome)
  }
}

const EXPIRED: PublishOutcome = { status: 'dropped', reason: 'expired' }

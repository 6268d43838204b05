import { MqttError } from '../../errors.js'
import type { DropReason, PublishOutcome, TryPublishOutcome } from '../../publish-outcome.js'
import type { BrokerLimits } from '../connection/broker-limits.js'
import type { ConnectedSession, ConnectionState } from '../connection/connection-state.js'
import type { Link, Packet, PublishPacket } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import type { PacketIds } from '../connection/packet-ids.js'
import { assertWithinLimits, dropReason } from './outbound-gate.js'
import type { OutboundCounters, OutboundMessage } from './outbound-message.js'

interface Pending {
  readonly packet: PublishPacket
  readonly settle: (outcome: PublishOutcome) => void
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
 * Sends messages and tells how each ended. Nothing waits here but what the broker has not acknowledged: over a
 * loss in a kept session, and until the session is resumed or forgotten.
 */
export class Publisher implements ConnectionListener {
  private readonly pending = new Map<number, Pending>()
  /** How many of the pending were not sent on the present connection. */
  private unsent = 0
  private current: { readonly link: Link; readonly limits: BrokerLimits } | undefined
  private isClosing = false
  private fruitless = 0
  private idleWaiters: (() => void)[] = []
  private readonly counted = { attempted: 0, sent: 0, acknowledged: 0, refused: 0, lost: 0 }
  private readonly dropped: Record<DropReason, number> = {
    offline: 0,
    backlog: 0,
    'in-flight-full': 0,
    closed: 0,
  }

  constructor(
    private readonly packetIds: PacketIds,
    private readonly maxInFlight: number,
    /** The broker keeps the session of this client at the end of a connection. */
    private readonly keepsSession: boolean,
  ) {}

  get counters(): OutboundCounters {
    return { ...this.counted, inFlight: this.pending.size, dropped: { ...this.dropped } }
  }

  /**
   * QoS 0 settles at once, QoS 1 and 2 with the broker's answer or the end of the connection.
   * @throws MqttError when the broker said beforehand that it does not take such a message
   */
  publish(message: OutboundMessage): PublishOutcome | Promise<PublishOutcome> {
    const { current } = this
    const reason = dropReason(this.situation(), message.qos)
    if (reason !== undefined || current === undefined) return this.drop(reason ?? 'offline')
    const { link, limits } = current
    if (message.qos > 0) return this.sendAcknowledged(link, limits, message)
    this.transmit(link, limits, message, undefined)
    this.counted.sent += 1
    return { status: 'sent' }
  }

  /** QoS 0 without a promise. @throws MqttError as `publish` does */
  tryPublish(message: OutboundMessage): TryPublishOutcome {
    const { current } = this
    const reason = dropReason(this.situation(), 0)
    if (reason !== undefined || current === undefined) return this.drop(reason ?? 'offline')
    this.transmit(current.link, current.limits, message, undefined)
    this.counted.sent += 1
    return { status: 'accepted' }
  }

  /** From now on every publish is `dropped: closed`, and what is pending is `lost`. */
  close(): void {
    this.isClosing = true
    this.loseAll(closedError())
  }

  /** Resolves when nothing waits for the broker's answer. */
  whenIdle(): Promise<void> {
    if (this.pending.size === 0) return Promise.resolve()
    return new Promise(resolve => this.idleWaiters.push(resolve))
  }

  stateChanged(state: ConnectionState): void {
    if (state.status === 'connecting') this.isClosing = false
    if (state.status !== 'closed') return
    this.isClosing = true
    this.loseAll(state.cause ?? closedError())
  }

  connected(link: Link, session: ConnectedSession): void {
    this.current = { link, limits: session.limits }
    this.fruitless = session.sessionPresent && this.pending.size > 0 ? this.fruitless + 1 : 0
    if (this.fruitless > FRUITLESS_CONNECTIONS) this.giveUpOldest()
    if (session.sessionPresent) this.resend()
    else this.loseAll(new MqttError('CONNECTION_LOST', 'the broker forgot the session before it answered'))
  }

  lost(cause: MqttError): void {
    this.current = undefined
    for (const pending of this.pending.values()) {
      pending.isRepeated ||= pending.isSent
      pending.isSent = false
    }
    this.unsent = this.pending.size
    if (!this.keepsSession || this.isClosing) this.loseAll(cause)
  }

  answered(packet: Packet): void {
    const messageId = packet.messageId
    const pending = messageId === undefined ? undefined : this.pending.get(messageId)
    // An answer to a packet that this connection has not sent cannot be trusted.
    if (messageId === undefined || !pending?.isSent) return
    this.fruitless = 0
    const { qos } = pending.packet
    if (packet.cmd === 'pubrec' && qos === 2) this.takePubrec(messageId, pending, packet)
    else if (packet.cmd === 'pubcomp' && qos === 2) {
      this.settle(messageId, pending, pubcompCode(packet, pending), packet.properties?.reasonString)
    } else if (packet.cmd === 'puback' && qos === 1) {
      this.settle(messageId, pending, packet.reasonCode ?? 0, packet.properties?.reasonString)
    }
  }

  private takePubrec(messageId: number, pending: Pending, packet: Extract<Packet, { cmd: 'pubrec' }>): void {
    const reasonCode = packet.reasonCode ?? 0
    // Some brokers answer so to a PUBLISH with DUP that they have taken on the earlier connection.
    const isKnown = pending.isRepeated && reasonCode === PACKET_IDENTIFIER_IN_USE
    if (reasonCode >= FAILURE && !isKnown)
      return this.settle(messageId, pending, reasonCode, packet.properties?.reasonString)
    pending.isReceived = true
    this.current?.link.send({ cmd: 'pubrel', messageId })
  }

  /**
   * What a resumed session left open, in order, with DUP and its Packet Identifier (MQTT 5, 4.4); no more of it
   * than the broker takes at once.
   */
  private resend(): void {
    const { current } = this
    if (current === undefined || this.unsent === 0) return
    let room = current.limits.receiveMaximum - (this.pending.size - this.unsent)
    for (const [messageId, pending] of [...this.pending]) {
      if (room <= 0) return
      if (pending.isSent || !this.pending.has(messageId)) continue
      const excess = pending.isReceived
        ? undefined
        : this.excess(current.link, current.limits, pending.packet)
      if (excess !== undefined) {
        this.lose(messageId, pending, excess)
        continue
      }
      room -= 1
      pending.isSent = true
      this.unsent -= 1
      if (pending.isReceived) current.link.send({ cmd: 'pubrel', messageId })
      else current.link.send({ ...pending.packet, dup: true })
    }
  }

  /**
   * A broker reads in order, so what it hangs up on without a word is the oldest publish. Sent again for ever, it
   * would end every connection.
   */
  private giveUpOldest(): void {
    const [oldest] = this.pending
    if (oldest === undefined) return
    const text = `${FRUITLESS_CONNECTIONS} connections in a row ended before the broker answered this publish`
    this.lose(...oldest, new MqttError('CONNECTION_LOST', text))
    this.fruitless = 0
  }

  /** Why a resumed connection does not take what an earlier one did: sending it would end each connection anew. */
  private excess(link: Link, limits: BrokerLimits, packet: PublishPacket): MqttError | undefined {
    try {
      const isBounded = Number.isFinite(limits.maximumPacketSize)
      assertWithinLimits({ ...packet, bytes: isBounded ? link.sizeOf(packet) : 0 }, limits)
      return undefined
    } catch (error) {
      return error instanceof MqttError ? error : undefined
    }
  }

  private situation() {
    const { current } = this
    return {
      isClosing: this.isClosing,
      isConnected: current?.link.isWritable() ?? false,
      isCongested: current?.link.isCongested() ?? false,
      inFlight: this.pending.size,
      maxInFlight: Math.min(this.maxInFlight, current?.limits.receiveMaximum ?? this.maxInFlight),
    }
  }

  private sendAcknowledged(
    link: Link,
    limits: BrokerLimits,
    message: OutboundMessage,
  ): PublishOutcome | Promise<PublishOutcome> {
    const messageId = this.packetIds.allocate()
    if (messageId === undefined) return this.drop('in-flight-full')
    try {
      const packet = this.transmit(link, limits, message, messageId)
      return new Promise(settle =>
        this.pending.set(messageId, { packet, settle, isReceived: false, isSent: true, isRepeated: false }),
      )
    } catch (error) {
      this.packetIds.release(messageId)
      throw error
    }
  }

  private transmit(
    link: Link,
    limits: BrokerLimits,
    message: OutboundMessage,
    messageId: number | undefined,
  ): PublishPacket {
    const packet: PublishPacket = {
      cmd: 'publish',
      dup: false,
      ...message,
      ...(messageId === undefined ? {} : { messageId }),
    }
    const isBounded = Number.isFinite(limits.maximumPacketSize)
    assertWithinLimits({ ...message, bytes: isBounded ? link.sizeOf(packet) : 0 }, limits)
    link.send(packet)
    this.counted.attempted += 1
    return packet
  }

  private drop(reason: DropReason): { readonly status: 'dropped'; readonly reason: DropReason } {
    this.counted.attempted += 1
    this.dropped[reason] += 1
    return { status: 'dropped', reason }
  }

  private settle(messageId: number, pending: Pending, reasonCode: number, reasonString?: string): void {
    this.remove(messageId)
    this.resend()
    if (reasonCode < FAILURE) {
      this.counted.acknowledged += 1
      pending.settle({ status: 'acknowledged', reasonCode })
    } else {
      this.counted.refused += 1
      pending.settle({
        status: 'refused',
        reasonCode,
        ...(reasonString === undefined ? {} : { reasonString }),
      })
    }
  }

  private loseAll(cause: MqttError): void {
    for (const [messageId, pending] of [...this.pending]) {
      this.lose(messageId, pending, cause)
    }
  }

  private lose(messageId: number, pending: Pending, cause: MqttError): void {
    this.remove(messageId)
    this.counted.lost += 1
    pending.settle({ status: 'lost', cause })
  }

  private remove(messageId: number): void {
    if (this.pending.get(messageId)?.isSent === false) this.unsent -= 1
    this.pending.delete(messageId)
    this.packetIds.release(messageId)
    if (this.pending.size > 0) return
    const waiters = this.idleWaiters
    this.idleWaiters = []
    for (const wake of waiters) wake()
  }
}

/** The answer to the PUBREL of an earlier connection was lost: 0x92 is no error then (MQTT 5, 3.7.2.1). */
function pubcompCode(packet: Extract<Packet, { cmd: 'pubcomp' }>, pending: Pending): number {
  const reasonCode = packet.reasonCode ?? 0
  return pending.isReceived && reasonCode === PACKET_IDENTIFIER_NOT_FOUND ? 0 : reasonCode
}

function closedError(): MqttError {
  return new MqttError(
    'CONNECTION_CLOSED',
    'the application closed the connection before the broker answered',
  )
}

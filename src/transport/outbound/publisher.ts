import { MqttError } from '../../errors.js'
import type { DropReason, PublishOutcome, TryPublishOutcome } from '../../publish-outcome.js'
import type { BrokerLimits } from '../connection/broker-limits.js'
import type { ConnectedSession } from '../connection/connection-state.js'
import type { Link, Packet, PublishPacket, PublishProperties } from '../connection/mqtt-client.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import type { PacketIds } from '../connection/packet-ids.js'
import { assertWithinLimits, dropReason } from './outbound-gate.js'

export interface OutboundMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  /** Sent on MQTT 5 only. */
  readonly properties?: PublishProperties
}

export interface OutboundCounters {
  readonly attempted: number
  readonly sent: number
  readonly acknowledged: number
  readonly refused: number
  readonly lost: number
  readonly inFlight: number
  readonly dropped: Readonly<Record<DropReason, number>>
}

interface Pending {
  readonly qos: 0 | 1 | 2
  readonly settle: (outcome: PublishOutcome) => void
}

const FAILURE = 0x80

/** Sends messages and tells how each ended. Nothing waits here but what the broker has not acknowledged. */
export class Publisher implements ConnectionListener {
  private readonly pending = new Map<number, Pending>()
  private current: { readonly link: Link; readonly limits: BrokerLimits } | undefined
  private isClosing = false
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
    this.loseAll(
      new MqttError('CONNECTION_CLOSED', 'the application closed the connection before the broker answered'),
    )
  }

  /** Resolves when nothing waits for the broker's answer. */
  whenIdle(): Promise<void> {
    if (this.pending.size === 0) return Promise.resolve()
    return new Promise(resolve => this.idleWaiters.push(resolve))
  }

  connected(link: Link, session: ConnectedSession): void {
    this.current = { link, limits: session.limits }
  }

  lost(cause: MqttError): void {
    this.current = undefined
    this.loseAll(cause)
  }

  answered(packet: Packet): void {
    const messageId = packet.messageId
    const pending = messageId === undefined ? undefined : this.pending.get(messageId)
    if (messageId === undefined || pending === undefined) return
    const isLast = packet.cmd === 'pubcomp' || (packet.cmd === 'puback' && pending.qos === 1)
    if (packet.cmd === 'pubrec' && pending.qos === 2) {
      if ((packet.reasonCode ?? 0) < FAILURE) this.current?.link.send({ cmd: 'pubrel', messageId })
      else this.settle(messageId, pending, packet.reasonCode ?? FAILURE, packet.properties?.reasonString)
    } else if (isLast) {
      this.settle(messageId, pending, packet.reasonCode ?? 0, packet.properties?.reasonString)
    }
  }

  private situation() {
    const { current } = this
    return {
      isClosing: this.isClosing,
      isConnected: current !== undefined,
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
      this.transmit(link, limits, message, messageId)
    } catch (error) {
      this.packetIds.release(messageId)
      throw error
    }
    return new Promise(resolve => this.pending.set(messageId, { qos: message.qos, settle: resolve }))
  }

  private transmit(
    link: Link,
    limits: BrokerLimits,
    message: OutboundMessage,
    messageId: number | undefined,
  ): void {
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
  }

  private drop(reason: DropReason): { readonly status: 'dropped'; readonly reason: DropReason } {
    this.counted.attempted += 1
    this.dropped[reason] += 1
    return { status: 'dropped', reason }
  }

  private settle(messageId: number, pending: Pending, reasonCode: number, reasonString?: string): void {
    this.remove(messageId)
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
      this.remove(messageId)
      this.counted.lost += 1
      pending.settle({ status: 'lost', cause })
    }
  }

  private remove(messageId: number): void {
    this.pending.delete(messageId)
    this.packetIds.release(messageId)
    if (this.pending.size > 0) return
    const waiters = this.idleWaiters
    this.idleWaiters = []
    for (const wake of waiters) wake()
  }
}

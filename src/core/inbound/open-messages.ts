import type { PublishPacket } from '../protocol/packets.js'
import { InboundCount, type InboundCounters, type RunOutcome } from './inbound-count.js'

/** Approximate size of the objects that hold a message. */
const OVERHEAD_BYTES = 512

/** Approximate memory use of a message, in bytes. */
export function bytesOf({ length, topic, payload }: PublishPacket): number {
  return OVERHEAD_BYTES + (length ?? topic.length + payload.length)
}

/** A message, as far as its size matters. */
interface Sized {
  readonly bytes: number
  /** Its bytes count as held. */
  isHeld: boolean
}

/** Bytes of messages between the parser and the end of their handlers, as far as they are in this process. */
export class HeldBytes {
  private held = 0

  constructor(
    private readonly most: number,
    /** QoS 2 messages that the broker has not released. */
    readonly unreleased: { readonly count: number; readonly bytes: number },
  ) {}

  get bytes(): number {
    return this.held + this.unreleased.bytes
  }

  /** Whether more is held than may be, and room can come by what handlers do. */
  get isOver(): boolean {
    return this.held > 0 && this.held + this.unreleased.bytes > this.most
  }

  /** Whether more waits for the broker to release it than may be held: only the broker can make room. */
  get isHopeless(): boolean {
    return this.unreleased.bytes > this.most && this.unreleased.count > 1
  }

  /** Whether there is no room for one that is held already. A single message is taken whatever its size is. */
  hasNoRoomFor(bytes: number): boolean {
    return this.isOver && this.bytes > bytes
  }

  /** As much of it as one loop may hold of QoS 0, which nobody may ever read. */
  get shareOfLoop(): number {
    return this.most / 4
  }

  /** A message came. @returns whether more is held than may be */
  hold(message: Sized): boolean {
    if (!message.isHeld) this.held += message.bytes
    message.isHeld = true
    return this.held + this.unreleased.bytes > this.most
  }

  /** Nothing holds the message any more. */
  release(message: Sized): void {
    if (message.isHeld) this.held -= message.bytes
    message.isHeld = false
  }

  /** A loop holds so much of QoS 0, which is done for the dispatcher. */
  add(bytes: number): void {
    this.held += bytes
  }

  remove(bytes: number): void {
    this.held -= bytes
  }
}

/** A message that this process has taken from the broker. */
export interface OpenMessage {
  readonly packet: PublishPacket
  readonly bytes: number
  /** Its bytes count as held. */
  isHeld: boolean
  /** The gravest outcome of its handlers so far. */
  readonly outcome: RunOutcome
  /** Handlers that have begun. */
  readonly started: number
  /** All handlers have ended. */
  isDone: boolean
  /** Number of the connection by which it came, if it is of QoS 1; otherwise 0. */
  connection: number
  /** It is handled, and its acknowledgement leaves when those of all messages before it have. */
  mayBeAcknowledged: boolean
  /** Whether a packet is this message once more. */
  isSameAs(packet: PublishPacket): boolean
}

/**
 * The messages from their arrival to their acknowledgement. Acknowledgements leave in the order in which the messages came
 * [MQTT-4.6.0-2], however their handlers end, and never on a later connection than the one by which a message came.
 *
 * After a loss the broker of a kept session sends again what was not acknowledged, with its Packet Identifier and DUP (MQTT
 * 5, 4.4). A message whose handlers have begun is not handled again for that.
 */
export class OpenMessages<M extends OpenMessage> {
  readonly count = new InboundCount()
  /** Messages that are not done, in the order in which they came. */
  readonly open = new Set<M>()
  /** Those of QoS 2: the broker has handed them over, and does not wait for them. */
  qos2 = 0
  /** QoS 1 messages of the present connection whose acknowledgement has not left, in order. */
  unacknowledged: M[] = []
  /** QoS 1 messages that came, over all connections. */
  added = 0
  /** Left from a lost connection: the next one says whether the broker sends them again. */
  private parked: M[] = []
  /** Messages of earlier connections that the broker sends again, by Packet Identifier. */
  readonly expected = new Map<number, M>()
  private connection = 1

  constructor(
    readonly held: HeldBytes,
    /** The broker keeps the session of this client at the end of a connection. */
    private readonly keepsSession: boolean,
  ) {}

  get counters(): Omit<InboundCounters, 'oldestUnacknowledgedMs'> {
    let running = 0
    for (const { started } of this.open) if (started > 0) running += 1
    return {
      ...this.count.counts,
      unreleased: this.held.unreleased.count,
      queuedBytes: this.held.bytes,
      waiting: this.open.size - running + this.parked.length,
      running,
    }
  }

  /** A message came. @returns whether more bytes are held than may be */
  add(message: M): boolean {
    const { qos } = message.packet
    if (qos === 1) {
      message.connection = this.connection
      this.unacknowledged.push(message)
      this.added += 1
    } else if (qos === 2) this.qos2 += 1
    this.open.add(message)
    return this.held.hold(message)
  }

  /**
   * Whether a QoS 1 packet brings a message again that waits for its acknowledgement, or that a handler has, or had, before
   * the connection was lost. If so, nothing is left to do but to acknowledge what `take` returns.
   */
  repeats(packet: PublishPacket): boolean {
    // Without DUP the broker reuses the identifier too early: both messages are handled, since none may be lost.
    const isOwed = packet.dup && this.unacknowledged.some(message => isAgain(message, packet))
    const message = isOwed ? undefined : this.claim(packet)
    if (!isOwed && message === undefined) return false
    this.count.counts.repeated += 1
    if (message === undefined) return true
    message.connection = this.connection
    this.unacknowledged.push(message)
    this.added += 1
    if (message.isDone) this.held.hold(message)
    return true
  }

  /** All handlers of the message have ended. @returns whether `take` may find something */
  finish(message: M): boolean {
    const { outcome, packet } = message
    if (!this.open.delete(message)) return false
    if (packet.qos === 2) this.qos2 -= 1
    message.isDone = true
    message.mayBeAcknowledged = outcome !== 'givenBack'
    if (outcome === 'givenBack') this.giveBack(message)
    else {
      if (outcome === 'handled') this.count.counts.handled += 1
      else this.count.done(outcome)
      if (message.connection === this.connection) return true
      this.held.release(message)
    }
    return false
  }

  /** Takes out the message that is to be acknowledged now, if there is one. */
  take(): M | undefined {
    const [first] = this.unacknowledged
    if (first === undefined || !first.mayBeAcknowledged) return undefined
    this.unacknowledged.shift()
    this.held.release(first)
    return first
  }

  /** A message of which no handler has begun is not handled. @param outcome not given if it is only parked */
  withdraw(message: M, outcome: RunOutcome | undefined): void {
    if (this.open.delete(message) && message.packet.qos === 2) this.qos2 -= 1
    if (outcome === undefined) return void this.parked.push(message)
    this.held.release(message)
    this.count.done(outcome)
  }

  /** Whether the broker delivers the message again. */
  canGiveBack(message: M): boolean {
    return this.keepsSession && message.connection !== 0
  }

  /** Messages of which no handler has begun, and whose acknowledgement does not stand before that of one that has. */
  behindStarted(): M[] {
    let last = -1
    for (const message of this.open) if (message.started > 0) last = Math.max(last, this.positionOf(message))
    return [...this.open].filter(message => message.started === 0 && this.positionOf(message) > last)
  }

  /** The connection is gone. */
  lost(): void {
    const { unacknowledged } = this
    this.unacknowledged = []
    this.connection += 1
    for (const message of unacknowledged) {
      if (message.isDone) this.held.release(message)
      if (this.keepsSession && (message.started > 0 || message.isDone))
        this.expected.set(message.packet.messageId ?? 0, message)
    }
  }

  /** @returns messages that the broker has forgotten, and that are handled now */
  connected(sessionPresent: boolean): readonly M[] {
    if (sessionPresent) this.giveBackParked()
    else this.expected.clear()
    const forgotten = this.parked
    this.parked = []
    for (const message of forgotten) {
      message.connection = 0
      this.open.add(message)
    }
    return forgotten
  }

  /** The broker delivers the parked messages again. */
  giveBackParked(): void {
    for (const message of this.parked.splice(0)) this.giveBack(message)
  }

  private giveBack(message: M): void {
    this.held.release(message)
    this.count.done(this.canGiveBack(message) ? 'givenBack' : 'dropped')
  }

  private positionOf(message: M): number {
    return message.connection === this.connection ? this.unacknowledged.indexOf(message) : -1
  }

  private claim(packet: PublishPacket): M | undefined {
    const { messageId = 0 } = packet
    const message = this.expected.get(messageId)
    this.expected.delete(messageId)
    // Without DUP the broker has given the identifier to another message.
    return packet.dup && message?.outcome !== 'givenBack' && message?.isSameAs(packet) ? message : undefined
  }
}

function isAgain(message: OpenMessage, packet: PublishPacket): boolean {
  return message.packet.messageId === packet.messageId && message.isSameAs(packet)
}

import type { PublishPacket } from '../protocol/packets.js'
import { InboundCount, type InboundCounters, RENEWED_AFTER, type RunOutcome } from './inbound-count.js'

/** Approximate size of the objects that hold a message. */
const OVERHEAD_BYTES = 512

/** Approximate memory use of a message, in bytes. */
export function bytesOf({ length, topic, payload }: PublishPacket): number {
  return OVERHEAD_BYTES + (length ?? topic.length + payload.length)
}

/** The properties of a message that determine its size. */
interface Sized {
  readonly bytes: number
  /** Whether its bytes count as held. */
  isHeld: boolean
}

/** Bytes of the messages in this process, from the parser to the end of their handlers. */
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

  /** Whether more is held than allowed, and handlers can make room. */
  get isOver(): boolean {
    return this.held > 0 && this.held + this.unreleased.bytes > this.most
  }

  /** Whether more unreleased messages are held than allowed, for which only the broker can make room. */
  get isPermanentlyOver(): boolean {
    return this.unreleased.bytes > this.most && this.unreleased.count > 1
  }

  /** Whether there is no room for a message that is held. A single message is accepted whatever its size. */
  hasNoRoomFor(bytes: number): boolean {
    return this.isOver && this.bytes > bytes
  }

  /** Whether so many bytes more are within the limit. */
  hasRoomFor(bytes: number): boolean {
    return this.bytes + bytes <= this.most
  }

  /** Number of bytes of QoS 0 messages that one loop may hold, because the loop may never read them. */
  get shareOfLoop(): number {
    return this.most / 4
  }

  /** A message arrived. @returns whether more is held than allowed */
  hold(message: Sized): boolean {
    if (!message.isHeld) this.held += message.bytes
    message.isHeld = true
    return this.held + this.unreleased.bytes > this.most
  }

  /** The message is no longer held. */
  release(message: Sized): void {
    if (message.isHeld) this.held -= message.bytes
    message.isHeld = false
  }

  /**
   * Changes the number of bytes that are held besides messages: by loops, of QoS 0 messages that are finished for the
   * dispatcher, and in the copies that dead letters contain.
   */
  add(bytes: number): void {
    this.held += bytes
  }

  remove(bytes: number): void {
    this.held -= bytes
  }
}

/** A message that this process has received from the broker. */
export interface OpenMessage {
  readonly packet: PublishPacket
  readonly bytes: number
  /** Whether its bytes count as held. */
  isHeld: boolean
  /** Highest-ranked outcome of its handlers so far. */
  readonly outcome: RunOutcome
  /** Number of handlers that have started. */
  readonly started: number
  /** All handlers have ended. */
  isDone: boolean
  /** For QoS 1, the number of the connection on which it arrived; otherwise, and when the session is lost, 0. */
  connection: number
  /** It is handled. Its acknowledgement is sent after those of all earlier messages. */
  mayBeAcknowledged: boolean
  /** Whether a packet is a redelivery of this message. */
  isSameAs(packet: PublishPacket): boolean
}

/**
 * The messages from their arrival to their acknowledgement. Acknowledgements are sent in the order in which the messages
 * arrived [MQTT-4.6.0-2], however their handlers end, and only on the connection on which the message arrived.
 *
 * After a lost connection, the broker resends the unacknowledged messages of a persistent session with their Packet
 * Identifiers and DUP (MQTT 5, 4.4). A message whose handlers have started is then not handled again.
 */
export class OpenMessages<M extends OpenMessage> {
  readonly count = new InboundCount()
  /** Unfinished messages, in order of arrival. */
  open = new Set<M>()
  private removed = 0
  /** Unfinished QoS 2 messages. The broker has released them and does not wait for them. */
  qos2 = 0
  /** QoS 1 messages of the current connection whose acknowledgement has not been sent, in order. */
  unacknowledged: M[] = []
  /** Number of QoS 1 messages on all connections. */
  added = 0
  /** Messages of a lost connection. The next connection shows whether the broker resends them. */
  private parked: M[] = []
  /** Messages of earlier connections that the broker resends, by Packet Identifier. */
  readonly expected = new Map<number, M>()
  private connection = 1

  constructor(
    readonly held: HeldBytes,
    /** The broker keeps the session of this client when a connection ends. */
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

  /** A message arrived. @returns whether more bytes are held than allowed */
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
   * Whether a QoS 1 packet is a redelivery of a message that waits for its acknowledgement, or that handlers had started
   * before the connection was lost. If so, it only has to be acknowledged with the messages that `take` returns.
   */
  repeats(packet: PublishPacket): boolean {
    // Without DUP, the broker has reused the identifier too early. Both messages are handled, because neither may be lost.
    const isOwed = packet.dup && this.unacknowledged.some(message => isAgain(message, packet))
    const message = isOwed ? undefined : this.claim(packet)
    if (!isOwed && message === undefined) return false
    this.count.counts.repeated += 1
    if (message === undefined) return true
    message.connection = this.connection
    this.unacknowledged.push(message)
    this.added += 1
    this.held.hold(message)
    return true
  }

  /** All handlers of the message have ended. @returns whether `take` may return a message */
  finish(message: M): boolean {
    const { outcome } = message
    if (!this.remove(message)) return false
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

  /** Removes and returns the next message to acknowledge, if there is one. */
  take(): M | undefined {
    const [first] = this.unacknowledged
    if (first === undefined || !first.mayBeAcknowledged) return undefined
    this.unacknowledged.shift()
    this.held.release(first)
    return first
  }

  /**
   * Removes a message whose handlers have not started.
   * @param outcome undefined: the message is parked until the next connection; `givenBack` counts as `dropped` if the broker
   * does not keep the message
   */
  withdraw(message: M, outcome: RunOutcome | undefined): void {
    this.remove(message)
    if (outcome === undefined) return void this.parked.push(message)
    if (outcome === 'givenBack') return this.giveBack(message)
    this.held.release(message)
    this.count.done(outcome)
  }

  /** The message that arrived last is not handled. On this connection it is not acknowledged, and does not hold back others. */
  leave(message: M): void {
    if (message.packet.qos === 1) this.unacknowledged.pop()
    this.withdraw(message, 'givenBack')
  }

  /** Whether the broker delivers the message again. */
  canGiveBack(message: M): boolean {
    return this.keepsSession && message.connection !== 0
  }

  /**
   * Messages whose handlers have not started, and that are not before a message with a started handler in the order of
   * acknowledgements.
   */
  behindStarted(): M[] {
    const positions = new Map(this.unacknowledged.map((message, index) => [message, index]))
    const positionOf = (message: M): number => positions.get(message) ?? -1
    let last = -1
    for (const message of this.open) if (message.started > 0) last = Math.max(last, positionOf(message))
    return [...this.open].filter(message => positionOf(message) > last)
  }

  /** The connection has ended. */
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

  /** @returns messages that the broker no longer has, and that are handled now */
  connected(sessionPresent: boolean): readonly M[] {
    if (sessionPresent) this.giveBackParked()
    else this.forget()
    const forgotten = this.parked
    this.parked = []
    for (const message of forgotten) this.open.add(message)
    return forgotten
  }

  /** The broker has no message of the earlier connections any more. */
  private forget(): void {
    this.expected.clear()
    for (const message of [...this.open, ...this.parked]) message.connection = 0
  }

  /** The broker delivers the parked messages again. */
  giveBackParked(): void {
    for (const message of this.parked.splice(0)) this.giveBack(message)
  }

  /** @returns whether the message was unfinished */
  private remove(message: M): boolean {
    if (!this.open.delete(message)) return false
    if (message.packet.qos === 2) this.qos2 -= 1
    this.removed += 1
    if (this.removed >= RENEWED_AFTER + this.open.size) {
      this.open = new Set(this.open)
      this.removed = 0
    }
    return true
  }

  private giveBack(message: M): void {
    this.held.release(message)
    this.count.done(this.canGiveBack(message) ? 'givenBack' : 'dropped')
  }

  private claim(packet: PublishPacket): M | undefined {
    const { messageId = 0 } = packet
    const message = this.expected.get(messageId)
    this.expected.delete(messageId)
    // Without DUP, the broker has assigned the identifier to another message.
    return packet.dup && message?.outcome !== 'givenBack' && message?.isSameAs(packet) ? message : undefined
  }
}

function isAgain(message: OpenMessage, packet: PublishPacket): boolean {
  return message.packet.messageId === packet.messageId && message.isSameAs(packet)
}

import type { ConnectedSession, ConnectionState } from '../../core/connection/connection-state.js'
import { describeCause, MqttError } from '../../core/errors.js'
import { assertTaken } from '../../core/outbound/outbound-gate.js'
import type {
  GivenUp,
  OutboundCounters,
  OutboundMessage,
  Publication,
  PublishObserver,
  PublishTerms,
  Waiting,
} from '../../core/outbound/outbound-message.js'
import { OutcomeCount } from '../../core/outbound/outcome-count.js'
import type { DropReason, PublishOutcome, TryPublishOutcome } from '../../core/outbound/publish-outcome.js'
import { messageAt } from '../../core/outbound/waiting.js'
import type { PacketIds } from '../../core/protocol/packet-ids.js'
import type { OutboundOptions, WhenBlocked } from '../../options/options.js'
import type { Link, Packet } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { IdleWaiters } from '../idle-waiters.js'
import { InFlight } from './in-flight.js'
import { PacedLink } from './paced-link.js'
import { withTerms } from './publish-terms.js'
import { WaitingRoom } from './waiting-room.js'

const NO_TERMS: PublishTerms = {}
const UNSPECIFIED_ERROR = 0x80
const SENT: PublishOutcome = { status: 'sent' }
const ACCEPTED: TryPublishOutcome = { status: 'accepted' }
const ignore = (): void => {}

/**
 * Sends messages and tells how each ended. What the link cannot carry soon waits in the buffer, where it can still
 * be dropped; what is written waits for nothing but the broker's acknowledgement.
 */
export class Publisher implements ConnectionListener {
  private readonly room: WaitingRoom
  private readonly inFlight: InFlight
  private readonly count = new OutcomeCount()
  private paced: PacedLink | undefined
  private isClosing = false
  private readonly idle = new IdleWaiters(() => !this.isWaiting)
  private writtenBytes = 0

  constructor(
    packetIds: PacketIds,
    private readonly options: Required<OutboundOptions>,
    /** The broker keeps the session of this client at the end of a connection. */
    private readonly keepsSession: boolean,
    private readonly observer: PublishObserver,
  ) {
    this.room = new WaitingRoom(options, {
      onDropped: (publication, reason) => {
        this.settle(publication, { status: 'dropped', reason })
        this.idle.check()
      },
      waitsForAcknowledgement: ({ message }) =>
        message.qos > 0 &&
        this.paced !== undefined &&
        !this.inFlight.hasRoom(this.paced.limits.receiveMaximum),
    })
    this.inFlight = new InFlight(packetIds, options, {
      settled: (publication, outcome) => this.settle(publication, outcome),
      onUnacknowledged: observer.onUnacknowledged,
    })
  }

  get counters(): OutboundCounters {
    const { room, paced } = this
    return {
      ...this.count.outcomes,
      inFlight: this.inFlight.size,
      queued: room.size,
      queuedBytes: room.bytes,
      bytes: this.writtenBytes + (paced?.bytes ?? 0),
      unconfirmedBytes: paced?.unconfirmedBytes ?? 0,
      bytesPerSecond: paced?.bytesPerSecond,
      delayMs: paced?.delayMs(room.bytes) ?? 0,
      oldestMs: room.oldestMs,
    }
  }

  /**
   * QoS 0 settles when it is written, QoS 1 and 2 with the broker's answer or the end of the session.
   * @throws MqttError when the broker said beforehand that it does not take such a message
   */
  publish(message: OutboundMessage, terms = NO_TERMS): PublishOutcome | Promise<PublishOutcome> {
    const paced = this.admit(message)
    const isPlain = message.qos === 0 && terms.signal?.aborted !== true
    if (isPlain && paced !== undefined && this.isFree(paced, 0)) return this.writePlain(paced, message)
    return new Promise((resolve, reject) => {
      const publication = withTerms(message, terms, { settle: resolve, fail: reject }, this.giveUp)
      try {
        this.start(publication, terms, paced)
      } catch (error) {
        publication.fail(error)
      }
    })
  }

  /** QoS 0 without a promise. @throws MqttError as `publish` does */
  tryPublish(message: OutboundMessage, whenBlocked?: WhenBlocked): TryPublishOutcome {
    const paced = this.admit(message)
    if (paced !== undefined && this.isFree(paced, 0)) {
      this.writePlain(paced, message)
      return ACCEPTED
    }
    // Nobody can wait for what has no promise.
    const mode = whenBlocked ?? (this.options.whenBlocked === 'wait' ? 'drop' : this.options.whenBlocked)
    const dropped = this.hold({ message, settle: ignore, fail: ignore }, { whenBlocked: mode }, paced)
    return dropped === undefined ? ACCEPTED : { status: 'dropped', reason: dropped }
  }

  /** From now on every publish is `dropped: closed`; what waits is so too, and what is in flight is `lost`. */
  close(): void {
    this.end(closedError())
  }

  /** Whether something waits to be written or answered. */
  get isWaiting(): boolean {
    return this.inFlight.size + this.room.size > 0
  }

  /** Whether the broker has acknowledged nothing for half of `ackTimeoutMs`. */
  get isLate(): boolean {
    return this.inFlight.isLate
  }

  /** Resolves when nothing waits to be written or answered. */
  whenIdle(): Promise<void> {
    return this.idle.wait()
  }

  stateChanged(state: ConnectionState): void {
    if (state.status === 'closed') this.end(state.cause ?? closedError())
  }

  connected(link: Link, { limits, sessionPresent }: ConnectedSession): void {
    this.paced = new PacedLink(link, limits, this.options)
    this.paced.isHeld = this.observer.mustWait()
    this.inFlight.connected(this.paced, sessionPresent)
    this.pump()
  }

  lost(cause: MqttError): void {
    this.leave()
    this.room.drop('offline', ({ mode }) => mode === 'drop')
    this.inFlight.lost(cause, this.keepsSession && !this.isClosing)
    this.idle.check()
  }

  answered(packet: Packet): void {
    const { paced } = this
    if (paced === undefined) return
    if (packet.cmd === 'puback') paced.acknowledged(packet.messageId)
    if (packet.cmd === 'pingresp') paced.confirm()
    else if (!this.inFlight.answered(packet, paced)) return
    this.pump()
  }

  pinged(): void {
    this.paced?.pinged()
  }

  flushing(): void {
    this.paced?.flushing()
  }

  flushed(): void {
    this.pump()
  }

  /** The link to write to, unless there is none. @throws MqttError for what the broker does not take */
  private admit(message: OutboundMessage): PacedLink | undefined {
    const { paced } = this
    if (this.isClosing || paced === undefined || !paced.link.isWritable()) return undefined
    assertTaken(message, paced)
    return paced
  }

  private isFree(paced: PacedLink, qos: 0 | 1 | 2): boolean {
    if (!this.room.isEmpty(qos)) return false
    return (qos === 0 || this.inFlight.hasRoom(paced.limits.receiveMaximum)) && paced.isOpen()
  }

  private writePlain(paced: PacedLink, message: OutboundMessage): PublishOutcome {
    paced.publish(message, undefined)
    this.count.sentAtOnce()
    return SENT
  }

  private start(publication: Publication, terms: PublishTerms, paced: PacedLink | undefined): void {
    const { message } = publication
    if (terms.signal?.aborted)
      return publication.settle({ status: 'dropped', reason: this.dropAtOnce('aborted') })
    if (paced !== undefined && this.isFree(paced, message.qos) && this.write(paced, publication, message)) {
      this.count.attempted()
      return
    }
    const dropped = this.hold(publication, terms, paced)
    if (dropped !== undefined) publication.settle({ status: 'dropped', reason: dropped })
  }

  /** Lets a publish wait. @returns why it is dropped instead */
  private hold(publication: Publication, terms: PublishTerms, paced: PacedLink | undefined) {
    const dropped = this.isClosing ? 'closed' : this.room.hold(publication, terms, paced)
    if (dropped !== undefined) return this.dropAtOnce(dropped)
    this.count.attempted()
    return undefined
  }

  private dropAtOnce(reason: DropReason): DropReason {
    this.count.droppedAtOnce(reason)
    this.observer.onDropped(reason)
    return reason
  }

  /** Writes as much of what waits as the link carries soon. */
  private pump(): void {
    const { paced, room } = this
    if (paced === undefined) return
    if (paced.isHeld) paced.isHeld = this.observer.mustWait()
    this.inFlight.resend(paced)
    while (room.size > 0) {
      const mayAcknowledge = this.inFlight.hasRoom(paced.limits.receiveMaximum)
      const next = room.next(mayAcknowledge, paced.nowMs)
      if (next === undefined || !paced.isOpen() || !this.writeWaiting(paced, next)) break
    }
    if (room.size === 0) this.observer.onCaughtUp()
    this.idle.check()
  }

  private writeWaiting(paced: PacedLink, waiting: Waiting): boolean {
    const { publication } = waiting
    try {
      assertTaken(publication.message, paced)
      if (!this.write(paced, publication, messageAt(waiting, paced.nowMs))) return false
    } catch (error) {
      this.room.remove(waiting)
      this.settle(publication, refusedBeforehand(error))
      return true
    }
    this.room.remove(waiting)
    if (publication.message.qos === 0) this.settle(publication, SENT)
    return true
  }

  /** @returns false when no Packet Identifier is free */
  private write(paced: PacedLink, publication: Publication, message: OutboundMessage): boolean {
    if (message.qos > 0) return this.inFlight.send(paced, publication, message)
    paced.publish(message, undefined)
    return true
  }

  private readonly giveUp = (publication: Publication, reason: GivenUp, cause: MqttError): void => {
    if (this.room.withdraw(publication)) this.settle(publication, { status: 'dropped', reason })
    else if (this.inFlight.giveUp(publication)) this.settle(publication, { status: 'lost', cause })
    this.idle.check()
  }

  private settle(publication: Publication, outcome: PublishOutcome): void {
    this.count.settled(outcome)
    if (outcome.status === 'dropped') this.observer.onDropped(outcome.reason)
    else if (outcome.status === 'refused')
      this.observer.onRefused(publication.message.topic, outcome.reasonCode, outcome.reasonString)
    publication.settle(outcome)
  }

  private leave(): void {
    this.writtenBytes += this.paced?.bytes ?? 0
    this.paced?.stop()
    this.paced = undefined
  }

  private end(cause: MqttError): void {
    this.isClosing = true
    this.room.drop('closed', () => true)
    this.inFlight.loseAll(cause)
    this.idle.check()
  }
}

/** Nobody knew of this connection's limits when the publish began to wait. */
function refusedBeforehand(error: unknown): PublishOutcome {
  const { reasonCode = UNSPECIFIED_ERROR } = error instanceof MqttError ? error : {}
  return { status: 'refused', reasonCode, reasonString: describeCause(error) }
}

function closedError(): MqttError {
  const text = 'the application closed the connection before the broker responded'
  return new MqttError('CONNECTION_CLOSED', text)
}

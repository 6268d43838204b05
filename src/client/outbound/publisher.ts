import type { ConnectedSession, ConnectionState } from '../../core/connection/connection-state.js'
import { closedError, type MqttError } from '../../core/errors.js'
import { OutboundBuffer } from '../../core/outbound/outbound-buffer.js'
import { assertTaken, isUnlimited, refusalOf } from '../../core/outbound/outbound-gate.js'
import type {
  GivenUp,
  OutboundCounters,
  OutboundMessage,
  Publication,
  PublishObserver,
  PublishTerms,
  Waiting,
} from '../../core/outbound/outbound-message.js'
import type { OutboundQueue } from '../../core/outbound/outbound-queue.js'
import { OutcomeCount } from '../../core/outbound/outcome-count.js'
import type { DropReason, PublishOutcome, TryPublishOutcome } from '../../core/outbound/publish-outcome.js'
import { messageAt } from '../../core/outbound/waiting.js'
import { POLICIES } from '../../core/outbound/when-blocked.js'
import type { PacketIds } from '../../core/protocol/packet-ids.js'
import type { OutboundOptions, WhenBlocked } from '../../options/options.js'
import type { AcknowledgingPacket, Link, PublishFeedback } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { IdleWaiters } from '../idle-waiters.js'
import { InFlight, type InFlightObserver } from './in-flight.js'
import { PacedLink } from './paced-link.js'
import { withTerms } from './publish-terms.js'
import { WaitingRoom, type WaitingRoomObserver } from './waiting-room.js'

const NO_TERMS: PublishTerms = {}
const SENT: PublishOutcome = { status: 'sent' }
const ACCEPTED: TryPublishOutcome = { status: 'accepted' }
const ignore = (): void => {}

/**
 * Sends messages and tells how each ended. What the link cannot carry soon waits in the buffer, where it can still
 * be dropped; what is written waits for nothing but the broker's acknowledgement.
 */
export class Publisher implements ConnectionListener, PublishFeedback, InFlightObserver, WaitingRoomObserver {
  private readonly room: WaitingRoom
  private readonly inFlight: InFlight
  private readonly count = new OutcomeCount()
  private paced: PacedLink | undefined
  /** The broker takes every publish. */
  private takesAll = false
  /** Drops were told of, and not that they are over. */
  private isDropping = false
  private isClosing = false
  private readonly idle = new IdleWaiters(() => !this.isWaiting)
  private writtenBytes = 0

  constructor(
    packetIds: PacketIds,
    private readonly options: Required<OutboundOptions>,
    /** The broker keeps the session of this client at the end of a connection. */
    private readonly keepsSession: boolean,
    private readonly observer: PublishObserver,
    private readonly queue: OutboundQueue = new OutboundBuffer(options),
  ) {
    this.room = new WaitingRoom(queue, options, this)
    this.inFlight = new InFlight(packetIds, options, this, observer)
  }

  get counters(): OutboundCounters {
    const { queue, paced } = this
    return {
      ...this.count.outcomes,
      inFlight: this.inFlight.size,
      queued: queue.size,
      queuedBytes: queue.bytes,
      bytes: this.writtenBytes + (paced?.bytes ?? 0),
      unconfirmedBytes: paced?.unconfirmedBytes ?? 0,
      bytesPerSecond: paced?.bytesPerSecond,
      delayMs: paced?.delayMs(queue.bytes) ?? 0,
      oldestMs: this.room.oldestMs,
    }
  }

  /**
   * QoS 0 settles when it is written, QoS 1 and 2 with the broker's response or the end of the session.
   * @throws MqttError when the broker said beforehand that it does not take such a message
   */
  publish(message: OutboundMessage, terms = NO_TERMS): PublishOutcome | Promise<PublishOutcome> {
    const paced = this.admit(message)
    if (terms.signal?.aborted) return { status: 'dropped', reason: this.dropAtOnce('aborted') }
    if (message.qos === 0 && paced !== undefined && this.queue.isEmpty(0) && paced.isOpen())
      return this.writePlain(paced, message)
    return new Promise((resolve, reject) => {
      const promise = { message, settle: resolve, fail: reject, waiting: undefined, pending: undefined }
      const publication = terms === NO_TERMS ? promise : withTerms(message, terms, promise, this.giveUp)
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
    if (paced !== undefined && this.queue.isEmpty(0) && paced.isOpen()) {
      this.writePlain(paced, message)
      return ACCEPTED
    }
    const usual = this.options.whenBlocked
    // Nobody can wait for what has no promise.
    const mode = whenBlocked ?? (POLICIES[usual].needsPromise ? 'drop' : usual)
    const dropped = this.hold({ message, settle: ignore, fail: ignore }, { whenBlocked: mode }, paced)
    return dropped === undefined ? ACCEPTED : { status: 'dropped', reason: dropped }
  }

  /** From now on every publish is `dropped: closed`; what waits is so too, and what is in flight is `lost`. */
  close(): void {
    this.end(closedError())
  }

  /** Whether something waits to be written or acknowledged. */
  get isWaiting(): boolean {
    return this.inFlight.size + this.queue.size > 0
  }

  /** Whether the broker has acknowledged nothing for half of `ackTimeoutMs`. */
  get isLate(): boolean {
    return this.inFlight.isLate
  }

  /** Resolves when nothing waits to be written or acknowledged. */
  whenIdle(): Promise<void> {
    return this.idle.wait()
  }

  stateChanged(state: ConnectionState): void {
    if (state.status === 'closed') this.end(state.cause ?? closedError())
  }

  connected(link: Link, { limits, sessionPresent }: ConnectedSession): void {
    this.paced = new PacedLink(link, limits, this.options)
    this.takesAll = isUnlimited(limits)
    this.paced.isHeld = this.observer.mustWait()
    link.reportTo(this)
    this.inFlight.connected(this.paced, sessionPresent)
    this.pump()
  }

  lost(cause: MqttError): void {
    this.writtenBytes += this.paced?.bytes ?? 0
    this.paced?.stop()
    this.paced?.link.reportTo(undefined)
    this.paced = undefined
    this.room.drop('offline', ({ mode }) => !POLICIES[mode].isKept)
    this.inFlight.lost(cause, this.keepsSession && !this.isClosing)
    this.idle.check()
  }

  acknowledged(packet: AcknowledgingPacket): void {
    const { paced } = this
    if (paced === undefined) return
    if (packet.cmd === 'puback') paced.acknowledged(packet.messageId)
    if (this.inFlight.acknowledged(packet, paced) && this.hasWork) this.pump()
  }

  confirmed(): void {
    this.paced?.confirm()
    if (this.hasWork) this.pump()
  }

  pinged(): void {
    this.paced?.pinged()
  }

  flushing(): void {
    this.paced?.flushing()
  }

  flushed(): void {
    if (this.hasWork) this.pump()
  }

  dropped(publication: Publication, reason: DropReason): void {
    this.settle(publication, { status: 'dropped', reason })
    this.idle.check()
  }

  waitsForAcknowledgement({ message }: Publication): boolean {
    return message.qos > 0 && this.paced !== undefined && !this.inFlight.hasRoom()
  }

  /** A publish has ended. */
  settle(publication: Publication, outcome: PublishOutcome): void {
    if (outcome.status === 'dropped') {
      this.count.dropped[outcome.reason] += 1
      this.tellDropped(outcome.reason)
    } else {
      this.count.ended[outcome.status] += 1
      if (outcome.status === 'refused')
        this.observer.onRefused(publication.message.topic, outcome.reasonCode, outcome.reasonString)
    }
    publication.settle(outcome)
  }

  /** The link to write to, unless there is none. @throws MqttError for what the broker does not take */
  private admit(message: OutboundMessage): PacedLink | undefined {
    const { paced } = this
    if (this.isClosing || paced === undefined || !paced.link.isWritable()) return undefined
    if (!this.takesAll) assertTaken(message, paced)
    return paced
  }

  private writePlain(paced: PacedLink, message: OutboundMessage): PublishOutcome {
    paced.publish(message, undefined)
    this.count.begun += 1
    this.count.ended.sent += 1
    return SENT
  }

  private start(publication: Publication, terms: PublishTerms, paced: PacedLink | undefined): void {
    const { qos } = publication.message
    const isFree = paced !== undefined && this.queue.isEmpty(qos) && (qos === 0 || this.inFlight.hasRoom())
    if (isFree && paced.isOpen() && this.write(paced, publication, publication.message)) {
      this.count.begun += 1
      return
    }
    const dropped = this.hold(publication, terms, paced)
    if (dropped !== undefined) publication.settle({ status: 'dropped', reason: dropped })
  }

  /** Lets a publish wait. @returns why it is dropped instead */
  private hold(publication: Publication, terms: PublishTerms, paced: PacedLink | undefined) {
    const dropped = this.isClosing ? 'closed' : this.room.hold(publication, terms, paced)
    if (dropped === undefined) this.count.begun += 1
    return dropped === undefined ? undefined : this.dropAtOnce(dropped)
  }

  private dropAtOnce(reason: DropReason): DropReason {
    this.count.droppedAtOnce(reason)
    this.tellDropped(reason)
    return reason
  }

  private tellDropped(reason: DropReason): void {
    this.isDropping = true
    this.observer.onDropped(reason)
  }

  /** Whether `pump` has something to do. */
  private get hasWork(): boolean {
    const { paced, queue, inFlight, idle } = this
    if (queue.size > 0 || inFlight.unsent > 0 || this.isDropping) return true
    return idle.waiting.length > 0 || paced?.isHeld === true
  }

  /** Writes as much of what waits as the link carries soon. */
  private pump(): void {
    const { paced, queue, room } = this
    if (paced === undefined) return
    if (paced.isHeld) paced.isHeld = this.observer.mustWait()
    if (this.inFlight.unsent > 0) this.inFlight.resend(paced)
    while (queue.size > 0) {
      const next = room.next(this.inFlight.hasRoom(), paced.nowMs)
      if (next === undefined || !paced.isOpen() || !this.writeWaiting(paced, next)) break
    }
    if (this.isDropping && queue.size === 0) this.isDropping = !this.observer.onCaughtUp()
    this.idle.check()
  }

  private writeWaiting(paced: PacedLink, waiting: Waiting): boolean {
    const { publication } = waiting
    let outcome = publication.message.qos === 0 ? SENT : undefined
    try {
      assertTaken(publication.message, paced)
      if (!this.write(paced, publication, messageAt(waiting, paced.nowMs))) return false
    } catch (error) {
      outcome = refusalOf(error)
    }
    this.room.remove(waiting)
    if (outcome !== undefined) this.settle(publication, outcome)
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

  private end(cause: MqttError): void {
    this.isClosing = true
    this.room.drop('closed', () => true)
    this.inFlight.loseAll(cause)
    this.idle.check()
  }
}

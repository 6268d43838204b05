import type { ConnectedSession, ConnectionState } from '../../core/connection/connection-state.js'
import { closedError, type MqttError } from '../../core/errors.js'
import { OutboundBuffer, type OutboundQueue } from '../../core/outbound/outbound-buffer.js'
import {
  assertTaken,
  type GivenUp,
  isUnlimited,
  messageAt,
  type OutboundMessage,
  Publication,
  type PublishTerms,
  refusalOf,
  type Settle,
} from '../../core/outbound/outbound-message.js'
import {
  ACCEPTED,
  type DropReason,
  type OutboundCounters,
  POLICIES,
  type PublishOutcome,
  SENT,
  SENT_OUTCOME,
  type TryPublishOutcome,
  type WhenBlocked,
} from '../../core/outbound/publish-outcome.js'
import type { PacketIds } from '../../core/protocol/packets.js'
import type { OutboundOptions } from '../../options/options.js'
import type { AcknowledgingPacket, Link, PublishFeedback } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { IdleWaiters, PromptResults } from '../waits.js'
import { InFlight } from './in-flight.js'
import { PacedLink } from './paced-link.js'
import {
  countersOf,
  Outcomes,
  type PublisherParts,
  WaitingPublishes,
  type WaitingPublishesObserver,
  watchTerms,
} from './publishes.js'
import type { Filler } from './store-ledger.js'

/**
 * Sends messages and reports their outcomes. A message that the link cannot carry soon waits in the buffer, where it can
 * still be dropped. A written message only waits for its acknowledgement.
 */
export class Publisher implements ConnectionListener, PublishFeedback, WaitingPublishesObserver {
  private readonly waiting: WaitingPublishes
  readonly inFlight: InFlight
  readonly outcomes: Outcomes
  paced: PacedLink | undefined
  /** The broker sets no limits on publishes. */
  private takesAll = false
  private isClosing = false
  /** The link of a connection that is being replaced. Publishes wait for the next one. */
  replaced: PacedLink | undefined
  private readonly prompt = new PromptResults<PublishOutcome>()
  private readonly idle = new IdleWaiters(() => !this.isWaiting)
  /** On earlier connections. */
  writtenBytes = 0
  /** Sends the messages of the store. */
  filler: Filler | undefined

  constructor(
    packetIds: PacketIds<Publication>,
    readonly options: Required<OutboundOptions>,
    /** The broker keeps the session of this client when a connection ends. */
    private readonly keepsSession: boolean,
    private readonly parts: PublisherParts,
    private readonly queue: OutboundQueue = new OutboundBuffer(options),
  ) {
    this.waiting = new WaitingPublishes(queue, options, this)
    this.outcomes = new Outcomes(parts.events.notice)
    this.inFlight = new InFlight(packetIds, options, this.outcomes, parts.connection)
  }

  get counters(): OutboundCounters {
    return countersOf(this.outcomes, this.queue, this.waiting.oldestMs, this)
  }

  /**
   * Settles at QoS 0 when the message is written, at QoS 1 and 2 with the response of the broker or the end of the session.
   * @throws MqttError if the message exceeds the limits that the broker sent in CONNACK
   */
  publish(message: OutboundMessage, terms?: PublishTerms): Promise<PublishOutcome> {
    const paced = this.linkFor(message)
    if (terms?.signal?.aborted) return this.prompt.of(this.outcomes.dropAtOnce('aborted'))
    const { qos } = message
    const isFree = paced !== undefined && (this.queue.size === 0 || this.queue.isEmpty(qos))
    if (qos === 0 && isFree && paced.isOpen()) return this.writePlain(paced, message)
    const publication = new Publication(message)
    const promise = new Promise<PublishOutcome>(resolve => {
      publication.resolve = resolve
    })
    const isSent = qos > 0 && isFree && this.inFlight.hasRoom() && paced.isOpen()
    if (isSent && this.inFlight.send(paced, publication, message)) this.outcomes.begun += 1
    else {
      const dropped = this.hold(publication, terms?.whenBlocked ?? this.options.whenBlocked, paced)
      if (dropped !== undefined) return this.prompt.of(dropped)
    }
    if (terms !== undefined) watchTerms(publication, terms, this.giveUp)
    return promise
  }

  /** Writes a message before all that wait: at QoS 0 if there is no room for QoS 1. @throws MqttError the same as `publish` */
  publishFirst(message: OutboundMessage, settle?: (outcome: PublishOutcome) => void): void {
    const paced = this.linkFor(message)
    if (paced === undefined) return
    const isSent = message.qos > 0 && this.inFlight.hasRoom()
    if (!isSent || !this.inFlight.send(paced, new Publication(message, settle), message))
      void this.writePlain(paced, { ...message, qos: 0 }).then(settle)
    else this.outcomes.begun += 1
  }

  /**
   * Writes a QoS 1 or 2 message if the link can carry it now.
   * @param isLast only if no publish waits
   * @throws MqttError the same as `publish`
   */
  writeNow(publication: Publication, isLast: boolean): boolean {
    const { message } = publication
    const paced = this.linkFor(message)
    if (paced === undefined || (isLast && !this.queue.isEmpty(message.qos))) return false
    return this.inFlight.hasRoom() && paced.isOpen() && this.inFlight.send(paced, publication, message)
  }

  /** Publishes at QoS 0. `settle` gets the outcome of an accepted publish. @throws MqttError the same as `publish` */
  tryPublish(message: OutboundMessage, whenBlocked?: WhenBlocked, settle?: Settle): TryPublishOutcome {
    const paced = this.linkFor(message)
    if (paced !== undefined && (this.queue.size === 0 || this.queue.isEmpty(0)) && paced.isOpen()) {
      this.writePlain(paced, message)
      settle?.(SENT_OUTCOME)
      return ACCEPTED
    }
    const usual = this.options.whenBlocked
    // A caller without a promise cannot wait.
    const mode = whenBlocked ?? (POLICIES[usual].needsPromise ? 'drop' : usual)
    return this.hold(new Publication(message, settle), mode, paced) ?? ACCEPTED
  }

  /** From now on every publish is `dropped: closed`, including the waiting ones. Publishes in flight are `lost`. */
  close(): void {
    this.end(closedError())
  }

  /** Whether a publish waits to be written or acknowledged. */
  get isWaiting(): boolean {
    return this.inFlight.size + this.queue.size > 0
  }

  /** Resolves when no publish waits to be written or acknowledged. */
  whenIdle(): Promise<void> {
    return this.idle.wait()
  }

  stateChanged(state: ConnectionState): void {
    if (state.status === 'closed') this.end(state.cause ?? closedError())
    else if (state.status === 'waiting') this.replacing(false)
  }

  /** True: the connection is about to be replaced, and publishes only wait. False: it stays. */
  replacing(isReplacing: boolean): void {
    this.replaced = isReplacing ? this.paced : undefined
    if (this.paced === undefined) this.waiting.dropBacklog()
    else if (isReplacing) this.paced.isHeld = true
    else this.pump()
  }

  connected(link: Link, { limits, sessionPresent }: ConnectedSession): void {
    this.paced = new PacedLink(link, limits, this.options, () => this.pump(), this.parts.events)
    this.replaced = undefined
    this.takesAll = isUnlimited(limits)
    this.paced.isHeld = this.parts.subscriptions.isRestoring
    link.reportTo(this)
    this.inFlight.connected(this.paced, sessionPresent)
    this.parts.presence?.greet()
    this.pump()
  }

  lost(cause: MqttError): void {
    this.writtenBytes += this.paced?.bytes ?? 0
    this.paced?.stop()
    this.paced?.link.reportTo(undefined)
    this.paced = undefined
    if (this.replaced === undefined) this.waiting.dropBacklog()
    this.inFlight.lost(cause, this.keepsSession && !this.isClosing)
    this.idle.check()
  }

  acknowledged(packet: AcknowledgingPacket): void {
    const { paced } = this
    if (paced === undefined) return
    if (packet.cmd === 'puback') paced.acknowledged(packet.messageId)
    if (!this.inFlight.acknowledged(packet, paced)) return
    const { queue, inFlight, idle } = this
    if (queue.size > 0 || inFlight.unsent > 0 || this.outcomes.isDropping || idle.waiting.length > 0)
      this.pump()
    else if (this.filler?.isWaiting) this.pump()
  }

  confirmed(): void {
    this.paced?.confirm()
    this.pump()
  }

  /** @param done called with the PINGRESP to a PINGREQ that is sent now, or with `false` without a connection */
  roundTrip(done: (isDone: boolean) => void): void {
    return this.paced === undefined ? done(false) : this.paced.roundTrip(done)
  }

  readonly pinged = (): void => this.paced?.pinged()

  flushing(): void {
    this.paced?.flushing()
  }

  readonly flushed = (): void => this.pump()

  dropped(publication: Publication, reason: DropReason): void {
    this.outcomes.settle(publication, { status: 'dropped', reason })
    this.idle.check()
  }

  waitsForAcknowledgement({ message }: Publication): boolean {
    return message.qos > 0 && this.paced !== undefined && !this.inFlight.hasRoom()
  }

  /** Returns the link to write to, if there is one. @throws MqttError if the message exceeds the limits of the broker */
  private linkFor(message: OutboundMessage): PacedLink | undefined {
    const { paced } = this
    if (this.isClosing || paced === undefined || !paced.link.isWritable()) return undefined
    if (!this.takesAll) assertTaken(message, paced)
    return paced
  }

  private writePlain(paced: PacedLink, message: OutboundMessage): Promise<PublishOutcome> {
    paced.publish(message, undefined)
    this.outcomes.begun += 1
    this.outcomes.ended.sent += 1
    return SENT
  }

  /** Adds a publish to those that wait. @returns the outcome if it is dropped instead */
  private hold(publication: Publication, mode: WhenBlocked, paced: PacedLink | undefined) {
    const reason = this.isClosing ? 'closed' : this.waiting.hold(publication, mode, paced ?? this.replaced)
    if (reason !== undefined) return this.outcomes.dropAtOnce(reason)
    this.outcomes.begun += 1
    return undefined
  }

  /** Writes as many waiting publishes as the link carries soon. A stream that has failed would discard them. */
  pump(): void {
    const { paced, queue, waiting } = this
    if (paced === undefined || !paced.link.isWritable()) return
    if (paced.isHeld) paced.isHeld = this.replaced !== undefined || this.parts.subscriptions.isRestoring
    if (this.inFlight.unsent > 0) this.inFlight.resend(paced)
    if (queue.size > 0) this.filler?.fill(true)
    while (queue.size > 0) {
      const next = waiting.next(this.inFlight.hasRoom(), paced.arrivalMs)
      if (next === undefined || !paced.isOpen() || !this.writeWaiting(paced, next)) break
    }
    if (queue.size === 0) this.filler?.fill(false)
    if (this.outcomes.isDropping) {
      paced.link.writer.isFlushAwaited = true
      if (queue.size === 0) this.outcomes.caughtUp()
    }
    if (this.idle.waiting.length > 0) this.idle.check()
  }

  /** @returns false if no Packet Identifier is free */
  private writeWaiting(paced: PacedLink, publication: Publication): boolean {
    let outcome: PublishOutcome | undefined
    try {
      if (!this.takesAll) assertTaken(publication.message, paced)
      const message = messageAt(publication, paced.nowMs)
      if (message.qos === 0) {
        paced.publish(message, undefined)
        outcome = SENT_OUTCOME
      } else if (!this.inFlight.send(paced, publication, message)) return false
    } catch (error) {
      outcome = refusalOf(error)
    }
    this.queue.remove(publication)
    if (outcome !== undefined) this.outcomes.settle(publication, outcome)
    return true
  }

  private readonly giveUp = (publication: Publication, reason: GivenUp, cause: MqttError): void => {
    if (this.queue.remove(publication)) this.outcomes.settle(publication, { status: 'dropped', reason })
    else this.inFlight.giveUp(publication, cause)
    this.idle.check()
  }

  private end(cause: MqttError): void {
    this.isClosing = true
    this.waiting.drop('closed', () => true)
    this.inFlight.loseAll(cause)
    this.idle.check()
  }
}

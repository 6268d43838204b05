import type { ConnectedSession } from '../../core/connection/connection-state.js'
import { MqttError } from '../../core/errors.js'
import { BlockedRequests } from '../../core/inbound/blocked-requests.js'
import type { InboundCounters, RunOutcome } from '../../core/inbound/inbound-count.js'
import { type HeldBytes, OpenMessages } from '../../core/inbound/open-messages.js'
import type { ResponseTopics } from '../../core/requests/request-rules.js'
import type { Refreshes } from '../../core/subscriptions/retained-values.js'
import type { SubscriptionIdentifiers } from '../../core/subscriptions/subscription-rules.js'
import type { Routes } from '../../core/topic/topic-trie.js'
import type { Link, MessageReceiver, PublishPacket } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { IdleWaiters } from '../waits.js'
import { Backpressure, type BackpressureSession, Intake } from './backpressure.js'
import type { Collecting } from './batches.js'
import { Delivery, HandlerRun, type InboundHandler } from './delivery.js'
import { HandlerPool, type PoolSession, type RunOwner } from './handler-pool.js'
import { AckWatch, BlockedRequestsWatch } from './window-watch.js'

export interface InboundSession extends BackpressureSession, Omit<PoolSession, 'options'> {
  readonly routes: Routes<InboundHandler>
  readonly identifiers: SubscriptionIdentifiers
  readonly refreshes: Refreshes<InboundHandler>
  readonly responseTopics: ResponseTopics
}

/**
 * The path of a message from the parser to its handlers, and of its acknowledgement back. Never blocks the parser, unless
 * `overflow` is `stall`. Each handler of a message waits for its turn, and PUBACK is sent when all of them have ended.
 */
export class InboundDispatcher implements ConnectionListener, MessageReceiver, RunOwner {
  readonly pool: HandlerPool
  readonly messages: OpenMessages<Delivery>
  private readonly intake: Intake
  private readonly pressure: Backpressure
  private readonly blocked: BlockedRequestsWatch
  readonly watch: AckWatch
  /** Number of messages that wait for their PUBACK on this connection above which the limits are checked. */
  private mostUnacknowledged = 0
  private link: Link | undefined
  private mode: 'holding' | 'open' | 'draining' | 'stopped' = 'holding'
  private readonly idle = new IdleWaiters(() => this.messages.open.size === 0)

  /** Refers back to this object. Private (`#`), so that `util.inspect` does not repeat the session at every level. */
  readonly #session: InboundSession

  constructor(session: InboundSession, held: HeldBytes) {
    this.#session = session
    const { inbound, keepsSession } = session.options
    this.messages = new OpenMessages(held, keepsSession)
    this.pool = new HandlerPool(session, this)
    this.intake = new Intake(inbound)
    this.pressure = new Backpressure(this.messages, session)
    this.watch = new AckWatch(this.messages, session.events.notice)
    const blocked = new BlockedRequests(inbound.maxInFlight, this.messages, this.pool)
    this.blocked = new BlockedRequestsWatch(blocked)
  }

  get counters(): InboundCounters {
    return { ...this.messages.counters, oldestUnacknowledgedMs: this.watch.oldestMs }
  }

  /** Whether handlers may start, or were allowed to. */
  get hasStarted(): boolean {
    return this.mode !== 'holding'
  }

  /** Earlier messages wait until the application is ready for its handlers to start. */
  start(): void {
    if (this.mode !== 'holding') return
    this.mode = 'open'
    for (const delivery of this.messages.open) if (delivery.runs.length === 0) this.route(delivery, false)
    this.pool.pump(false)
  }

  /**
   * No new work is accepted. Resolves when the running handlers have ended, and those of earlier messages, because their
   * acknowledgements could not be sent otherwise. Later messages are given back to a broker that keeps the session, and
   * handled if it does not.
   */
  drain(): Promise<void> {
    const wasHolding = this.mode === 'holding'
    this.mode = 'draining'
    this.pressure.end()
    this.messages.giveBackParked()
    for (const delivery of this.messages.behindStarted())
      if (this.messages.canGiveBack(delivery)) this.withdraw(delivery, 'givenBack')
    // Held for handlers that will not start any more.
    if (wasHolding)
      for (const delivery of [...this.messages.open])
        if (delivery.started === 0) this.withdraw(delivery, 'dropped')
    this.pool.pump(false)
    return this.idle.wait()
  }

  /** No handler is started after this, and the client does not wait for running handlers. */
  stop(): void {
    const reason = new MqttError(
      'CONNECTION_CLOSED',
      'the application is closing and no longer waits for the handler',
    )
    this.mode = 'stopped'
    this.messages.giveBackParked()
    for (const delivery of [...this.messages.open]) {
      if (delivery.started === 0) this.withdraw(delivery, 'givenBack')
      for (const run of delivery.runs) {
        run.attempt?.abort(reason)
        if (this.pool.remove(run) && delivery.end('givenBack')) this.finish(delivery)
      }
    }
    this.pool.stop()
    this.idle.check()
  }

  /** The connection is closed, and the client does not wait for running handlers. */
  end(): void {
    for (const delivery of [...this.messages.open]) {
      delivery.giveUp()
      this.finish(delivery)
    }
  }

  message(packet: PublishPacket, link: Link): void {
    const { messages, mode } = this
    const { qos } = packet
    messages.count.counts.received += 1
    if (qos === 1 && (packet.dup || messages.expected.size > 0) && messages.repeats(packet))
      return this.acknowledge()
    if ((mode !== 'open' && mode !== 'holding') || (qos === 1 && this.pressure.isSkipping))
      return this.leave(packet, link)
    const delivery = new Delivery(packet)
    const isOver = messages.add(delivery)
    if (mode === 'open') this.route(delivery, !isOver)
    else this.routeInternally(delivery)
    if (isOver || mode !== 'open') {
      this.makeRoom(delivery)
      this.pool.pump(false)
    } else if (this.pool.blockable > 0) this.blocked.check(this.link?.protocolVersion === 5)
    if (qos === 1 && !this.watch.isRunning) this.watch.start()
    const isNearLimit = messages.qos2 > 0 || messages.unacknowledged.length > this.mostUnacknowledged
    if (qos > 0 && (isOver || isNearLimit)) this.pressure.bound(link)
  }

  /** A handler that waits for several messages. @returns a function that removes it */
  collects(batches: Collecting): () => void {
    this.mostUnacknowledged = this.pressure.limitOf(this.link, batches)
    return () => this.pressure.batches.delete(batches)
  }

  mayStore(link: Link): boolean {
    return this.pressure.mayStore(link)
  }

  runBegins(run: HandlerRun): void {
    if (run.delivery.packet.qos === 0) this.intake.remove(run)
  }

  pumped(hasProgressed: boolean): void {
    if (this.pressure.isHolding) {
      if (hasProgressed) this.pressure.progressed()
      if (this.intake.hasRoom) this.pressure.release()
    }
    if (this.mode !== 'open') this.idle.check()
    if (this.pool.blockable > 0) this.blocked.check(this.link?.protocolVersion === 5)
  }

  runEnded({ delivery }: HandlerRun, outcome: RunOutcome): void {
    if (delivery.end(outcome)) this.finish(delivery)
    if (this.pressure.isHolding || this.mode !== 'open' || this.pool.blockable > 0) this.pumped(true)
  }

  connected(link: Link, { sessionPresent }: ConnectedSession): void {
    this.link = link
    this.mostUnacknowledged = this.pressure.limitOf(link)
    link.deliverTo(this)
    for (const delivery of this.messages.connected(sessionPresent))
      if (this.mode === 'open') this.route(delivery, false)
    this.pool.pump(false)
  }

  lost(): void {
    this.link = undefined
    this.pressure.forget()
    this.blocked.forget()
    this.watch.stop()
    for (const delivery of [...this.messages.open])
      if (delivery.started === 0 && this.messages.canGiveBack(delivery))
        this.withdraw(delivery, this.mode === 'draining' ? 'givenBack' : undefined)
    this.messages.lost()
  }

  private handlersOf({ topic, retain, properties }: PublishPacket): readonly InboundHandler[] {
    const { routes, identifiers, refreshes } = this.#session
    const id = properties?.subscriptionIdentifier
    const handlers = routes.select(topic, id === undefined ? undefined : identifiers.identify(topic, id))
    return retain ? refreshes.receiversOf(handlers, topic) : handlers
  }

  /** Responses to requests are accepted until the end, because handlers that should end may wait for them. */
  private routeInternally(delivery: Delivery): boolean {
    const handlers = this.handlersOf(delivery.packet).filter(handler => handler.isInternal)
    if (handlers.length > 0) this.route(delivery, false, handlers)
    return handlers.length > 0
  }

  /** The message is neither handled nor acknowledged, unless it is a response. */
  private leave(packet: PublishPacket, link: Link): void {
    const delivery = new Delivery(packet)
    this.messages.add(delivery)
    if (this.mode !== 'stopped' && this.routeInternally(delivery)) this.pool.pump(false)
    else this.messages.leave(delivery)
    this.pressure.skipped(link)
  }

  /** @param mayBegin whether the message may start at once, without a check for room */
  private route(delivery: Delivery, mayBegin: boolean, handlers = this.handlersOf(delivery.packet)): void {
    const { topic } = delivery.packet
    const runs: HandlerRun[] = []
    for (const handler of handlers) {
      const { orderKey } = handler
      // Only a handler whose pattern ends with a wildcard could mistake a response for an event.
      if (handler.isOpenEnded && this.#session.responseTopics.has(topic)) continue
      const ownKey = typeof orderKey === 'function' ? orderKey(topic) : undefined
      runs.push(new HandlerRun(delivery, handler, orderKey === 'topic' ? topic : ownKey))
    }
    delivery.runs = runs
    for (const run of runs) if (!mayBegin || !this.pool.begin(run)) this.enqueue(run)
    if (runs.length > 0) return
    if (handlers.length === 0) {
      this.messages.count.counts.unmatched += 1
      this.#session.events.notice.emit({ type: 'unmatched', topic })
    }
    this.finish(delivery)
  }

  private enqueue(run: HandlerRun): void {
    this.pool.add(run)
    if (run.delivery.packet.qos > 0) return
    const overflow = this.intake.add(run)
    if (overflow === undefined) return
    if (overflow.mayStall && this.pressure.pause(this.link)) return
    for (const dropped of overflow.drop) this.drop(dropped)
  }

  private drop(run: HandlerRun): void {
    this.intake.remove(run)
    if (!this.pool.remove(run)) return
    if (run.delivery.end('dropped')) this.finish(run.delivery)
    this.#session.events.notice.emit({ type: 'inbound-dropped' })
  }

  /** Drops QoS 0 messages to make room for a new message. A new QoS 0 message is dropped if there is no room for it. */
  private makeRoom(came: Delivery): void {
    this.pressure.flush()
    const { overflow, maxQueued, maxInFlight } = this.#session.options.inbound
    const isHolding = this.mode === 'holding'
    const most = isHolding ? maxQueued + maxInFlight : Number.POSITIVE_INFINITY
    const isOver = (): boolean => this.messages.held.isOver || this.messages.open.size > most
    if (!isOver() || (overflow === 'stall' && !isHolding && this.pressure.pause(this.link))) return
    // The handlers are not known yet, so the oldest message is dropped.
    if (isHolding || overflow !== 'drop-newest') {
      for (const older of isHolding ? this.messages.open : this.intake.messages()) {
        if (!isOver()) return
        if (older !== came && older.packet.qos === 0) this.dropAll(older)
      }
    }
    if (came.packet.qos > 0 || !this.messages.held.hasNoRoomFor(came.bytes)) return
    if (came.runs.length === 0 || came.runs.some(run => !run.handler.isInternal)) this.dropAll(came)
  }

  /** Drops all runs of a message that have not started. */
  private dropAll(delivery: Delivery): void {
    if (delivery.started > 0) for (const run of delivery.runs) this.drop(run)
    if (delivery.started > 0 || !this.messages.open.has(delivery)) return
    this.withdraw(delivery, 'dropped')
    this.#session.events.notice.emit({ type: 'inbound-dropped' })
  }

  /** All handlers of the message have ended. */
  private finish(delivery: Delivery): void {
    if (this.messages.finish(delivery)) this.acknowledge()
  }

  private acknowledge(): void {
    const { messages, link } = this
    // Without it, a redelivery of the message would count as another message.
    if (link?.isWritable() !== true) return
    for (let next = messages.take(); next !== undefined; next = messages.take())
      link.send({ cmd: 'puback', messageId: next.packet.messageId ?? 0 })
  }

  /** Removes a message from all queues, if none of its handlers has started. */
  private withdraw(delivery: Delivery, outcome: RunOutcome | undefined): void {
    for (const run of delivery.runs) {
      this.pool.remove(run)
      this.intake.remove(run)
    }
    delivery.runs = []
    this.messages.withdraw(delivery, outcome)
  }
}

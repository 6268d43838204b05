import type { ConnectedSession } from '../../core/connection/connection-state.js'
import { MqttError } from '../../core/errors.js'
import { type AckSlot, AckWindow } from '../../core/inbound/ack-window.js'
import { InboundCount, type InboundCounters } from '../../core/inbound/inbound-count.js'
import type { Link, MessageReceiver, PublishPacket } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { IdleWaiters } from '../waits.js'
import { AckWatch } from './ack-watch.js'
import { Backpressure } from './backpressure.js'
import { BlockedRequests } from './blocked-requests.js'
import { Delivery, HandlerRun } from './delivery.js'
import type { DispatcherRules } from './dispatcher-rules.js'
import { HandlerPool, type PoolListener } from './handler-pool.js'
import { HeldMessages } from './held-messages.js'
import type { InboundHandler, RunOutcome } from './inbound-handler.js'
import { Intake } from './intake.js'
import { Redeliveries } from './redeliveries.js'

/**
 * From the parser to the handlers and back to the acknowledgement. Never keeps the parser waiting, unless it is asked
 * to stall: each handler of a message waits for its turn, and PUBACK leaves when all of them have ended.
 */
export class InboundDispatcher implements ConnectionListener, MessageReceiver, PoolListener {
  readonly pool: HandlerPool
  private readonly intake: Intake
  private readonly redeliveries = new Redeliveries()
  readonly count = new InboundCount()
  private readonly pressure: Backpressure
  private readonly messages: HeldMessages
  /** Left from a lost connection: the next one says whether the broker sends them again. */
  private readonly parked: Delivery[] = []
  private readonly acks = new AckWindow<Delivery>()
  private readonly blocked: BlockedRequests
  private readonly watch: AckWatch
  private link: Link | undefined
  private mode: 'holding' | 'open' | 'draining' | 'stopped' = 'holding'
  private readonly idle = new IdleWaiters(() => this.messages.open.size === 0)

  constructor(readonly rules: DispatcherRules) {
    this.pool = new HandlerPool(rules.concurrency, rules, this)
    this.messages = new HeldMessages(rules.held)
    this.intake = new Intake(rules)
    this.pressure = new Backpressure(rules, this.acks, this.messages)
    this.watch = new AckWatch(this.acks, rules.events.notice)
    this.blocked = new BlockedRequests(rules.maxInFlight, this.acks, this.pool)
  }

  get counters(): InboundCounters {
    const { held } = this.rules
    return {
      ...this.count.counts,
      unreleased: held.unreleased.count,
      queuedBytes: held.bytes,
      oldestUnacknowledgedMs: this.watch.oldestMs,
      waiting: this.messages.open.size - this.messages.started + this.parked.length,
      running: this.messages.started,
    }
  }

  /** Messages that came before wait for this: handlers start when the application is ready for them. */
  start(): void {
    if (this.mode !== 'holding') return
    this.mode = 'open'
    for (const delivery of this.messages.open) {
      if (delivery.runs.length === 0) this.route(delivery, this.rules.select(delivery.packet))
    }
    this.pool.pump(false)
  }

  /**
   * No more work is taken. Resolves when the handlers that run have ended, and those of messages that came before
   * them: their acknowledgements could not leave otherwise. What comes after them is given back to a broker that
   * keeps the session, and handled too where it does not.
   */
  drain(): Promise<void> {
    const wasHolding = this.mode === 'holding'
    this.mode = 'draining'
    this.pressure.end()
    for (const delivery of this.parked.splice(0)) this.giveBack(delivery)
    let last = -1
    for (const delivery of this.messages.open)
      if (delivery.started > 0) last = Math.max(last, this.acks.positionOf(delivery.ack))
    for (const delivery of [...this.messages.open]) {
      if (delivery.started > 0) continue
      if (this.canGiveBack(delivery) && this.acks.positionOf(delivery.ack) > last)
        this.withdraw(delivery, 'givenBack')
      // Held for handlers that will not be started any more.
      else if (wasHolding) this.withdraw(delivery, 'dropped')
    }
    this.pool.pump(false)
    return this.idle.wait()
  }

  /** No handler is started any more, whatever waits, and nobody waits for those that run. */
  stop(): void {
    this.mode = 'stopped'
    for (const delivery of this.parked.splice(0)) this.giveBack(delivery)
    for (const delivery of [...this.messages.open]) {
      if (delivery.started === 0) this.refuse(delivery)
      for (const run of delivery.runs)
        if (this.pool.remove(run) && delivery.end('givenBack')) this.finish(delivery)
    }
    this.pool.stop(new MqttError('CONNECTION_CLOSED', 'the application closes, and waits no longer'))
    this.idle.check()
  }

  /** The connection is closed: what has begun and not ended is not waited for. */
  end(): void {
    for (const delivery of [...this.messages.open]) {
      delivery.giveUp()
      this.finish(delivery)
    }
  }

  message(packet: PublishPacket, link: Link): void {
    this.count.counts.received += 1
    if (packet.qos === 1 && this.takeAgain(packet)) return
    const delivery = new Delivery(packet)
    if (packet.qos === 1 && packet.messageId !== undefined)
      delivery.ack = this.acks.add(packet.messageId, delivery)
    this.messages.add(delivery)
    if (this.mode === 'open') this.route(delivery, this.rules.select(packet))
    else if (this.mode === 'stopped' || (!this.routeInternally(delivery) && this.mode !== 'holding'))
      return this.refuse(delivery)
    if (this.rules.held.isOver || this.mode === 'holding') this.makeRoom(delivery)
    this.pool.pump(false)
    if (packet.qos > 0) this.pressure.bound(link)
    if (packet.qos === 1 && !this.watch.isRunning) this.watch.start()
  }

  stored(link: Link): void {
    this.pressure.bound(link)
  }

  runBegins(run: HandlerRun): void {
    if (run.delivery.packet.qos === 0) this.intake.remove(run)
    this.messages.begins(run.delivery)
  }

  pumped(hasProgressed: boolean): void {
    if (this.pressure.isHolding) {
      if (hasProgressed) this.pressure.progressed()
      if (this.intake.hasRoom) this.pressure.release()
    }
    if (this.mode !== 'open') this.idle.check()
    if (this.pool.blockable > 0) this.blocked.check(this.link)
  }

  runEnded({ delivery }: HandlerRun, outcome: RunOutcome): void {
    if (delivery.end(outcome)) this.finish(delivery)
  }

  connected(link: Link, session: ConnectedSession): void {
    this.link = link
    link.deliverTo(this)
    if (!session.sessionPresent) this.redeliveries.clear()
    for (const delivery of this.parked.splice(0)) {
      // A resumed session brings them again; a forgotten one does not, so they are handled now.
      if (session.sessionPresent) {
        this.giveBack(delivery)
        continue
      }
      delivery.ack = undefined
      this.messages.add(delivery)
      if (this.mode === 'open') this.route(delivery, this.rules.select(delivery.packet))
    }
    this.pool.pump(false)
  }

  lost(): void {
    this.link = undefined
    this.pressure.forget()
    this.blocked.forget()
    this.watch.stop()
    for (const delivery of [...this.messages.open]) {
      if (delivery.started > 0 || !this.canGiveBack(delivery)) continue
      this.withdraw(delivery, this.mode === 'draining' ? 'givenBack' : undefined)
      if (this.mode !== 'draining') this.parked.push(delivery)
    }
    for (const { messageId, message } of this.acks.renew()) {
      if (message.isDone) this.messages.discharge(message)
      if (this.rules.keepsSession && (message.started > 0 || message.isDone))
        this.redeliveries.expect(messageId, message)
    }
  }

  /** A message that waits for its PUBACK, or that a handler has, or had, before the connection was lost. */
  private takeAgain(packet: PublishPacket): boolean {
    // Without DUP the broker reuses the identifier too early: both messages are handled, since none may be lost.
    const isOwed = packet.dup && this.acks.has(packet.messageId, message => message.isSameAs(packet))
    const delivery = isOwed ? undefined : this.redeliveries.claim(packet)
    if (isOwed || delivery !== undefined) this.count.counts.repeated += 1
    if (delivery === undefined) return isOwed
    delivery.ack = this.acks.add(packet.messageId ?? 0, delivery)
    if (delivery.isDone) {
      this.messages.charge(delivery)
      this.acknowledge(delivery.ack)
    }
    return true
  }

  /** Answers to requests are taken in every mode: handlers that are to end may wait for them. */
  private routeInternally(delivery: Delivery): boolean {
    const handlers = this.rules.select(delivery.packet).filter(handler => handler.isInternal)
    if (handlers.length > 0) this.route(delivery, handlers)
    return handlers.length > 0
  }

  private route(delivery: Delivery, handlers: readonly InboundHandler[]): void {
    const { packet } = delivery
    if (handlers.length === 0) {
      this.count.counts.unmatched += 1
      this.rules.events.notice.tell({ type: 'unmatched', topic: packet.topic })
      return this.finish(delivery)
    }
    delivery.runs = handlers.map(handler => {
      const { orderKey } = handler
      if (orderKey === 'topic') return new HandlerRun(delivery, handler, packet.topic)
      const key = orderKey === 'none' ? undefined : orderKey(packet.topic)
      return new HandlerRun(delivery, handler, key)
    })
    for (const run of delivery.runs) this.enqueue(run)
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
    this.rules.events.notice.tell({ type: 'inbound-dropped' })
  }

  /** QoS 0 messages make room for the one that came, and that one goes when it is of QoS 0 and finds no room. */
  private makeRoom(came: Delivery): void {
    const { held, overflow, maxQueued, maxInFlight } = this.rules
    const { open } = this.messages
    const isHolding = this.mode === 'holding'
    const isOver = (): boolean => held.isOver || (isHolding && open.size > maxQueued + maxInFlight)
    if (!isOver() || (overflow === 'stall' && !isHolding && this.pressure.pause(this.link))) return
    // Before the handlers are known, the oldest goes.
    if (isHolding || overflow !== 'drop-newest') {
      for (const older of isHolding ? open : this.intake.messages()) {
        if (!isOver()) return
        if (older !== came && older.packet.qos === 0) this.dropAll(older)
      }
    }
    const isResponse = came.runs.length > 0 && came.runs.every(run => run.handler.isInternal)
    if (came.packet.qos === 0 && !isResponse && held.hasNoRoomFor(came.bytes)) this.dropAll(came)
  }

  /** All runs of a message that have not begun. */
  private dropAll(delivery: Delivery): void {
    if (delivery.started > 0) for (const run of delivery.runs) this.drop(run)
    if (delivery.started > 0 || !this.messages.open.has(delivery)) return
    this.withdraw(delivery, 'dropped')
    this.rules.events.notice.tell({ type: 'inbound-dropped' })
  }

  /** All handlers of the message have ended. */
  private finish(delivery: Delivery): void {
    if (!this.messages.open.has(delivery)) return
    this.messages.leave(delivery)
    delivery.isDone = true
    const isLeft = delivery.outcome === 'givenBack'
    this.count.done(isLeft && !this.canGiveBack(delivery) ? 'dropped' : delivery.outcome)
    if (isLeft || !this.acks.owes(delivery.ack)) this.messages.discharge(delivery)
    if (!isLeft && delivery.ack !== undefined) this.acknowledge(delivery.ack)
  }

  /** The message is done: its PUBACK leaves when those of all before it have. */
  private acknowledge(ack: AckSlot<Delivery>): void {
    for (const { messageId, message } of this.acks.complete(ack)) {
      this.link?.send({ cmd: 'puback', messageId })
      this.messages.discharge(message)
    }
  }

  /** Takes a message of which no handler has begun out of all queues. */
  private withdraw(delivery: Delivery, outcome: RunOutcome | undefined): void {
    for (const run of delivery.runs) {
      this.pool.remove(run)
      this.intake.remove(run)
    }
    delivery.runs = []
    this.messages.leave(delivery)
    if (outcome === undefined) return
    this.messages.discharge(delivery)
    this.count.done(outcome)
  }

  private giveBack(delivery: Delivery): void {
    this.messages.discharge(delivery)
    this.count.done('givenBack')
  }

  /** What comes too late to be handled. */
  private refuse(delivery: Delivery): void {
    this.withdraw(delivery, this.canGiveBack(delivery) ? 'givenBack' : 'dropped')
  }

  private canGiveBack(delivery: Delivery): boolean {
    return this.rules.keepsSession && delivery.ack !== undefined
  }
}

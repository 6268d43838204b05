import { MqttError } from '../../errors.js'
import { IdleWaiters } from '../../idle-waiters.js'
import type { ConnectedSession, ConnectionState } from '../connection/connection-state.js'
import type { Link, PublishPacket } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { Acknowledgements } from './acknowledgements.js'
import { Delivery, HandlerRun } from './delivery.js'
import type { DispatcherRules } from './dispatcher-rules.js'
import { HandlerPool, type PoolListener } from './handler-pool.js'
import { InboundCount, type InboundCounters } from './inbound-count.js'
import type { InboundHandler, RunOutcome } from './inbound-handler.js'
import { Intake } from './intake.js'
import { Redeliveries } from './redeliveries.js'
import { Stall } from './stall.js'

/** So many times as many as may wait, and it is no use to read on. */
const OVERRUN = 10

/**
 * From the parser to the handlers and back to the acknowledgement. Never keeps the parser waiting, unless it is asked
 * to stall: each handler of a message waits for its turn, and PUBACK leaves when all of them have ended.
 */
export class InboundDispatcher implements ConnectionListener, PoolListener {
  readonly pool: HandlerPool
  private readonly intake: Intake
  private readonly redeliveries = new Redeliveries()
  private readonly count = new InboundCount()
  private readonly stall: Stall
  /** Every message that is not done, in the order in which they came. */
  private readonly open = new Set<Delivery>()
  private startedCount = 0
  /** QoS 1 and 2 among those of which no handler has begun. */
  private unstartedAcknowledged = 0
  /** Left from a lost connection: the next one says whether the broker sends them again. */
  private parked: Delivery[] = []
  /** Some brokers send more than Receive Maximum allows, and none knows it on MQTT 3.1.1. */
  private readonly mostUnstarted: number
  private readonly acks = new Acknowledgements()
  private link: Link | undefined
  private mode: 'holding' | 'open' | 'draining' | 'stopped' = 'holding'
  private readonly idle = new IdleWaiters(() => this.open.size === 0)

  constructor(private readonly rules: DispatcherRules) {
    this.pool = new HandlerPool(rules.concurrency, rules, this)
    this.mostUnstarted = rules.maxQueued + rules.maxInFlight
    this.intake = new Intake(rules)
    this.stall = new Stall(rules.awaitsAnswers)
  }

  get counters(): InboundCounters {
    return {
      ...this.count.counted,
      waiting: this.open.size - this.startedCount + this.parked.length,
      running: this.startedCount,
    }
  }

  /** Messages that came before wait for this: handlers start when the application is ready for them. */
  start(): void {
    if (this.mode !== 'holding') return
    this.mode = 'open'
    for (const delivery of this.open) {
      if (delivery.runs.length === 0) this.route(delivery, this.rules.select(delivery.packet))
    }
    this.pump()
  }

  /**
   * No more work is taken. Resolves when the handlers that run have ended, and those of messages that came before
   * them: their acknowledgements could not leave otherwise. What comes after them is given back to a broker that
   * keeps the session, and handled too where it does not.
   */
  drain(): Promise<void> {
    const wasHolding = this.mode === 'holding'
    this.mode = 'draining'
    this.stall.release()
    for (const _left of this.parked.splice(0)) this.count.done('givenBack')
    let last = -1
    for (const delivery of this.open)
      if (delivery.started > 0) last = Math.max(last, this.acks.positionOf(delivery))
    for (const delivery of [...this.open]) {
      if (delivery.started > 0) continue
      if (this.canGiveBack(delivery) && this.acks.positionOf(delivery) > last)
        this.withdraw(delivery, 'givenBack')
      // Held for handlers that will not be started any more.
      else if (wasHolding) this.withdraw(delivery, 'dropped')
    }
    this.pump()
    return this.idle.wait()
  }

  /** No handler is started any more, whatever waits, and nobody waits for those that run. */
  stop(): void {
    this.mode = 'stopped'
    for (const _left of this.parked.splice(0)) this.count.done('givenBack')
    for (const delivery of [...this.open]) {
      if (delivery.started === 0) this.refuse(delivery)
      else this.refuseRest(delivery)
    }
    this.pool.stop(new MqttError('CONNECTION_CLOSED', 'the application closes, and waits no longer'))
    this.idle.check()
  }

  /** The connection is closed: what has begun and not ended is not waited for. */
  end(): void {
    for (const delivery of [...this.open]) {
      delivery.giveUp()
      this.finish(delivery)
    }
  }

  stateChanged(state: ConnectionState, before: ConnectionState): void {
    // Opened again after a close.
    if (before.status !== 'closed' || state.status !== 'connecting') return
    this.mode = 'holding'
    this.pool.restart()
  }

  message(packet: PublishPacket, link: Link): void {
    this.count.received()
    if (packet.qos === 1 && this.takeAgain(packet, link)) return
    const delivery = new Delivery(packet)
    this.acks.owe(delivery, link)
    this.open.add(delivery)
    if (packet.qos > 0) this.unstartedAcknowledged += 1
    if (this.mode === 'open') this.route(delivery, this.rules.select(packet))
    else if (this.mode === 'stopped' || !this.routeInternally(delivery)) {
      if (this.mode !== 'holding') return this.refuse(delivery)
      this.boundHeld()
    }
    this.pump()
    if (this.unstartedAcknowledged > this.mostUnstarted) this.overrun(link)
  }

  runBegins(run: HandlerRun): void {
    const { delivery } = run
    if (delivery.packet.qos === 0) this.intake.remove(run)
    if (delivery.started === 0) {
      this.startedCount += 1
      // Nothing bounds a loop over QoS 2 but this: the broker has handed it over.
      delivery.isHeld = run.handler.isPassive && delivery.packet.qos === 2
      if (delivery.packet.qos > 0 && !delivery.isHeld) this.unstartedAcknowledged -= 1
    }
    delivery.started += 1
  }

  pumped(hasProgressed: boolean): void {
    if (hasProgressed) this.stall.progressed()
    if (this.intake.hasRoom && this.unstartedAcknowledged <= this.rules.maxInFlight) this.stall.release()
    this.idle.check()
  }

  runEnded({ delivery }: HandlerRun, outcome: RunOutcome): void {
    if (delivery.end(outcome)) this.finish(delivery)
  }

  connected(link: Link, session: ConnectedSession): void {
    this.link = link
    const { parked } = this
    this.parked = []
    if (!session.sessionPresent) this.redeliveries.clear()
    for (const delivery of parked) {
      // A resumed session brings them again; a forgotten one does not, so they are handled now.
      if (session.sessionPresent) this.count.done('givenBack')
      else this.readmit(delivery)
    }
    this.pump()
  }

  lost(): void {
    this.link = undefined
    this.stall.forget()
    for (const delivery of [...this.open]) {
      if (delivery.started > 0 || !this.canGiveBack(delivery)) continue
      this.withdraw(delivery, undefined)
      if (this.mode === 'draining') this.count.done('givenBack')
      else this.parked.push(delivery)
    }
    for (const { messageId, message } of this.acks.renew()) {
      if (this.rules.keepsSession && (message.started > 0 || message.isDone))
        this.redeliveries.expect(messageId, message)
    }
  }

  /** A message that a handler has, or had, before the connection was lost. */
  private takeAgain(packet: PublishPacket, link: Link): boolean {
    const delivery = this.redeliveries.claim(packet)
    if (delivery === undefined) return false
    this.count.repeated()
    this.acks.owe(delivery, link, packet.messageId)
    if (delivery.isDone) this.acks.pay(delivery)
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
      this.rules.onUnmatched(packet.topic, this.count.unmatched())
      return this.finish(delivery)
    }
    delivery.runs = handlers.map(handler => new HandlerRun(delivery, handler, handler.orderKey(packet)))
    for (const run of delivery.runs) this.enqueue(run)
  }

  private enqueue(run: HandlerRun): void {
    this.pool.add(run)
    if (run.delivery.packet.qos > 0) return
    const overflow = this.intake.add(run)
    if (overflow === undefined) return
    if (overflow.mayStall && this.link !== undefined && this.stall.pause(this.link)) return
    for (const dropped of overflow.drop) this.drop(dropped)
  }

  /** Before the handlers are known, the oldest goes. */
  private boundHeld(): void {
    if (this.open.size <= this.mostUnstarted) return
    for (const delivery of this.open) {
      if (delivery.packet.qos > 0) continue
      this.withdraw(delivery, 'dropped')
      this.rules.onDropped(this.count.counted.dropped)
      return
    }
  }

  private drop(run: HandlerRun): void {
    this.intake.remove(run)
    if (!this.pool.remove(run)) return
    if (run.delivery.end('dropped')) this.finish(run.delivery)
    this.rules.onDropped(this.count.counted.dropped)
  }

  private overrun(link: Link): void {
    if (!this.stall.pause(link) && this.unstartedAcknowledged > OVERRUN * this.mostUnstarted)
      this.rules.onOverrun()
  }

  private pump(): void {
    this.pool.pump()
    this.pumped(false)
  }

  /** All handlers of the message have ended. */
  private finish(delivery: Delivery): void {
    if (!this.open.has(delivery)) return
    this.leave(delivery)
    delivery.isDone = true
    const isLeft = delivery.outcome === 'givenBack'
    this.count.done(isLeft && !this.canGiveBack(delivery) ? 'dropped' : delivery.outcome)
    if (!isLeft) this.acks.pay(delivery)
  }

  /** Takes a message of which no handler has begun out of all queues. */
  private withdraw(delivery: Delivery, outcome: RunOutcome | undefined): void {
    for (const run of delivery.runs) {
      this.pool.remove(run)
      this.intake.remove(run)
    }
    delivery.runs = []
    this.leave(delivery)
    if (outcome !== undefined) this.count.done(outcome)
  }

  private leave(delivery: Delivery): void {
    this.open.delete(delivery)
    if (delivery.started > 0) this.startedCount -= 1
    if (delivery.isHeld || (delivery.started === 0 && delivery.packet.qos > 0))
      this.unstartedAcknowledged -= 1
  }

  /** What comes too late to be handled. */
  private refuse(delivery: Delivery): void {
    this.withdraw(delivery, this.canGiveBack(delivery) ? 'givenBack' : 'dropped')
  }

  /** Handlers of a message that has begun, and that do not begin any more. */
  private refuseRest(delivery: Delivery): void {
    for (const run of delivery.runs)
      if (this.pool.remove(run) && delivery.end('givenBack')) this.finish(delivery)
  }

  private readmit(delivery: Delivery): void {
    delivery.ack = undefined
    this.open.add(delivery)
    if (delivery.packet.qos > 0) this.unstartedAcknowledged += 1
    if (this.mode === 'open') this.route(delivery, this.rules.select(delivery.packet))
  }

  private canGiveBack(delivery: Delivery): boolean {
    return this.rules.keepsSession && delivery.ack !== undefined
  }
}

import { MqttError } from '../../core/errors.js'
import type { BlockableRequest } from '../../core/inbound/blocked-requests.js'
import type { RunOutcome } from '../../core/inbound/inbound-count.js'
import { RunScheduler } from '../../core/inbound/run-scheduler.js'
import type { InboundOptions } from '../../options/options.js'
import type { ClientEvents, DeliveryEvent } from '../events.js'
import type { DeadLetters } from './dead-letters.js'
import {
  callAs,
  currentContext,
  HandlerAttempt,
  type HandlerRun,
  type InboundHandler,
  tracking,
} from './delivery.js'
import { FailedRuns, type RunHost } from './failed-runs.js'

/** Whose messages the runs of a pool are for. */
export interface RunOwner {
  /** A run that waited is called for the first time. */
  runBegins(run: HandlerRun): void
  runEnded(run: HandlerRun, outcome: RunOutcome): void
  /** What may run has begun. @param hasProgressed a handler has come to an end, or to a pause */
  pumped(hasProgressed: boolean): void
}

/** What a pool works with. */
export interface PoolSession {
  readonly options: { readonly inbound: Pick<Required<InboundOptions>, 'concurrency' | 'maxQueued'> }
  readonly deadLetters: Pick<DeadLetters, 'publish'>
  readonly connection: { hangUp(cause: MqttError): void }
  readonly events: ClientEvents
}

/** Runs handlers when it is their turn. A slot is held while handler code runs, and only then. */
export class HandlerPool implements RunHost {
  private readonly scheduler: RunScheduler<InboundHandler, HandlerRun>
  private readonly failures: FailedRuns
  private readonly events: ClientEvents
  /** Open requests of runs that wait for a delivery at QoS 1. */
  blockable = 0
  /** Requests of runs, and runs, that have ended so far. */
  endedCount = 0
  private unknownRequests = 0
  private isStopped = false
  private willPump = false

  constructor(
    { options, deadLetters, connection, events }: PoolSession,
    private readonly owner: RunOwner,
  ) {
    const { concurrency, maxQueued } = options.inbound
    this.events = events
    this.scheduler = new RunScheduler(concurrency)
    this.failures = new FailedRuns(this, deadLetters, connection, maxQueued)
  }

  /** Starts a run that need not wait. @returns false if it must be added */
  begin(run: HandlerRun): boolean {
    if (this.isStopped || !this.scheduler.begin(run)) return false
    void this.run(run)
    return true
  }

  /** Lets a run wait; `pump` starts it. */
  add(run: HandlerRun): void {
    this.scheduler.add(run)
  }

  /** Takes out a run that has not begun. @returns whether it was waiting */
  remove(run: HandlerRun): boolean {
    return this.scheduler.remove(run)
  }

  /** Starts what may run. @param hasProgressed a handler has come to an end, or to a pause */
  pump(hasProgressed: boolean): void {
    while (!this.isStopped) {
      const run = this.scheduler.take()
      if (run === undefined) break
      if (run.goOn !== undefined) this.goOn(run)
      else {
        this.owner.runBegins(run)
        void this.run(run)
      }
    }
    this.owner.pumped(hasProgressed)
  }

  /** No handler is started any more, and nobody waits for those that run. */
  stop(): void {
    this.isStopped = true
    this.failures.stop()
    for (const run of this.scheduler.takeResuming()) this.goOn(run)
  }

  /** The run that holds the lane for which this one waits. */
  ahead(run: HandlerRun): HandlerRun | undefined {
    return this.scheduler.ahead(run)
  }

  /** Never rejects. */
  private async run(run: HandlerRun): Promise<void> {
    const { delivery } = this.events
    const { isHeard } = delivery
    let outcome: RunOutcome = 'handled'
    run.delivery.started += 1
    if (isHeard) delivery.tell(this.eventOf(run, 'start'))
    try {
      await this.call(run, 1)
    } catch (error) {
      outcome = await this.failures.recover(run, error)
    }
    if (isHeard) delivery.tell({ ...this.eventOf(run, 'end'), outcome })
    run.isEnded = true
    run.attempt = undefined
    this.endedCount += 1
    if (run.context !== undefined) run.context.countRequest = undefined
    const hasNext = this.scheduler.release(run)
    this.owner.runEnded(run, outcome)
    if (hasNext) this.pump(true)
  }

  call(run: HandlerRun, number: number): Promise<unknown> {
    const { handler, delivery } = run
    const attempt = new HandlerAttempt(number, run, this)
    run.attempt = attempt
    const isPlain = handler.timeoutMs === undefined && handler.acknowledges === 'at-end'
    if (isPlain && this.events.aroundRun === undefined && !tracking.isOn)
      return handler.run(delivery.packet, attempt)
    return this.callWithin(run, attempt)
  }

  /** Calls a handler with what its options, its requests and the listeners of the client put around it. */
  private callWithin(run: HandlerRun, attempt: HandlerAttempt): Promise<unknown> {
    const { handler, delivery } = run
    const { aroundRun } = this.events
    const isManual = handler.acknowledges === 'manually' && delivery.packet.qos === 1
    const acknowledged = isManual
      ? new Promise<void>(resolve => {
          attempt.onAck = resolve
        })
      : undefined
    const work = () => callAs(run, this, () => handler.run(delivery.packet, attempt))
    const { name: pattern, timeoutMs } = handler
    const { topic } = delivery.packet
    const started =
      aroundRun === undefined ? work() : aroundRun({ pattern, topic, attempt: attempt.number }, work)
    // The next message may begin when the handler returns; this one waits for its `ack()`.
    const acked = async (): Promise<void> => {
      await started
      attempt.returned()
      await acknowledged
    }
    const ended = acknowledged === undefined ? started : acked()
    return timeoutMs === undefined ? ended : within(timeoutMs, ended, handler, attempt)
  }

  private eventOf(run: HandlerRun, type: DeliveryEvent['type']): DeliveryEvent {
    const { topic, qos } = run.delivery.packet
    return { clientId: this.events.clientId, type, key: run, pattern: run.handler.name, topic, qos }
  }

  paused(run: HandlerRun): void {
    this.scheduler.pause(run)
    this.pump(true)
  }

  resumed(run: HandlerRun): Promise<void> {
    if (this.isStopped) return Promise.resolve()
    return new Promise(resolve => {
      run.goOn = resolve
      this.scheduler.resume(run)
      this.pump(false)
    })
  }

  /** The handler has returned: the next message of the same key may begin. */
  returned(run: HandlerRun): void {
    if (run.state === 'returned') return
    this.scheduler.release(run)
    this.pump(true)
  }

  private goOn(run: HandlerRun): void {
    const { goOn } = run
    run.goOn = undefined
    goOn?.()
  }

  /** From now on runs know their requests. */
  trackRequests(): void {
    tracking.isOn = true
    this.scheduler.startTracking()
  }

  /**
   * A request waits for its response: the run that made it lends its slot.
   * @param request given when it waits for a delivery at QoS 1
   * @returns what says that it has ended
   */
  requestOpened(request?: BlockableRequest): () => void {
    const context = currentContext()
    this.trackRequests()
    if (context === undefined) {
      this.countUnknown(1)
      return () => this.countUnknown(-1)
    }
    const { countRequest, blockable } = context
    // Code that outlives its run has no slot to lend.
    if (countRequest === undefined) return () => {}
    countRequest(1)
    if (request !== undefined) {
      blockable.add(request)
      this.blockable += 1
    }
    return () => {
      this.endedCount += 1
      if (request !== undefined && blockable.delete(request)) this.blockable -= 1
      countRequest(-1)
    }
  }

  countRequest(run: HandlerRun, difference: 1 | -1): void {
    this.scheduler.countRequests(run, difference)
    this.pumpSoon()
  }

  /** A request of code that is no run, or of a run that began before the first request. */
  private countUnknown(difference: 1 | -1): void {
    this.unknownRequests += difference
    this.scheduler.lendUnknown(this.unknownRequests)
    this.pumpSoon()
  }

  /** Not inside the handler that asks: each of many would begin the next one deeper on the stack. */
  private pumpSoon(): void {
    if (this.willPump) return
    this.willPump = true
    queueMicrotask(() => {
      this.willPump = false
      this.pump(false)
    })
  }
}

/** The result of a handler, or the failure of one that takes longer than it may. */
function within<T>(
  timeoutMs: number,
  work: Promise<T>,
  { name }: InboundHandler,
  attempt: HandlerAttempt,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const error = new MqttError('TIMEOUT', `the handler of "${name}" did not end within ${timeoutMs} ms`)
      attempt.abort(error)
      reject(error)
    }, timeoutMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

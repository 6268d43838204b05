import { MqttError } from '../../core/errors.js'
import type { BlockableRequest } from '../../core/inbound/blocked-requests.js'
import type { RunOutcome } from '../../core/inbound/inbound-count.js'
import { RunScheduler } from '../../core/inbound/run-scheduler.js'
import type { InboundOptions } from '../../options/options.js'
import type { ClientEvents } from '../events.js'
import type { DeadLetters } from './dead-letters.js'
import {
  callAs,
  currentContext,
  DeliveryObservation,
  HandlerAttempt,
  type HandlerRun,
  type InboundHandler,
  tracking,
} from './delivery.js'
import { FailedRuns, type RunHost } from './failed-runs.js'

/** The receiver of the events of a pool. */
export interface RunOwner {
  /** A run that waited is called for the first time. */
  runBegins(run: HandlerRun): void
  runEnded(run: HandlerRun, outcome: RunOutcome): void
  /** Runs were started as far as possible. @param hasProgressed a handler has ended or paused */
  pumped(hasProgressed: boolean): void
}

/** Dependencies of a pool. */
export interface PoolSession {
  readonly options: { readonly inbound: Pick<Required<InboundOptions>, 'concurrency' | 'maxQueued'> }
  readonly deadLetters: Pick<DeadLetters, 'publish'>
  readonly connection: { terminate(cause: MqttError): void }
  readonly events: ClientEvents
}

/** Runs handlers in turn. A run holds a slot only while code of its handler executes. */
export class HandlerPool implements RunHost {
  private readonly scheduler: RunScheduler<InboundHandler, HandlerRun>
  private createdFailures: FailedRuns | undefined
  private readonly events: ClientEvents
  /** Open requests of runs that wait for a delivery at QoS 1. */
  blockable = 0
  /** Number of requests of runs, and of runs, that have ended so far. */
  endedCount = 0
  private unknownRequests = 0
  private isStopped = false
  private willPump = false

  /** Private (`#`), so that `util.inspect` does not repeat the session at every level. */
  readonly #session: PoolSession

  constructor(
    session: PoolSession,
    private readonly owner: RunOwner,
  ) {
    this.#session = session
    this.events = session.events
    this.scheduler = new RunScheduler(session.options.inbound.concurrency)
  }

  /** Created with the first failure, because most clients have none. */
  private get failures(): FailedRuns {
    const { deadLetters, connection, options } = this.#session
    this.createdFailures ??= new FailedRuns(this, deadLetters, connection, options.inbound.maxQueued)
    return this.createdFailures
  }

  /** Starts a run if it need not wait. @returns false if it must be added */
  begin(run: HandlerRun): boolean {
    if (this.isStopped || !this.scheduler.begin(run)) return false
    void (this.events.delivery.hasListeners ? this.observe(run) : this.run(run))
    return true
  }

  /** Adds a run that waits. `pump` starts it. */
  add(run: HandlerRun): void {
    this.scheduler.add(run)
  }

  /** Removes a run that has not started. @returns whether it was waiting */
  remove(run: HandlerRun): boolean {
    return this.scheduler.remove(run)
  }

  /** Starts as many runs as possible. @param hasProgressed a handler has ended or paused */
  pump(hasProgressed: boolean): void {
    while (!this.isStopped) {
      const run = this.scheduler.take()
      if (run === undefined) break
      if (run.goOn !== undefined) this.goOn(run)
      else {
        this.owner.runBegins(run)
        void (this.events.delivery.hasListeners ? this.observe(run) : this.run(run))
      }
    }
    this.owner.pumped(hasProgressed)
  }

  /** No handler is started after this, and the client does not wait for running handlers. */
  stop(): void {
    this.isStopped = true
    this.failures.stop()
    for (const run of this.scheduler.takeResuming()) this.goOn(run)
  }

  /** Number of slots in use. */
  get slotsInUse(): number {
    return this.scheduler.held
  }

  /** Returns the run that holds the lane for which this one waits. */
  ahead(run: HandlerRun): HandlerRun | undefined {
    return this.scheduler.ahead(run)
  }

  /** Reports the run. A response is a part of its request, which is reported. */
  private observe(run: HandlerRun): Promise<void> {
    const { handler, delivery } = run
    if (handler.isInternal) return this.run(run)
    run.observation = new DeliveryObservation(this.events, handler, delivery.packet)
    return run.observation.start(() => this.run(run))
  }

  /** Never rejects. */
  private async run(run: HandlerRun): Promise<void> {
    let outcome: RunOutcome = 'handled'
    run.delivery.started += 1
    try {
      await this.call(run, 1)
    } catch (error) {
      outcome = await this.failures.recover(run, error)
    }
    run.observation?.end(outcome)
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
    // Internal handlers make no requests, and on Node 20 tracking slows down every promise of the process.
    if (isPlain && (handler.isInternal || !tracking.isOn)) return handler.run(delivery.packet, attempt)
    return this.callWithin(run, attempt)
  }

  /** Calls a handler with its options and request tracking applied. */
  private callWithin(run: HandlerRun, attempt: HandlerAttempt): Promise<unknown> {
    const { handler, delivery } = run
    const isManual = handler.acknowledges === 'manually' && delivery.packet.qos === 1
    const acknowledged = isManual
      ? new Promise<void>(resolve => {
          attempt.onAck = resolve
        })
      : undefined
    const started = callAs(run, this, () => handler.run(delivery.packet, attempt))
    const { timeoutMs } = handler
    // The next message may start when the handler returns; this one waits for its `ack()`.
    const acked = async (): Promise<void> => {
      await started
      attempt.returned()
      await acknowledged
    }
    const ended = acknowledged === undefined ? started : acked()
    return timeoutMs === undefined ? ended : within(timeoutMs, ended, handler, attempt)
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

  /** The handler has returned: the next message with the same key may start. */
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

  /** Starts to track which run a request belongs to. */
  trackRequests(): void {
    tracking.isOn = true
    this.scheduler.startTracking()
  }

  /**
   * While a request waits for its response, its run releases its slot.
   * @param request set if the request waits for a delivery at QoS 1
   * @returns a function to call when the request has ended
   */
  requestOpened(request?: BlockableRequest): () => void {
    const context = currentContext()
    this.trackRequests()
    if (context === undefined) {
      this.countUnknown(1)
      return () => this.countUnknown(-1)
    }
    const { countRequest, blockable } = context
    // Code that outlives its run has no slot to release.
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

  /** A request of code outside any run, or of a run that started before the first request. */
  private countUnknown(difference: 1 | -1): void {
    this.unknownRequests += difference
    this.scheduler.lendUnknown(this.unknownRequests)
    this.pumpSoon()
  }

  /** Deferred, so that many waiting runs do not start each other deeper and deeper on the stack. */
  private pumpSoon(): void {
    if (this.willPump) return
    this.willPump = true
    queueMicrotask(() => {
      this.willPump = false
      this.pump(false)
    })
  }
}

/** Settles with the result of a handler, or with `TIMEOUT` if the handler exceeds its time limit. */
function within<T>(
  timeoutMs: number,
  work: Promise<T>,
  { name }: InboundHandler,
  attempt: HandlerAttempt,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const error = new MqttError('TIMEOUT', `the handler of "${name}" did not finish within ${timeoutMs} ms`)
      attempt.abort(error)
      reject(error)
    }, timeoutMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

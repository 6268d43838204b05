import type { MqttError } from '../../core/errors.js'
import { RunScheduler } from '../../core/inbound/run-scheduler.js'
import type { HandlerRun } from './delivery.js'
import { HandlerRunner, type RunHost } from './handler-runner.js'
import type { InboundHandler, RunOutcome, RunSurroundings } from './inbound-handler.js'
import { type BlockableRequest, currentContext, trackRuns } from './run-context.js'

/** Events of the runs in a pool. */
export interface PoolListener {
  /** The run is called for the first time. */
  runBegins(run: HandlerRun): void
  runEnded(run: HandlerRun, outcome: RunOutcome): void
  /** What may run has begun. @param hasProgressed a handler has come to an end, or to a pause */
  pumped(hasProgressed: boolean): void
}

/** Runs handlers when it is their turn. A slot is held while handler code runs, and only then. */
export class HandlerPool implements RunHost {
  private readonly scheduler: RunScheduler<InboundHandler, HandlerRun>
  private readonly runner: HandlerRunner
  /** Open requests of runs that wait for a delivery at QoS 1. */
  blockable = 0
  /** Requests of runs, and runs, that have ended so far. */
  endedCount = 0
  private unknownRequests = 0
  private isStopped = false
  private willPump = false

  constructor(
    concurrency: number,
    surroundings: RunSurroundings,
    private readonly listener: PoolListener,
  ) {
    this.scheduler = new RunScheduler(concurrency)
    this.runner = new HandlerRunner(surroundings, this)
  }

  /** `pump` starts it. */
  add(run: HandlerRun): void {
    this.scheduler.add(run)
  }

  /** Takes out a run that has not begun. @returns whether it was waiting */
  remove(run: HandlerRun): boolean {
    return this.scheduler.remove(run)
  }

  /** Starts what may run. @param hasProgressed a handler has come to an end, or to a pause */
  pump(hasProgressed: boolean): void {
    for (let run = this.next(); run !== undefined; run = this.next()) {
      if (run.goOn !== undefined) this.goOn(run)
      else {
        this.listener.runBegins(run)
        this.runner.run(run)
      }
    }
    this.listener.pumped(hasProgressed)
  }

  private next(): HandlerRun | undefined {
    return this.isStopped ? undefined : this.scheduler.take()
  }

  /** No handler is started any more, and nobody waits for those that run. */
  stop(reason: MqttError): void {
    this.isStopped = true
    this.runner.stop(reason)
    for (const run of this.scheduler.takeResuming()) this.goOn(run)
  }

  /** The run that holds the lane for which this one waits. */
  ahead(run: HandlerRun): HandlerRun | undefined {
    return this.scheduler.ahead(run)
  }

  /** From now on runs know their requests. */
  trackRequests(): void {
    trackRuns()
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

  returned(run: HandlerRun): void {
    if (run.state === 'returned') return
    this.scheduler.release(run)
    this.pump(true)
  }

  ended(run: HandlerRun, outcome: RunOutcome): void {
    this.scheduler.release(run)
    run.isEnded = true
    this.endedCount += 1
    if (run.context !== undefined) run.context.countRequest = undefined
    this.listener.runEnded(run, outcome)
    this.pump(true)
  }

  private goOn(run: HandlerRun): void {
    const { goOn } = run
    run.goOn = undefined
    goOn?.()
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

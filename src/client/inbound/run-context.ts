import { AsyncLocalStorage } from 'node:async_hooks'

/** The run that code belongs to. It lets go of the run when that ends, since code that the run began may live on. */
export interface RunContext {
  countRequest: ((difference: 1 | -1) => void) | undefined
  /** Open requests of this run that wait for a delivery at QoS 1. */
  readonly blockable: Set<BlockableRequest>
}

/** A request that the window of the broker may keep from its response. */
export interface BlockableRequest {
  /**
   * What is delivered to this connection at QoS 1: the request, so that it is handled in this process; the response, if the
   * responder publishes it so; or both for sure.
   */
  readonly delivery: 'request' | 'response' | 'both'
  /** Fails it. */
  block(): void
}

interface Run {
  /** Set once the handler was called while runs are tracked. */
  context: RunContext | undefined
}

/** Who counts the requests of a run. */
export interface RequestCounter<R> {
  countRequest(run: R, difference: 1 | -1): void
}

const storage = new AsyncLocalStorage<RunContext>()
let isTracking = false

/** From now on code knows its run. Begins with the first request: on Node 20 it doubles the cost of every promise. */
export function trackRuns(): void {
  isTracking = true
}

/** Calls a handler so that its requests are known to be those of this run. */
export function callAs<R extends Run, T>(run: R, counter: RequestCounter<R>, work: () => T): T {
  if (!isTracking) return work()
  run.context ??= {
    countRequest: difference => counter.countRequest(run, difference),
    blockable: new Set(),
  }
  return storage.run(run.context, work)
}

/** That of the code that asks; undefined for code that no tracked run has called. */
export function currentContext(): RunContext | undefined {
  return isTracking ? storage.getStore() : undefined
}

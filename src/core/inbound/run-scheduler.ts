import { RENEWED_AFTER } from './inbound-count.js'

/** State of a run with regard to its slot. Only a working run holds one. */
export type RunState = 'waiting' | 'working' | 'paused' | 'returned'

/** One handler that runs for one message. */
export interface ScheduledRun<H> {
  readonly handler: H
  /** Runs of one handler with the same key are started in order, one at a time. */
  readonly key: string | undefined
  state: RunState
  /** Number of requests of this run that wait for a response. While there is one, the run releases its slot. */
  openRequests: number
  holdsLane: boolean
  /** Whether requests of this run can be attributed to it. */
  isTracked: boolean
}

interface Limited {
  /** Maximum number of concurrent runs of this handler. */
  readonly concurrency: number
  /** Waits for its consumer, and does not occupy a slot of handlers that do work. */
  readonly isPassive: boolean
}

/** The runs with one key. A waiting run without a key has its own lane. */
interface Lane<R> {
  readonly key: unknown
  readonly waiting: R[]
  /** Taken and not released. */
  busy: R | undefined
}

/** The runs of one handler. */
class HandlerQueue<R> {
  lanes = new Map<unknown, Lane<R>>()
  /** Lanes whose next run can start. They take turns, so that a busy topic does not starve the others. */
  readonly ready = new Set<Lane<R>>()
  /** Paused runs that wait for a slot again. They have priority, because their lanes are closed. */
  readonly resuming: R[] = []
  /** Number of slots that are held. */
  held = 0
  /** Number of working runs that started before requests were tracked. */
  untracked = 0
  private removed = 0

  /** No run of the lane is left. */
  remove(key: unknown): void {
    this.lanes.delete(key)
    this.removed += 1
    if (this.removed < RENEWED_AFTER + this.lanes.size) return
    this.lanes = new Map(this.lanes)
    this.removed = 0
  }
}

/**
 * Decides which handler runs next: handlers take turns, and so do the keys within one handler. No handler, and not all
 * handlers together, hold more slots than their limit. A run holds its lane until it returns, and its slot only while it
 * works.
 */
export class RunScheduler<H extends Limited, R extends ScheduledRun<H>> {
  private readonly queues = new WeakMap<H, HandlerQueue<R>>()
  /** Handlers with waiting runs that are below their own limit. */
  private readonly ready = new Set<H>()
  private readonly readyPassive = new Set<H>()
  /** Handlers with waiting runs that are at their own limit. */
  private readonly limited = new Set<H>()
  /** Number of runs that wait for their first slot. */
  size = 0
  /** Number of slots that are held. */
  held = 0
  /** Number of working runs that are not tracked. */
  untrackedRuns = 0
  private unknownRequests = 0
  private isTracking = false

  constructor(private readonly concurrency: number) {}

  /** Gives a run a slot at once if no waiting run has priority. @returns false if the run must be added */
  begin(run: R): boolean {
    const { handler, key } = run
    const { unknownRequests } = this
    const queue = this.queues.get(handler) ?? this.newQueue(handler)
    if (queue.held >= handler.concurrency + Math.min(unknownRequests, queue.untracked)) return false
    if (queue.ready.size + queue.resuming.length > 0 || queue.lanes.has(key)) return false
    const isTracked = handler.isPassive || this.isTracking
    if (!handler.isPassive) {
      const limit = this.concurrency + Math.min(unknownRequests, this.untrackedRuns)
      if (this.ready.size > 0 || this.held >= limit) return false
      this.held += 1
    }
    if (!isTracked) {
      queue.untracked += 1
      this.untrackedRuns += 1
    }
    queue.held += 1
    run.isTracked = isTracked
    run.state = 'working'
    run.holdsLane = true
    if (key !== undefined) queue.lanes.set(key, { key, waiting: [], busy: run })
    return true
  }

  /** Adds a run that waits for `take`. */
  add(run: R): void {
    const queue = this.queues.get(run.handler) ?? this.newQueue(run.handler)
    const key = run.key ?? run
    let lane = queue.lanes.get(key)
    if (lane === undefined) {
      lane = { key, waiting: [], busy: undefined }
      queue.lanes.set(key, lane)
    }
    lane.waiting.push(run)
    this.size += 1
    if (lane.busy === undefined) queue.ready.add(lane)
    this.sort(run.handler, queue)
  }

  /** Returns the next run that gets a slot: a new one or a paused one. */
  take(): R | undefined {
    const isFree = this.held < this.concurrency + Math.min(this.unknownRequests, this.untrackedRuns)
    return this.takeOf(this.readyPassive) ?? (isFree ? this.takeOf(this.ready) : undefined)
  }

  /** A run releases its slot but holds its lane, so that its messages stay in order. */
  pause(run: R): void {
    if (run.state === 'working') this.change(run, 'paused', run.openRequests)
  }

  /** A paused run, or one that has returned, needs a slot again. `take` assigns it. */
  resume(run: R): void {
    const queue = this.queues.get(run.handler) ?? this.newQueue(run.handler)
    queue.resuming.push(run)
    this.sort(run.handler, queue)
  }

  /** Removes and returns the paused runs that wait for a slot. */
  takeResuming(): R[] {
    const handlers = [...this.ready, ...this.readyPassive, ...this.limited]
    return handlers.flatMap(handler => this.queues.get(handler)?.resuming.splice(0) ?? [])
  }

  /**
   * A run releases its slot and its lane: the next message with the same key may start.
   * @returns whether `take` may return a run
   */
  release(run: R): boolean {
    const { handler, key } = run
    const queue = this.queues.get(handler)
    if (queue === undefined) return false
    if (run.state === 'working') {
      if (!run.isTracked) {
        queue.untracked -= 1
        this.untrackedRuns -= 1
      }
      if (run.openRequests === 0) {
        queue.held -= 1
        if (!handler.isPassive) this.held -= 1
      }
    }
    run.state = 'returned'
    const lane = run.holdsLane ? queue.lanes.get(key) : undefined
    run.holdsLane = false
    if (lane !== undefined) {
      lane.busy = undefined
      if (lane.waiting.length > 0) queue.ready.add(lane)
      else queue.remove(key)
    }
    if (queue.ready.size + queue.resuming.length > 0) this.sort(handler, queue)
    return this.ready.size + this.readyPassive.size > 0
  }

  /**
   * The number of requests of the run that wait for a response has changed by one. The run continues even above the limit.
   */
  countRequests(run: R, difference: 1 | -1): void {
    this.change(run, run.state, run.openRequests + difference)
  }

  /** From now on runs are tracked, except those that are already working. */
  startTracking(): void {
    this.isTracking = true
  }

  /** Requests that may belong to any untracked run. Each one releases a slot of every handler with such runs. */
  lendUnknown(requests: number): void {
    this.unknownRequests = requests
    for (const handler of [...this.limited, ...this.ready]) {
      const queue = this.queues.get(handler)
      if (queue !== undefined) this.sort(handler, queue)
    }
  }

  /** Returns the run that holds the lane of a run that has not started. */
  ahead(run: R): R | undefined {
    return this.queues.get(run.handler)?.lanes.get(run.key)?.busy
  }

  /** Removes a run that has not started. @returns whether it was waiting */
  remove(run: R): boolean {
    const queue = this.queues.get(run.handler)
    const lane = queue?.lanes.get(run.key ?? run)
    const index = lane?.waiting.indexOf(run) ?? -1
    if (queue === undefined || lane === undefined || index === -1) return false
    lane.waiting.splice(index, 1)
    this.size -= 1
    if (lane.waiting.length === 0) {
      queue.ready.delete(lane)
      if (lane.busy === undefined) queue.remove(lane.key)
    }
    this.sort(run.handler, queue)
    return true
  }

  private newQueue(handler: H): HandlerQueue<R> {
    const queue = new HandlerQueue<R>()
    this.queues.set(handler, queue)
    return queue
  }

  private takeOf(ready: Set<H>): R | undefined {
    for (const handler of ready) {
      // Moves the lane behind all others for its next turn.
      ready.delete(handler)
      const queue = this.queues.get(handler)
      const resumed = queue?.resuming.shift()
      const run = resumed ?? (queue === undefined ? undefined : this.takeNew(queue))
      if (run === undefined) continue
      run.isTracked = this.isTracking || handler.isPassive
      this.change(run, 'working', run.openRequests)
      return run
    }
    return undefined
  }

  /** Returns the next run of a handler that has not started, and its lane. */
  private takeNew(queue: HandlerQueue<R>): R | undefined {
    const [lane] = queue.ready
    const run = lane?.waiting.shift()
    if (lane === undefined || run === undefined) return undefined
    queue.ready.delete(lane)
    this.size -= 1
    run.holdsLane = true
    if (run.key === undefined) queue.remove(run)
    else lane.busy = run
    return run
  }

  private change(run: R, state: RunState, openRequests: number): void {
    const { handler } = run
    const queue = this.queues.get(handler) ?? this.newQueue(handler)
    const difference = Number(holdsSlot(state, openRequests)) - Number(holdsSlot(run.state, run.openRequests))
    if (!run.isTracked) {
      const untracked = Number(state === 'working') - Number(run.state === 'working')
      queue.untracked += untracked
      this.untrackedRuns += untracked
    }
    run.state = state
    run.openRequests = openRequests
    queue.held += difference
    if (!handler.isPassive) this.held += difference
    this.sort(handler, queue)
  }

  private sort(handler: H, queue: HandlerQueue<R>): void {
    const ready = handler.isPassive ? this.readyPassive : this.ready
    const hasNext = queue.ready.size + queue.resuming.length > 0
    const isFree = queue.held < handler.concurrency + Math.min(this.unknownRequests, queue.untracked)
    if (hasNext && isFree) ready.add(handler)
    else ready.delete(handler)
    if (hasNext && !isFree) this.limited.add(handler)
    else this.limited.delete(handler)
  }
}

function holdsSlot(state: RunState, openRequests: number): boolean {
  return state === 'working' && openRequests === 0
}

import { OrderedLanes } from './ordered-lanes.js'

/** What a run is doing, as far as its slot is concerned. Only a run that works holds one. */
export type RunState = 'waiting' | 'working' | 'paused' | 'returned'

/** One handler that is to run for one message. */
export interface SchedulerRun<H> {
  readonly handler: H
  readonly key: string | undefined
  state: RunState
  /** Requests of this run that wait for a response. While there is one, the run lends its slot. */
  openRequests: number
  holdsLane: boolean
  /** Whether requests of this run are known to be its own. */
  isTracked: boolean
}

interface Limited {
  /** Runs of this handler at the same time. */
  readonly concurrency: number
  /** Waits for what others ask of it, and takes no slot from handlers that work. */
  readonly isPassive: boolean
}

interface HandlerQueue<R> {
  readonly lanes: OrderedLanes<R & { readonly key: string | undefined }>
  /** Runs that were paused and wait for a slot again. They go first: their lanes are closed. */
  readonly resuming: R[]
  /** Slots that are held. */
  held: number
  /** Runs that work and began before requests were tracked. */
  untracked: number
}

/**
 * Which handler runs next: handlers take turns, and within one handler the keys do. Each handler, and all together,
 * hold no more slots than their limit. A run keeps its lane until it returns, and its slot only while it works.
 */
export class RunScheduler<H extends Limited, R extends SchedulerRun<H>> {
  private readonly queues = new Map<H, HandlerQueue<R>>()
  private readonly ready = new Set<H>()
  private readonly readyPassive = new Set<H>()
  private waiting = 0
  private held = 0
  private untracked = 0
  private unknownRequests = 0
  private isTracking = false

  constructor(private readonly concurrency: number) {}

  /** How many wait for their first slot. */
  get size(): number {
    return this.waiting
  }

  add(run: R): void {
    const queue = this.queueOf(run.handler)
    queue.lanes.add(run)
    this.waiting += 1
    this.sort(run.handler, queue)
  }

  /** The next run that gets a slot: a new one, or one that was paused. */
  take(): R | undefined {
    const isFree = this.held < this.concurrency + Math.min(this.unknownRequests, this.untracked)
    return this.takeOf(this.readyPassive) ?? (isFree ? this.takeOf(this.ready) : undefined)
  }

  /** A run gives its slot back, and keeps its lane: the order of its messages stays. */
  pause(run: R): void {
    if (run.state === 'working') this.change(run, 'paused', run.openRequests)
  }

  /** A run that was paused, or has returned, wants a slot again; `take` gives it. */
  resume(run: R): void {
    const queue = this.queueOf(run.handler)
    queue.resuming.push(run)
    this.sort(run.handler, queue)
  }

  /** Takes out the runs that were paused and wait for a slot. */
  takeResuming(): R[] {
    return [...this.queues.values()].flatMap(queue => queue.resuming.splice(0))
  }

  /** A run gives back its slot and its lane: the next message of its key may begin. */
  release(run: R): void {
    this.change(run, 'returned', run.openRequests)
    if (!run.holdsLane) return
    run.holdsLane = false
    const queue = this.queueOf(run.handler)
    queue.lanes.release(run)
    this.sort(run.handler, queue)
  }

  /** The run has one more request that waits for a response, or one less. It goes on above the limit. */
  countRequests(run: R, difference: 1 | -1): void {
    this.change(run, run.state, run.openRequests + difference)
  }

  /** From now on runs know their requests. What works already does not. */
  startTracking(): void {
    if (this.isTracking) return
    this.isTracking = true
    for (const [handler, queue] of this.queues) {
      if (handler.isPassive) continue
      queue.untracked = queue.held
      this.untracked += queue.held
    }
  }

  /** Requests that wait and may belong to any run that is not tracked: each lends one slot of every such handler. */
  lendUnknown(requests: number): void {
    this.unknownRequests = requests
    for (const [handler, queue] of this.queues) if (queue.untracked > 0) this.sort(handler, queue)
  }

  /** How many runs work without being tracked. */
  get untrackedRuns(): number {
    return this.untracked
  }

  /** The run that keeps the lane of one that has not begun. */
  ahead(run: R): R | undefined {
    return this.queues.get(run.handler)?.lanes.ahead(run)
  }

  /** Takes out a run that has not begun. @returns whether it was waiting */
  remove(run: R): boolean {
    const queue = this.queues.get(run.handler)
    if (queue === undefined || !queue.lanes.remove(run)) return false
    this.waiting -= 1
    this.sort(run.handler, queue)
    return true
  }

  private queueOf(handler: H): HandlerQueue<R> {
    let queue = this.queues.get(handler)
    if (queue === undefined) {
      queue = { lanes: new OrderedLanes(), resuming: [], held: 0, untracked: 0 }
      this.queues.set(handler, queue)
    }
    return queue
  }

  private takeOf(ready: Set<H>): R | undefined {
    for (const handler of ready) {
      // Behind all the others, for its next turn.
      ready.delete(handler)
      const queue = this.queues.get(handler)
      if (queue === undefined) continue
      const resumed = queue.resuming.shift()
      const run = resumed ?? queue.lanes.take()
      if (run === undefined) continue
      if (resumed === undefined) {
        this.waiting -= 1
        run.holdsLane = true
      }
      run.isTracked = this.isTracking || handler.isPassive
      this.change(run, 'working', run.openRequests)
      return run
    }
    return undefined
  }

  private change(run: R, state: RunState, openRequests: number): void {
    const { handler } = run
    const queue = this.queueOf(handler)
    const difference = Number(holdsSlot(state, openRequests)) - Number(holdsSlot(run.state, run.openRequests))
    if (run.state === 'working' && state !== 'working' && this.isTracking && !run.isTracked) {
      queue.untracked -= 1
      this.untracked -= 1
    }
    run.state = state
    run.openRequests = openRequests
    queue.held += difference
    if (!handler.isPassive) this.held += difference
    this.sort(handler, queue)
  }

  private sort(handler: H, queue: HandlerQueue<R>): void {
    const ready = handler.isPassive ? this.readyPassive : this.ready
    const limit = handler.concurrency + Math.min(this.unknownRequests, queue.untracked)
    if ((queue.lanes.isReady || queue.resuming.length > 0) && queue.held < limit)
      return void ready.add(handler)
    ready.delete(handler)
    if (queue.held === 0 && queue.lanes.isEmpty && queue.resuming.length === 0) this.queues.delete(handler)
  }
}

function holdsSlot(state: RunState, openRequests: number): boolean {
  return state === 'working' && openRequests === 0
}

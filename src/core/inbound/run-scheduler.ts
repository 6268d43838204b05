/** What a run is doing, as far as its slot is concerned. Only a run that works holds one. */
export type RunState = 'waiting' | 'working' | 'paused' | 'returned'

/** One handler that is to run for one message. */
export interface ScheduledRun<H> {
  readonly handler: H
  /** Runs of one handler with the same key are taken in order, one at a time. */
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

/** The runs of one key; a run without a key has a lane of its own while it waits. */
interface Lane<R> {
  readonly key: unknown
  readonly waiting: R[]
  /** Taken, and not released. */
  busy: R | undefined
}

/** The runs of one handler. */
class HandlerQueue<R> {
  readonly lanes = new Map<unknown, Lane<R>>()
  /** Lanes of which one can be taken. They take turns, so that a busy topic does not starve the others. */
  readonly ready = new Set<Lane<R>>()
  /** Runs that were paused and wait for a slot again. They go first: their lanes are closed. */
  readonly resuming: R[] = []
  /** Slots that are held. */
  held = 0
  /** Runs that work and began before requests were tracked. */
  untracked = 0
}

/**
 * Which handler runs next: handlers take turns, and within one handler the keys do. Each handler, and all together,
 * hold no more slots than their limit. A run keeps its lane until it returns, and its slot only while it works.
 */
export class RunScheduler<H extends Limited, R extends ScheduledRun<H>> {
  private readonly queues = new WeakMap<H, HandlerQueue<R>>()
  /** Handlers with something to take, within their own limit, */
  private readonly ready = new Set<H>()
  private readonly readyPassive = new Set<H>()
  /** and at it. */
  private readonly limited = new Set<H>()
  /** How many wait for their first slot. */
  size = 0
  private held = 0
  /** How many runs work without being tracked. */
  untrackedRuns = 0
  private unknownRequests = 0
  private isTracking = false

  constructor(private readonly concurrency: number) {}

  /** Gives a run its slot at once, if nothing that waits is before it. @returns false if it must be added */
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

  /** Lets a run wait for `take`. */
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

  /** The next run that gets a slot: a new one, or one that was paused. */
  take(): R | undefined {
    const isFree = this.held < this.concurrency + Math.min(this.unknownRequests, this.untrackedRuns)
    return this.takeOf(this.readyPassive) ?? (isFree ? this.takeOf(this.ready) : undefined)
  }

  /** A run gives its slot back, and keeps its lane: the order of its messages stays. */
  pause(run: R): void {
    if (run.state === 'working') this.change(run, 'paused', run.openRequests)
  }

  /** A run that was paused, or has returned, wants a slot again; `take` gives it. */
  resume(run: R): void {
    const queue = this.queues.get(run.handler) ?? this.newQueue(run.handler)
    queue.resuming.push(run)
    this.sort(run.handler, queue)
  }

  /** Takes out the runs that were paused and wait for a slot. */
  takeResuming(): R[] {
    const handlers = [...this.ready, ...this.readyPassive, ...this.limited]
    return handlers.flatMap(handler => this.queues.get(handler)?.resuming.splice(0) ?? [])
  }

  /**
   * A run gives back its slot and its lane: the next message of its key may begin.
   * @returns whether `take` may find something
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
      else queue.lanes.delete(key)
    }
    if (queue.ready.size + queue.resuming.length > 0) this.sort(handler, queue)
    return this.ready.size + this.readyPassive.size > 0
  }

  /** The run has one more request that waits for a response, or one less. It goes on above the limit. */
  countRequests(run: R, difference: 1 | -1): void {
    this.change(run, run.state, run.openRequests + difference)
  }

  /** From now on runs know their requests. What works already does not. */
  startTracking(): void {
    this.isTracking = true
  }

  /** Requests that wait and may belong to any run that is not tracked: each lends one slot of every such handler. */
  lendUnknown(requests: number): void {
    this.unknownRequests = requests
    for (const handler of [...this.limited, ...this.ready]) {
      const queue = this.queues.get(handler)
      if (queue !== undefined) this.sort(handler, queue)
    }
  }

  /** The run that keeps the lane of one that has not begun. */
  ahead(run: R): R | undefined {
    return this.queues.get(run.handler)?.lanes.get(run.key)?.busy
  }

  /** Takes out a run that has not begun. @returns whether it was waiting */
  remove(run: R): boolean {
    const queue = this.queues.get(run.handler)
    const lane = queue?.lanes.get(run.key ?? run)
    const index = lane?.waiting.indexOf(run) ?? -1
    if (queue === undefined || lane === undefined || index === -1) return false
    lane.waiting.splice(index, 1)
    this.size -= 1
    if (lane.waiting.length === 0) {
      queue.ready.delete(lane)
      if (lane.busy === undefined) queue.lanes.delete(lane.key)
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
      // Behind all the others, for its next turn.
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

  /** The next run of a handler that has not begun, and its lane. */
  private takeNew(queue: HandlerQueue<R>): R | undefined {
    const [lane] = queue.ready
    const run = lane?.waiting.shift()
    if (lane === undefined || run === undefined) return undefined
    queue.ready.delete(lane)
    this.size -= 1
    run.holdsLane = true
    if (run.key === undefined) queue.lanes.delete(run)
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

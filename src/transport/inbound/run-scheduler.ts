import { OrderedLanes } from './ordered-lanes.js'

/** One handler that is to run for one message. */
interface Run<H> {
  readonly handler: H
  readonly key: string | undefined
}

interface Limited {
  /** Runs of this handler at the same time. */
  readonly concurrency: number
  /** Waits for what others ask of it, and takes no room from handlers that work. */
  readonly isPassive: boolean
}

interface HandlerQueue<R> {
  readonly lanes: OrderedLanes<R & { readonly key: string | undefined }>
  running: number
}

/**
 * Which handler runs next: handlers take turns, and within one handler the keys do; each handler, and all together,
 * run no more at a time than they may.
 */
export class RunScheduler<H extends Limited, R extends Run<H>> {
  private readonly queues = new Map<H, HandlerQueue<R>>()
  private readonly ready = new Set<H>()
  private readonly readyPassive = new Set<H>()
  private waiting = 0
  private active = 0

  constructor(private readonly concurrency: number) {}

  /** How many wait. */
  get size(): number {
    return this.waiting
  }

  add(run: R): void {
    let queue = this.queues.get(run.handler)
    if (queue === undefined) {
      queue = { lanes: new OrderedLanes(), running: 0 }
      this.queues.set(run.handler, queue)
    }
    queue.lanes.add(run)
    this.waiting += 1
    this.sort(run.handler, queue)
  }

  /** The next one that may run, which then runs until `release`. */
  take(): R | undefined {
    return (
      this.takeOf(this.readyPassive) ?? (this.active < this.concurrency ? this.takeOf(this.ready) : undefined)
    )
  }

  /** One that was taken has ended. */
  release(run: R): void {
    const { handler } = run
    const queue = this.queues.get(handler)
    if (queue === undefined) return
    queue.running -= 1
    if (!handler.isPassive) this.active -= 1
    queue.lanes.release(run)
    this.sort(handler, queue)
  }

  /** Takes out one that waits. @returns whether it waited */
  remove(run: R): boolean {
    const queue = this.queues.get(run.handler)
    if (queue === undefined || !queue.lanes.remove(run)) return false
    this.waiting -= 1
    this.sort(run.handler, queue)
    return true
  }

  private takeOf(ready: Set<H>): R | undefined {
    for (const handler of ready) {
      // Behind all the others, for its next turn.
      ready.delete(handler)
      const queue = this.queues.get(handler)
      const run = queue?.lanes.take()
      if (queue === undefined || run === undefined) continue
      this.waiting -= 1
      queue.running += 1
      if (!handler.isPassive) this.active += 1
      this.sort(handler, queue)
      return run
    }
    return undefined
  }

  private sort(handler: H, queue: HandlerQueue<R>): void {
    const ready = handler.isPassive ? this.readyPassive : this.ready
    if (queue.lanes.isReady && queue.running < handler.concurrency) ready.add(handler)
    else {
      ready.delete(handler)
      if (queue.running === 0 && queue.lanes.size === 0) this.queues.delete(handler)
    }
  }
}

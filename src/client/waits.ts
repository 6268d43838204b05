/** Whether `work` settled within `timeoutMs`. What it settles with is the caller's business; it is not awaited further. */
export function settlesWithin(work: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  return new Promise(resolve => {
    const timer = setTimeout(() => resolve(false), timeoutMs)
    const settled = () => {
      clearTimeout(timer)
      resolve(true)
    }
    work.then(settled, settled)
  })
}

/** Those who wait until nothing is left to do. */
export class IdleWaiters {
  /** Those who wait. */
  waiting: (() => void)[] = []

  constructor(private readonly isIdle: () => boolean) {}

  /** Resolves at once, or with the next `check` that finds nothing left. */
  wait(): Promise<void> {
    if (this.isIdle()) return Promise.resolve()
    return new Promise(resolve => this.waiting.push(resolve))
  }

  check(): void {
    if (this.waiting.length === 0 || !this.isIdle()) return
    const { waiting } = this
    this.waiting = []
    for (const wake of waiting) wake()
  }
}

/** Waits that can all be ended early. */
export class Pauses {
  private readonly open = new Map<NodeJS.Timeout, () => void>()

  /** Resolves after the delay, in milliseconds, or with `end`. */
  wait(delayMs: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(() => {
        this.open.delete(timer)
        resolve()
      }, delayMs)
      this.open.set(timer, resolve)
    })
  }

  end(): void {
    for (const [timer, goOn] of this.open) {
      clearTimeout(timer)
      goOn()
    }
    this.open.clear()
  }
}

/** Deadlines that end soon after each other are handled together. */
const DEADLINE_PAUSE_MS = 10
/** A longer delay would fire at once. */
const MAX_TIMER_MS = 0x7fff_ffff

/** One timer for many deadlines: it fires when the first one is over. */
export class DeadlineTimer {
  /** When it fires. */
  dueMs = Number.POSITIVE_INFINITY
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly onDeadline: () => void) {}

  arm(dueMs: number): void {
    if (dueMs >= this.dueMs) return
    this.stop()
    this.dueMs = dueMs
    const delayMs = Math.min(MAX_TIMER_MS, Math.max(DEADLINE_PAUSE_MS, dueMs - performance.now()))
    this.timer = setTimeout(() => {
      this.dueMs = Number.POSITIVE_INFINITY
      this.onDeadline()
    }, delayMs)
  }

  stop(): void {
    clearTimeout(this.timer)
    this.dueMs = Number.POSITIVE_INFINITY
  }
}

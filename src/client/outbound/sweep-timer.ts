/** Many deadlines in a row are one sweep. */
const SWEEP_PAUSE_MS = 10
/** A longer delay would fire at once. */
const MAX_TIMER_MS = 0x7fff_ffff

/** Wakes when the first deadline is over. */
export class SweepTimer {
  private timer: NodeJS.Timeout | undefined
  private dueMs = Number.POSITIVE_INFINITY

  constructor(private readonly sweep: () => void) {}

  arm(dueMs: number): void {
    if (dueMs >= this.dueMs) return
    this.stop()
    this.dueMs = dueMs
    const delayMs = Math.min(MAX_TIMER_MS, Math.max(SWEEP_PAUSE_MS, dueMs - performance.now()))
    this.timer = setTimeout(() => {
      this.dueMs = Number.POSITIVE_INFINITY
      this.sweep()
    }, delayMs)
  }

  stop(): void {
    clearTimeout(this.timer)
    this.dueMs = Number.POSITIVE_INFINITY
  }
}

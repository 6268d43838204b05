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

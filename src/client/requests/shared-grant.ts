/** Told when the topic is granted, or why it is not. */
type Waiter = (refused: unknown) => void

/**
 * Waits for the grant of one topic on behalf of many. Each of them can leave, and then nothing is kept of it: a broker that
 * never answers SUBSCRIBE must not make requests that timed out pile up.
 */
export class SharedGrant {
  private readonly waiters = new Set<Waiter>()
  private isAsked = false

  constructor(private readonly whenGranted: () => Promise<void>) {}

  /** @returns what leaves */
  wait(waiter: Waiter): () => void {
    this.waiters.add(waiter)
    this.ask()
    return () => this.waiters.delete(waiter)
  }

  private ask(): void {
    if (this.isAsked) return
    this.isAsked = true
    this.whenGranted().then(
      () => this.settle(undefined),
      (error: unknown) => this.settle(error),
    )
  }

  private settle(refused: unknown): void {
    this.isAsked = false
    const waiters = [...this.waiters]
    this.waiters.clear()
    for (const waiter of waiters) waiter(refused)
  }
}

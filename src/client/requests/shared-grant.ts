/** Told when the topic is granted, or why it is not. */
type Waiter = (refused: unknown) => void

/**
 * Waits for the grant of one topic on behalf of many requests. A request that times out leaves nothing behind, so that a
 * broker that never responds to SUBSCRIBE does not make memory grow.
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

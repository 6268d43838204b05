/** Asks for what was refused again, after delays that grow: access rules change while a connection lasts. */
export class RefusalRetry {
  private timer: NodeJS.Timeout | undefined
  private rounds = 0

  constructor(
    /** @param round refusals in a row, from 1 */
    private readonly delayMs: (round: number, subscription: string) => number,
    private readonly retry: () => void,
  ) {}

  /** Every SUBSCRIBE is answered. @param refused one of those that were refused, if any */
  answered(refused: string | undefined): void {
    if (refused === undefined) {
      this.rounds = 0
      return
    }
    this.rounds += 1
    this.stop()
    this.timer = setTimeout(() => this.retry(), this.delayMs(this.rounds, refused))
  }

  stop(): void {
    clearTimeout(this.timer)
  }
}

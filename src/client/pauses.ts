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

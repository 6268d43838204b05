/** A promise that the test resolves, and that reports when code waits for it. */
export class Gate {
  readonly #reached: Promise<void>
  readonly #opened: Promise<void>
  #reach: () => void = () => {}
  open: () => void = () => {}

  constructor() {
    this.#reached = new Promise(resolve => {
      this.#reach = resolve
    })
    this.#opened = new Promise(resolve => {
      this.open = resolve
    })
  }

  /** Waits until the test opens the gate. */
  pass(): Promise<void> {
    this.#reach()
    return this.#opened
  }

  /** Resolves when code waits at the gate, or has passed it. */
  reached(): Promise<void> {
    return this.#reached
  }
}

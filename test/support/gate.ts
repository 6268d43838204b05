/** A promise that the test opens, and that says when somebody waits at it. */
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

  /** Resolves when somebody waits at the gate, or has passed it. */
  reached(): Promise<void> {
    return this.#reached
  }
}

const HIDDEN = '[hidden]'

/** Holds a secret. Only `reveal()` returns it; `util.inspect` and JSON do not show it. */
export class Sealed<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  /** A method, because `util.inspect` can be configured to call getters. */
  reveal(): T {
    return this.#value
  }

  toJSON(): string {
    return HIDDEN
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return HIDDEN
  }
}

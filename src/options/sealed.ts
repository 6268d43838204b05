const HIDDEN = '[hidden]'

/** Holds what belongs into no log: nothing but `reveal()` gives it, neither `util.inspect` nor JSON. */
export class Sealed<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  /** A method, not a getter: `util.inspect` can be told to call getters. */
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

import timers from 'node:timers'

// Stored when this module is loaded, so that the test kit does not use the fake timers of a test.
const { setTimeout, clearTimeout, setImmediate } = timers

/** Default time limit of the test kit. Shorter than the 5 s limit of Jest and Vitest, so that the test shows our error. */
export const WAIT_MS = 4_000

/** Settles like `work`, or rejects with the message of `explain()` after `timeoutMs`. */
export function within<T>(work: Promise<T>, timeoutMs: number, explain: () => string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(explain())), timeoutMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/** Waits for one turn of the event loop, in which sockets are read. */
export function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

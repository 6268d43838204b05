import timers from 'node:timers'

// Taken when this module is loaded, so that the fake timers of a test do not hold up the kit.
const { setTimeout, clearTimeout, setImmediate } = timers

/** Default deadline of every wait of the kit. Below the 5 s that Jest and Vitest give a test, so that its error is seen. */
export const WAIT_MS = 4_000

/** Settles as `work` does, or rejects with `explain()` when that takes longer than `timeoutMs`. */
export function within<T>(work: Promise<T>, timeoutMs: number, explain: () => string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(explain())), timeoutMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/** One turn of the event loop, in which what has arrived is read. */
export function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

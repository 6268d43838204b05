import { setImmediate as nextTurn } from 'node:timers/promises'

/** Shorter than the time limit of a test, so that the loop ends before the test is given up. */
const LIMIT_NS = 15_000_000_000n

/**
 * Lets the event loop turn until a condition holds, or fails after 15 s. For conditions on something outside this
 * process, which sends no event.
 */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  const start = process.hrtime.bigint()
  while (!(await condition())) {
    if (process.hrtime.bigint() - start > LIMIT_NS) throw new Error(`this did not come true: ${condition}`)
    await nextTurn()
  }
}

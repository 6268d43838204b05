import { setImmediate as nextTurn } from 'node:timers/promises'

/**
 * Lets the event loop turn until a condition holds; the test's own time limit bounds the wait. For conditions
 * on something outside this process, which sends no event.
 */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await nextTurn()
}

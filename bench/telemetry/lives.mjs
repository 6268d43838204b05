// Two processes that run the same code differ by up to a third, because the compiler decides differently in each. So one
// process runs every mode, one after the other, and only figures of the same process are compared.
import { NOISE, rowOf } from '../report/row.mjs'

const MODES = ['ours', 'off', 'metrics', 'traced']
/** Recording costs several times as much as the work itself. */
const SHARE = { ours: 1, off: 1, metrics: 0.1, traced: 0.1 }
const LIVES = 5
const WARM_UP = 2

/**
 * Measures a question in several processes, and returns the row of the process whose ratio is the median.
 * @param start starts a process, and resolves with `record(mode)`, `ask(messages)`, which resolves
 * with figures, and `end()`
 */
export async function rowOfLives(name, { messages, rounds }, start) {
  const lives = []
  for (let life = 0; life < LIVES; life += 1) {
    const { record, ask, end } = await start()
    const figures = {}
    for (const mode of MODES) {
      await record(mode)
      figures[mode] = await best(rounds, () => ask(messages * SHARE[mode]))
    }
    await end()
    lives.push(figures)
  }
  const ratio = ({ ours, off }) => ours.cpuMicros / off.cpuMicros
  const sorted = lives.toSorted((one, other) => ratio(one) - ratio(other))
  const [least, middle, most] = [sorted[0], sorted[Math.floor(LIVES / 2)], sorted.at(-1)]
  middle.ours.spread = ratio(most) - ratio(least)
  // After it is disabled, it must cost nothing beyond the noise of a run.
  return rowOf(name, middle, [{ figure: 'cpuMicros', peer: 'off', atLeast: 1 - NOISE }])
}

/** The round that used least CPU: others were disturbed. */
async function best(rounds, ask) {
  let least
  for (let round = -WARM_UP; round < rounds; round += 1) {
    const figures = await ask()
    if (round >= 0 && !(least?.cpuMicros <= figures.cpuMicros)) least = figures
  }
  return least
}

// Subjects alternate round by round, so that noise of the machine affects all of them equally.
import { readFileSync } from 'node:fs'

export const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

/** The first round warms up and does not count. `ask(subject)` resolves with an object of numbers. */
export async function inTurn(subjects, rounds, ask) {
  const rows = Object.fromEntries(subjects.map(subject => [subject, []]))
  for (let round = -1; round < rounds; round += 1) {
    for (const subject of subjects) {
      const row = await ask(subject)
      if (round >= 0) rows[subject].push(row)
    }
  }
  return Object.fromEntries(Object.entries(rows).map(([subject, list]) => [subject, summary(list)]))
}

/** The median of each figure, and the sum of what was lost; `spread` is (largest - smallest) / median of the first one. */
function summary(rows) {
  const figures = Object.keys(rows[0])
  const first = rows.map(row => row[figures[0]])
  const spread = (Math.max(...first) - Math.min(...first)) / median(first)
  return {
    ...Object.fromEntries(figures.map(figure => [figure, median(rows.map(row => row[figure]))])),
    ...(rows[0].lost === undefined ? {} : { lost: rows.reduce((sum, { lost }) => sum + lost, 0) }),
    spread,
  }
}

const MICROS_PER_TICK = 10_000

/** CPU time of a process, in microseconds; undefined on systems other than Linux. */
export function cpuMicrosOf(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
    return (Number(fields[11]) + Number(fields[12])) * MICROS_PER_TICK
  } catch {
    return undefined
  }
}

/** CPU time that `work` used in the process `pid`, in microseconds per message. */
export async function costOf(pid, messages, work) {
  const before = pid === undefined ? undefined : cpuMicrosOf(pid)
  const row = await work()
  const after = before === undefined ? undefined : cpuMicrosOf(pid)
  return after === undefined ? row : { ...row, brokerMicros: (after - before) / messages }
}

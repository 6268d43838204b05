// The table of docs/opentelemetry.md, from the kept results.
import { readFileSync } from 'node:fs'
import { cellOf } from '../report/row.mjs'

const RESULTS = new URL('../results/', import.meta.url)
const NAMES = ['telemetry', 'telemetry-inbound']
const MODES = { ours: 'without', off: 'disabled again', metrics: 'metrics', traced: 'traces and metrics' }

const HEAD = `| CPU time | ${Object.values(MODES).join(' | ')} |\n|---|${'---|'.repeat(Object.keys(MODES).length)}`

/** Two lines of head, and one for each row of the results. */
export function costsTable() {
  const rows = NAMES.flatMap(name => JSON.parse(readFileSync(new URL(`${name}.json`, RESULTS), 'utf8')).rows)
  const lines = rows.map(({ name, figures }) => {
    const cells = Object.keys(MODES).map(mode => cellOf({ cpuMicros: figures[mode].cpuMicros }))
    return `| ${name} | ${cells.join(' | ')} |`
  })
  return [HEAD, ...lines].join('\n')
}

/** The table in the page, whose numbers may be old. */
export const COSTS = /\| CPU time \|.*\n\|---.*(?:\n\|.*)*/

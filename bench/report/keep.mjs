// Writes the results of a run: <name>.json, .md and .svg, in results/ for the full form and in results/quick/ for the quick
// one. docs/benchmarks.md is made from the full results of all benchmarks, and the table of docs/opentelemetry.md from those of
// the instrumentation.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { COSTS, costsTable } from '../telemetry/costs.mjs'
import { barsOf, plotsOf } from './chart.mjs'
import { markdownOf } from './table.mjs'

const RESULTS = new URL('../results/', import.meta.url)
const DOCS = new URL('../../docs/', import.meta.url)
const rounded = (_, value) => (typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value)

const machine = () =>
  `Node ${process.versions.node}, ${cpus().length} × ${cpus()[0]?.model.trim()}, broker and clients on the same machine`

const sectionOf = ({ title, rows }) => `## ${title}\n\n${markdownOf(rows)}\n`

const INTRODUCTION = `\`npm run bench -- all\`, in a clone of the repository, measures these figures and writes this page; \`--quick\` runs fewer and shorter
rounds. Every figure is the median of alternating rounds within one run.

- A cell shows messages per second and the CPU time of the client's process per message. For requests, it also shows the median and
  the 99th percentile of the response time.
- "built-in" is Nest's own transport. "floor" is a bare socket with ready-made packets; under "Growth", it is the cost with the
  smallest number.
- "free peer" is a broker that only acknowledges or only publishes, so fast that the client is the limit. On mosquitto, broker and
  client share the machine.
- "verdict" compares the ratio with the budget.`

/** @param order names of the benchmarks, in the order of the page */
export function keep(sections, { isQuick, order }) {
  const folder = isQuick ? new URL('quick/', RESULTS) : RESULTS
  mkdirSync(folder, { recursive: true })
  for (const { name, title, rows } of sections) {
    const svg = rows.every(({ points }) => points !== undefined) ? plotsOf(title, rows) : barsOf(title, rows)
    writeFileSync(new URL(`${name}.svg`, folder), svg)
    writeFileSync(new URL(`${name}.json`, folder), `${JSON.stringify({ title, rows }, rounded, 1)}\n`)
    writeFileSync(new URL(`${name}.md`, folder), `${sectionOf({ title, rows })}\n${machine()}\n`)
  }
  if (isQuick) return
  if (sections.some(({ name }) => order.includes(name)))
    writeFileSync(new URL('benchmarks.md', DOCS), pageOf(order))
  if (sections.some(({ name }) => name.startsWith('telemetry'))) writeCosts()
}

function writeCosts() {
  const page = new URL('opentelemetry.md', DOCS)
  writeFileSync(page, readFileSync(page, 'utf8').replace(COSTS, costsTable()))
}

function pageOf(order) {
  const results = order
    .map(name => new URL(`${name}.json`, RESULTS))
    .filter(file => existsSync(file))
    .map(file => JSON.parse(readFileSync(file, 'utf8')))
  return `# Benchmarks\n\n${INTRODUCTION}\n\n${machine()}.\n\n${results.map(sectionOf).join('\n')}`
}

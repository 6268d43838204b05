// npm run bench -- <name>: one file per question. Every number is a ratio within one run.
// npm run bench -- <name> --against=<folder>: compares this build with that of another checkout, in the same run. The other
// one must have the same bench folder; of `all`, the benchmarks publish, inbound and request do this.
// npm run bench -- all [--quick]: the benchmarks that compare rows, in one table; kept as Markdown, JSON and SVG.
import { readdirSync } from 'node:fs'
import { keep } from './report/keep.mjs'
import { textOf } from './report/table.mjs'
import { AGAINST } from './subjects.mjs'

/** The benchmarks of `all`, in this order. */
const COMPARED = ['publish', 'inbound', 'request', 'restore', 'start', 'growth']
const FULL = { rounds: 7, share: 1, isQuick: false }
const QUICK = { rounds: 3, share: 0.2, isQuick: true }

const [name = '', ...args] = process.argv.slice(2)
const names = readdirSync(new URL('.', import.meta.url))
  .filter(file => file.endsWith('.bench.mjs'))
  .map(file => file.replace('.bench.mjs', ''))
if (name !== 'all' && !names.includes(name)) {
  console.error(`usage: npm run bench -- <name>, with one of: all, ${names.join(', ')}`)
  process.exit(2)
}

const isQuick = args.includes('--quick')
const before = args.find(arg => arg.startsWith(AGAINST))?.slice(AGAINST.length)
const plain = args.filter(arg => arg !== '--quick' && !arg.startsWith(AGAINST))

async function run(name) {
  const { title, rows } = await import(`./${name}.bench.mjs`)
  // A benchmark without rows prints its own report, and runs when it is loaded.
  if (rows === undefined) return undefined
  const list = []
  const startMs = performance.now()
  for await (const row of rows({ ...(isQuick ? QUICK : FULL), args: plain, before })) {
    list.push(row)
    console.error(`${title}: ${row.name}${row.isKept ? '' : ', MISSED'}`)
  }
  return { name, title, rows: list, seconds: Math.round((performance.now() - startMs) / 1_000) }
}

const sections = []
for (const each of name === 'all' ? COMPARED : [name]) sections.push(await run(each))
const compared = sections.filter(section => section !== undefined)
for (const { title, rows, seconds } of compared) console.log(`\n${title} (${seconds} s)\n${textOf(rows)}`)
if (compared.length > 0) {
  if (plain.length === 0 && before === undefined) keep(compared, { isQuick, order: COMPARED })
  process.exitCode = compared.every(({ rows }) => rows.every(({ isKept }) => isKept)) ? 0 : 1
}

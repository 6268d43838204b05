// npm run soak -- --minutes 1 --seed 7 [--keep] [--broken <name>]
import { parseArgs } from 'node:util'
import { BROKEN, runBroken } from './broken.mjs'
import { Conductor } from './conductor.mjs'
import { failureOf } from './laws.mjs'
import { tablesOf } from './tables.mjs'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1_000_000)) },
    broken: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
})
const minutes = Number(values.minutes)
const seed = Number(values.seed)
if (
  !(minutes > 0) ||
  !Number.isSafeInteger(seed) ||
  (values.broken !== undefined && !(values.broken in BROKEN))
) {
  console.error('usage: npm run soak -- --minutes <number> --seed <integer> [--keep] [--broken <name>]')
  process.exit(2)
}

if (values.broken !== undefined) {
  console.log(`broken build: ${BROKEN[values.broken].what}`)
  const args = ['--minutes', values.minutes, '--seed', String(seed)]
  const { code } = await runBroken(values.broken, args, text => process.stdout.write(text))
  process.exit(code)
}

const conductor = new Conductor({ minutes, seed, say: line => console.log(line) })
const { stage } = conductor

/** Ends every process, and then this one. */
async function stop(code) {
  const left = await stage.close(values.keep || code !== 0)
  if (left.length > 0) console.error(`processes that did not end: ${left.join(', ')}`)
  process.exit(left.length > 0 ? 1 : code)
}

async function run() {
  const startMs = performance.now()
  const { verdict, reports, logs, cpuMs } = await conductor.run()
  const { user, system } = process.cpuUsage()
  const wallMs = performance.now() - startMs
  const laws = [...verdict.laws, ...conductor.ownLaws()]
  for (const lines of logs) console.log(lines.join('\n'))
  console.log(tablesOf({ conductor, verdict, reports, laws, cpuMs: cpuMs + (user + system) / 1_000, wallMs }))
  const failure = failureOf(laws)
  if (failure !== undefined) {
    console.log(`FAILED with seed ${seed}: ${failure}; the journals and logs are in ${stage.folder}`)
    return 1
  }
  console.log(`All ${laws.length} laws hold (seed ${seed}).`)
  return 0
}

console.log(`soak: ${minutes} minutes, seed ${seed}`)
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop(1))
await run().then(stop, error => {
  console.error(`FAILED with seed ${seed}: ${error.stack}`)
  return stop(1)
})

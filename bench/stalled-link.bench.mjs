// What does a process hold that goes on publishing, when the peer stops reading and does not go away?
// STALLED_MINUTES=10 npm run bench -- stalled-link
import { mkdirSync, writeFileSync } from 'node:fs'
import { Child } from './child.mjs'
import { FIGURES, megabytes } from './memory.mjs'
import { startSilentPeer } from './stalled-link/silent_peer.mjs'

const MINUTES = Number(process.env.STALLED_MINUTES ?? 10)
const SAMPLE_MS = 10_000
const SETTLED_MS = 60_000
const BUDGET_BYTES = 10e6
const LOADS = ['QoS 0', 'QoS 1 latest/queue']

async function run(load) {
  const peer = await startSilentPeer()
  const publisher = new URL('stalled-link/publisher.mjs', import.meta.url)
  const { child } = await Child.start(process.execPath, publisher, { load, port: peer.port }, ['--expose-gc'])
  const samples = []
  const start = performance.now()
  for (let at = 0; at <= MINUTES * 60_000; at += SAMPLE_MS) {
    await new Promise(resolve => setTimeout(resolve, start + at - performance.now()))
    samples.push({ at, ...(await child.ask()) })
  }
  await child.end()
  peer.stop()
  return { load, samples, growth: growthOf(samples), connections: peer.connections() }
}

/**
 * From one minute on: until then it fills up. Resident pages come and go with the garbage collector, so these count
 * from the most there was until then.
 */
function growthOf(samples) {
  const filling = samples.filter(({ at }) => at <= SETTLED_MS)
  const end = samples.at(-1)
  const settled = { ...filling.at(-1), rss: Math.max(...filling.map(({ rss }) => rss)) }
  return Object.fromEntries(FIGURES.map(figure => [figure, end[figure] - settled[figure]]))
}

/** A link that was closed would start again with an empty queue, and prove nothing. */
const isKept = ({ growth, samples, connections }) =>
  connections === 1 && samples.at(-1).losses === 0 && FIGURES.every(figure => growth[figure] <= BUDGET_BYTES)

function print(row) {
  const { load, samples, growth, connections } = row
  console.log(
    `\n${load}: ${isKept(row) ? 'ok' : `MISSED (<= +${megabytes(BUDGET_BYTES)} MB, one connection)`}`,
  )
  for (const figure of FIGURES) {
    const values = samples.map(sample => sample[figure])
    const [first, most, last] = [values[0], Math.max(...values), values.at(-1)].map(megabytes)
    console.log(
      `  ${figure.padEnd(8)}  start ${first} MB, max ${most} MB, end ${last} MB, from 1 minute on ${megabytes(growth[figure])} MB`,
    )
  }
  const { offered, settled, outbound, losses } = samples.at(-1)
  console.log(
    `  offered ${offered}, promises settled ${settled}, ${connections} connection(s), ${losses} lost`,
  )
  console.log(`  ${JSON.stringify(outbound)}`)
}

if (!(MINUTES > 1)) throw new Error('STALLED_MINUTES must be more than 1: growth counts from then on')
const rows = await Promise.all(LOADS.map(run))
for (const row of rows) print(row)
const folder = new URL('./results/', import.meta.url)
mkdirSync(folder, { recursive: true })
writeFileSync(
  new URL('stalled-link.json', folder),
  `${JSON.stringify({ minutes: MINUTES, rows }, undefined, 2)}\n`,
)
process.exit(rows.every(isKept) ? 0 : 1)

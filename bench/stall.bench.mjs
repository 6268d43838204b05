// `inbound.overflow: 'stall'` under a burst that takes the handlers a minute: how much memory does the process use, and
// does Keep Alive work while nothing is read?
// STALL_SECONDS=60 npm run bench -- stall
import { mkdirSync, writeFileSync } from 'node:fs'
import { Child } from './child.mjs'
import { FIGURES, megabytes } from './memory.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { burst } from './stall/burst.mjs'

const SECONDS = Number(process.env.STALL_SECONDS ?? 60)
const LOAD = { messages: 100_000, payloadBytes: 500 }
const WARM_UP = { ...LOAD, messages: 1_500 }
const WARM_UP_MS = 3_000
/** Resident pages include those that the garbage collector keeps for young objects. */
const BUDGETS = { heapUsed: 20e6, external: 20e6, rss: 40e6 }

const broker = await startMosquitto()
const file = new URL('stall/subscriber.mjs', import.meta.url)
const { child } = await Child.start(process.execPath, file, { url: broker.url }, ['--expose-gc'])
// Excludes what the first messages compile and allocate permanently.
await burst(broker.port, WARM_UP)
await new Promise(resolve => setTimeout(resolve, WARM_UP_MS))
const first = await child.ask()
const start = performance.now()
const samples = []
let burstMs
const bursting = burst(broker.port, LOAD).then(() => {
  burstMs = performance.now() - start
})
for (let second = 1; second <= SECONDS; second += 1) {
  await new Promise(resolve => setTimeout(resolve, start + second * 1_000 - performance.now()))
  samples.push(await child.ask())
}
await bursting
await child.end()
await broker.stop()

const { inbound, connection } = samples.at(-1)
const growth = Object.fromEntries(
  FIGURES.map(figure => [figure, Math.max(...samples.map(sample => sample[figure])) - first[figure]]),
)
const failures = [
  ...FIGURES.filter(figure => growth[figure] > BUDGETS[figure]).map(
    figure => `${figure} <= +${megabytes(BUDGETS[figure])} MB`,
  ),
  ...(connection.losses === 0 ? [] : ['no loss']),
  ...(inbound.dropped === 0 ? [] : ['no drop']),
]
const megabytesSent = megabytes(LOAD.messages * LOAD.payloadBytes)
console.log(
  `${LOAD.messages} messages, ${megabytesSent} MB, taken by the broker in ${Math.round(burstMs)} ms; ${SECONDS} s with handlers of 10 ms, 16 at a time:`,
)
for (const figure of FIGURES)
  console.log(
    `  ${figure.padEnd(8)}  start ${megabytes(first[figure])} MB, at most +${megabytes(growth[figure])} MB`,
  )
console.log(
  `  handled ${inbound.handled}, dropped ${inbound.dropped}, waiting ${inbound.waiting}; connections lost with Keep Alive 1 s: ${connection.losses}`,
)
console.log(failures.length === 0 ? 'ok' : `MISSED: ${failures.join(', ')}`)
const folder = new URL('./results/', import.meta.url)
mkdirSync(folder, { recursive: true })
writeFileSync(
  new URL('stall.json', folder),
  `${JSON.stringify({ seconds: SECONDS, ...LOAD, start: first, growth, inbound, connection, missed: failures.join(', ') }, undefined, 2)}\n`,
)
process.exitCode = failures.length === 0 ? 0 : 1

// npm run cluster -- [nats] [rabbitmq] [--quick] [--rounds 2] [--keep] [--replicas 1] [--queues classic|mirrored|quorum]
import { rmSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { BROKERS } from '../scripts/brokers/start.mjs'
import { Conductor } from './conductor.mjs'
import { natsCluster } from './nats.mjs'
import { rabbitCluster } from './rabbit.mjs'
import { tablesOf } from './tables.mjs'

const KINDS = { nats: natsCluster, rabbitmq: rabbitCluster }
/** For each broker. */
const LIMIT_MS = 300_000
/** A kill that begins at this time is over within a minute. */
const QUICK_MS = 30_000

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    keep: { type: 'boolean', default: false },
    replicas: { type: 'string' },
    queues: { type: 'string', default: 'quorum' },
  },
})
const wanted = positionals.length > 0 ? positionals : values.quick ? ['nats'] : Object.keys(KINDS)
if (
  wanted.some(name => !(name in KINDS)) ||
  !['classic', 'mirrored', 'quorum'].includes(values.queues) ||
  !['1', '3', undefined].includes(values.replicas) ||
  !/^[1-9]$/.test(values.rounds ?? '2')
) {
  console.error(
    'usage: npm run cluster -- [nats] [rabbitmq] [--quick] [--rounds 2] [--keep] [--replicas 1|3] [--queues classic|mirrored|quorum]',
  )
  process.exit(2)
}

/** The run whose processes are running. */
let current
process.once('exit', () => current?.end())
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
])
  process.once(signal, () => {
    current?.end()
    if (!values.keep && current?.cluster !== undefined)
      rmSync(current.cluster.folder, { recursive: true, force: true, maxRetries: 5 })
    process.exit(code)
  })
/** @returns whether nothing was lost */
async function runs(name) {
  const { title, version } = BROKERS.find(({ id }) => id === name)
  const found = version()
  if (found === undefined) {
    console.log(`${title}: not run, because it is not installed`)
    return true
  }
  const say = line => console.error(`${title}: ${line}`)
  const mostMs = values.quick ? QUICK_MS : Number.POSITIVE_INFINITY
  const conductor = new Conductor({ rounds: Number(values.rounds ?? 2), mostMs, say })
  current = conductor
  let problem
  const limit = new AbortController()
  const late = wait(LIMIT_MS, undefined, { signal: limit.signal }).then(() => {
    throw new Error(`not finished after ${LIMIT_MS / 1_000} s: ${conductor.phase}`)
  })
  try {
    const cluster = await KINDS[name]({ replicas: values.replicas, queues: values.queues })
    await Promise.race([conductor.run(cluster), late])
  } catch (error) {
    problem = error.message
    for (const lines of await conductor.logs()) console.error(lines.slice(-20).join('\n'))
  }
  limit.abort()
  conductor.end()
  const { text, isLost } = tablesOf({ title: `${title} ${found}`, conductor, problem })
  console.log(text)
  const isKept = values.keep || isLost || problem !== undefined
  if (isKept) console.log(`The journals and logs are in ${conductor.cluster.folder}`)
  else rmSync(conductor.cluster.folder, { recursive: true, force: true })
  return !isLost && problem === undefined
}

let isGood = true
for (const name of wanted) isGood = (await runs(name)) && isGood
process.exit(isGood ? 0 : 1)

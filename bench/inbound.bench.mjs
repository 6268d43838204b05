// How fast and how dear is a message from the broker to a handler of Nest, beside Nest's built-in transport and beside
// `mqtt` with nothing around it? Each in a process of its own, in turn, within one run.
// npm run bench -- inbound [1 100 1000 10000]
import { mkdirSync, writeFileSync } from 'node:fs'
import { Child } from './child.mjs'
import { BROKERS, budgetsOf, messagesOf, missed, plan, SUBJECTS, VERSIONS } from './inbound/plan.mjs'
import { startMosquitto } from './mosquitto.mjs'

const ROUNDS = Number(process.env.INBOUND_ROUNDS ?? 3)
const here = file => new URL(`./inbound/${file}`, import.meta.url)
const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

async function startReceivers({ count, kind }, protocolVersion, port) {
  const receivers = await Promise.all(
    SUBJECTS.map(async subject => {
      const config = { subject, port, protocolVersion, kind, count }
      const { child, first } = await Child.start(process.execPath, here('receiver.mjs'), config)
      return { subject, child, port: first.port, rows: [] }
    }),
  )
  return receivers
}

/** Rounds in turn; the first one warms up. */
async function measure(receivers, publisher, group, qos) {
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const { subject, child, port, rows } of receivers) {
      const messages = messagesOf(subject, group)
      const { count } = group
      const received = child.ask({ messages })
      await publisher.ask({ receiver: port, subject, count, qos, messages })
      rows.push(await received)
    }
  }
  const figures = receivers.map(({ subject, rows }) => {
    const counted = rows.splice(0).slice(1)
    const of = figure => median(counted.map(row => row[figure]))
    return [subject, { perSecond: Math.round(of('perSecond')), cpuMicros: of('cpuMicros') }]
  })
  return Object.fromEntries(figures)
}

function rowOf(broker, group, protocolVersion, qos, figures) {
  const { count, kind } = group
  const { ours, builtIn, raw } = figures
  const ratios = { rate: ours.perSecond / builtIn.perSecond, cpu: ours.cpuMicros / raw.cpuMicros }
  const row = {
    broker,
    count,
    kind,
    protocolVersion,
    qos,
    ...figures,
    ratios,
    budgets: budgetsOf(broker, group),
  }
  return { ...row, missed: missed(row) }
}

function print({ count, kind, protocolVersion, qos, ratios, missed, ...figures }) {
  const version = protocolVersion === 5 ? '5    ' : '3.1.1'
  const name = `${String(count).padStart(6)} x @${kind === 'event' ? 'EventPattern' : 'MessagePattern'}`
  const cells = SUBJECTS.map(subject => {
    const { perSecond, cpuMicros } = figures[subject]
    return `${subject === 'builtIn' ? 'built-in' : subject} ${String(perSecond).padStart(6)} ${cpuMicros.toFixed(1).padStart(7)}`
  })
  const verdict = missed.length === 0 ? 'ok' : `MISSED: ${missed.join(', ')}`
  console.log(
    `MQTT ${version} QoS ${qos} ${name.padEnd(24)}  ${cells.join('  ')}  rate x ${ratios.rate.toFixed(2).padStart(7)}  CPU x ${ratios.cpu.toFixed(2)}  ${verdict}`,
  )
}

async function run(broker, port, publisher, groups) {
  const results = []
  console.log(`\non ${broker}`)
  for (const group of groups) {
    for (const protocolVersion of VERSIONS) {
      const receivers = await startReceivers(group, protocolVersion, port)
      for (const qos of group.levels) {
        const figures = await measure(receivers, publisher, group, qos)
        const row = rowOf(broker, group, protocolVersion, qos, figures)
        print(row)
        results.push(row)
      }
      for (const { child } of receivers) await child.end()
    }
  }
  return results
}

const forFile = ({ missed, ...row }) => ({ ...row, missed: missed.join(', ') })

const groups = plan(process.argv.slice(3))
const results = []
console.log(
  'messages per second, CPU microseconds per message; rate: ours over built-in, CPU: ours over `mqtt` alone',
)
const mosquitto = await startMosquitto()
try {
  const { port } = mosquitto
  const { child: publisher } = await Child.start(process.execPath, here('publisher.mjs'), { port })
  const { child: peer, first } = await Child.start(process.execPath, here('publishing_peer.mjs'), {})
  const of = broker => groups.filter(({ on }) => on.includes(broker))
  results.push(...(await run(BROKERS.peer, first.port, peer, of(BROKERS.peer))))
  results.push(...(await run(BROKERS.mosquitto, port, publisher, of(BROKERS.mosquitto))))
} finally {
  await mosquitto.stop()
}
const folder = new URL('./results/', import.meta.url)
mkdirSync(folder, { recursive: true })
writeFileSync(new URL('inbound.json', folder), `${JSON.stringify(results.map(forFile), null, 2)}\n`)
if (results.some(row => row.missed.length > 0)) process.exitCode = 1
// The children that publish end with this process.
process.exit()

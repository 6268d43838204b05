// How fast and how dear is publishing, beside `mqtt` and a socket with ready-made packets? Each in a process of its
// own, in turn, within one run; on mosquitto, and on a peer that only acknowledges, where the client is the limit.
import { writeFileSync } from 'node:fs'
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'

const ROUNDS = Number(process.env.PUBLISH_ROUNDS ?? 9)
const SUBJECTS = ['ours', 'mqtt', 'raw']
const QUESTIONS = [
  { qos: 0, perTurn: 1, messages: 40_000, budget: { cpu: 0.5 } },
  { qos: 0, perTurn: 100, messages: 100_000, budget: { cpu: 0.5 } },
  { qos: 1, perTurn: 1, messages: 4_000 },
  { qos: 1, perTurn: 100, messages: 30_000, budget: { rate: 1.5 } },
]
const here = file => new URL(`./publish/${file}`, import.meta.url)
const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

const mosquitto = await startMosquitto()
const { child: peer, first } = await Child.start(process.execPath, here('acknowledging_peer.mjs'), {})
const BROKERS = { mosquitto: mosquitto.port, 'a peer that only acknowledges': first.port }

async function measure(port, protocolVersion, question) {
  const children = {}
  for (const subject of SUBJECTS) {
    const config = { subject, port, protocolVersion }
    children[subject] = (await Child.start(process.execPath, here('publisher.mjs'), config)).child
  }
  const rows = { ours: [], mqtt: [], raw: [] }
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const subject of SUBJECTS) {
      const row = await children[subject].ask(question)
      // The first round warms up.
      if (round >= 0) rows[subject].push(row)
    }
  }
  for (const child of Object.values(children)) await child.end()
  const of = (subject, figure) => median(rows[subject].map(row => row[figure]))
  return Object.fromEntries(
    SUBJECTS.map(subject => [
      subject,
      { perSecond: Math.round(of(subject, 'perSecond')), cpuMicros: of(subject, 'cpuMicros') },
    ]),
  )
}

function verdict({ budget }, rate, cpu) {
  if (budget?.cpu !== undefined) return cpu <= budget.cpu ? 'ok' : `MISSED (CPU <= x ${budget.cpu})`
  if (budget?.rate !== undefined) return rate >= budget.rate ? 'ok' : `MISSED (rate >= x ${budget.rate})`
  return ''
}

let missed = 0
const results = []
for (const [broker, port] of Object.entries(BROKERS)) {
  console.log(`\non ${broker}: messages per second, CPU microseconds per message; x = ours over mqtt`)
  for (const protocolVersion of [4, 5]) {
    for (const question of QUESTIONS) {
      const { ours, mqtt, raw } = await measure(port, protocolVersion, question)
      const rate = ours.perSecond / mqtt.perSecond
      const cpu = ours.cpuMicros / mqtt.cpuMicros
      const judged = verdict(question, rate, cpu)
      if (judged.startsWith('MISSED')) missed += 1
      const name = `MQTT ${protocolVersion === 5 ? '5    ' : '3.1.1'} QoS ${question.qos}, ${question.qos === 0 ? `${question.perTurn} per turn` : `${question.perTurn} in flight`}`
      const figures = [ours, mqtt, raw].map(
        row => `${String(row.perSecond).padStart(7)} ${row.cpuMicros.toFixed(2).padStart(6)}`,
      )
      console.log(
        `${name.padEnd(30)} ours ${figures[0]}  mqtt ${figures[1]}  raw ${figures[2]}  rate x ${rate.toFixed(2)}  CPU x ${cpu.toFixed(2)}  ${judged}`,
      )
      results.push({
        broker,
        protocolVersion,
        qos: question.qos,
        perTurn: question.perTurn,
        ours,
        mqtt,
        raw,
        rate,
        cpu,
      })
    }
  }
}
await peer.end()
await mosquitto.stop()
writeFileSync(new URL('./results/publish.json', import.meta.url), `${JSON.stringify(results, null, 1)}\n`)
process.exitCode = missed > 0 ? 1 : 0

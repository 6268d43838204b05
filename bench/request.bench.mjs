// How long does an answer take, beside Nest's built-in transport? Requester and responder in processes of their own, in
// turn within one run, on a broker that sends small packets at once (`set_tcp_nodelay true`) and on one that does not.
import { writeFileSync } from 'node:fs'
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'

const ROUNDS = Number(process.env.REQUEST_ROUNDS ?? 5)
const SUBJECTS = ['ours', 'built-in']
/** Requests of a round: few where each takes a tenth of a second. */
const QUESTIONS = [
  { qos: 0, atOnce: 1, count: { ours: 1_000, 'built-in': 200 } },
  { qos: 0, atOnce: 100, count: { ours: 5_000, 'built-in': 1_000 } },
  { qos: 1, atOnce: 1, count: { ours: 1_000, 'built-in': 20 } },
  { qos: 1, atOnce: 100, count: { ours: 5_000, 'built-in': 500 } },
]
const here = file => new URL(`./request/${file}`, import.meta.url)
const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

/** A broker that holds packets back takes a twentieth of a second for an answer. */
const SLOW_SHARE = 0.1

async function measure(port, question, isNodelay) {
  const pairs = {}
  for (const subject of SUBJECTS) {
    const config = { subject, port }
    const responder = (await Child.start(process.execPath, here('responder.mjs'), config)).child
    const requester = (await Child.start(process.execPath, here('requester.mjs'), config)).child
    pairs[subject] = { responder, requester, rows: [] }
  }
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const [subject, { requester, rows }] of Object.entries(pairs)) {
      const count = Math.round(question.count[subject] * (isNodelay ? 1 : SLOW_SHARE))
      const row = await requester.ask({ ...question, count })
      // The first round warms up.
      if (round >= 0) rows.push(row)
    }
  }
  const result = {}
  for (const [subject, { responder, requester, rows }] of Object.entries(pairs)) {
    const of = figure => median(rows.map(row => row[figure]))
    result[subject] = { p50: of('p50'), p99: of('p99'), perSecond: Math.round(of('perSecond')) }
    await requester.end()
    await responder.end()
  }
  return result
}

let missed = 0
function verdict(isNodelay, { qos, atOnce }, ours, builtIn) {
  if (!isNodelay || qos !== 1 || atOnce !== 1) return ''
  if (ours.p50 <= 0.2 && builtIn.p50 / ours.p50 >= 100) return 'ok'
  missed += 1
  return 'MISSED (p50 <= 0.2 ms, x 100)'
}

const results = []
for (const isNodelay of [true, false]) {
  const broker = await startMosquitto({ nodelay: isNodelay })
  console.log(`\nmosquitto with set_tcp_nodelay ${isNodelay}: milliseconds until the answer`)
  for (const question of QUESTIONS) {
    const { ours, 'built-in': builtIn } = await measure(broker.port, question, isNodelay)
    const show = ({ p50, p99, perSecond }) =>
      `p50 ${p50.toFixed(3).padStart(8)} p99 ${p99.toFixed(3).padStart(8)} ${String(perSecond).padStart(6)}/s`
    console.log(
      `QoS ${question.qos}, ${String(question.atOnce).padStart(3)} at once  ours ${show(ours)}  built-in ${show(builtIn)}  p50 x ${(builtIn.p50 / ours.p50).toFixed(1)}  ${verdict(isNodelay, question, ours, builtIn)}`,
    )
    results.push({ isNodelay, qos: question.qos, atOnce: question.atOnce, ours, builtIn })
  }
  await broker.stop()
}
writeFileSync(new URL('./results/request.json', import.meta.url), `${JSON.stringify(results, null, 1)}\n`)
process.exitCode = missed > 0 ? 1 : 0

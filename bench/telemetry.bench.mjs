// What do traces and metrics cost? Publishing with and without the instrumentation, on a peer that only acknowledges, where
// the client is the limit. `off` has the instrumentation disabled again; `metrics` records metrics only; `traced` records
// every span, and drops it at the exporter.
import { Child } from './child.mjs'
import { separate } from './owned.mjs'
import { NOISE, rowOf } from './report/row.mjs'
import { costOf, inTurn } from './rounds.mjs'

export const title = 'Traces and metrics'

const SUBJECTS = ['ours', 'off', 'metrics', 'traced']
const QUESTIONS = [
  { qos: 0, perTurn: 100, messages: 100_000 },
  { qos: 1, perTurn: 100, messages: 30_000 },
]
const here = file => new URL(`./publish/${file}`, import.meta.url)

export async function* rows({ rounds, share }) {
  const { child: peer, first } = await Child.start(process.execPath, here('acknowledging_peer.mjs'), {})
  const children = {}
  for (const subject of SUBJECTS) {
    const config = { subject, port: first.port, protocolVersion: 5 }
    children[subject] = (await Child.start(process.execPath, here('publisher.mjs'), config)).child
  }
  separate(
    Object.values(children).map(child => child.pid),
    [peer.pid],
  )
  for (const { qos, perTurn, messages: all } of QUESTIONS) {
    const messages = Math.round(all * share)
    const figures = await inTurn(SUBJECTS, rounds, subject =>
      costOf(peer.pid, messages, () => children[subject].ask({ qos, perTurn, messages })),
    )
    // Off means off, beyond the noise of a run.
    yield rowOf(`publish at QoS ${qos}, MQTT 5, ${perTurn} at a time`, figures, [
      { figure: 'cpuMicros', peer: 'off', atLeast: 1 - NOISE },
    ])
  }
  for (const child of Object.values(children)) await child.end()
  await peer.end()
}

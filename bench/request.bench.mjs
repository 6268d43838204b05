// How long does a response take, compared with Nest's built-in transport and with two plain sockets? Requester and
// responder run in separate processes, on a broker that sends small packets at once (`set_tcp_nodelay true`) and on one
// with default settings, where delayed TCP acknowledgements hold back packets.
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { rowOf } from './report/row.mjs'
import { inTurn } from './rounds.mjs'
import { programOf, subjectsWith } from './subjects.mjs'

export const title = 'Requests'

const SUBJECTS = ['ours', 'builtIn', 'floor']
/** Requests per round: few if each takes a tenth of a second. */
const QUESTIONS = [
  { qos: 0, atOnce: 1, count: { ours: 3_000, before: 3_000, builtIn: 200, floor: 3_000 } },
  { qos: 0, atOnce: 100, count: { ours: 5_000, before: 5_000, builtIn: 1_000, floor: 5_000 } },
  { qos: 1, atOnce: 1, count: { ours: 3_000, before: 3_000, builtIn: 20, floor: 3_000 } },
  { qos: 1, atOnce: 100, count: { ours: 5_000, before: 5_000, builtIn: 500, floor: 5_000 } },
]
const HELD_BACK_SHARE = 0.05
const isAlone = ({ atOnce }) => atOnce === 1
const SETUPS = [
  { isNodelay: true, version: 5, questions: QUESTIONS },
  { isNodelay: true, version: 4, questions: QUESTIONS.filter(isAlone) },
  { isNodelay: false, version: 5, questions: QUESTIONS },
]

function budgetsOf(isNodelay, { qos, atOnce }) {
  const lost = { figure: 'lost', atMost: 0 }
  if (!isNodelay) return atOnce === 1 ? [{ figure: 'p50Ms', atMost: 5 }, lost] : [lost]
  const rate = { figure: 'perSecond', peer: 'builtIn', atLeast: 0.95 }
  return qos === 1 && atOnce === 1
    ? [rate, { figure: 'p50Ms', peer: 'floor', atMost: 1.5 }, lost]
    : [rate, lost]
}

export async function* rows({ rounds, share, before }) {
  const subjects = subjectsWith(SUBJECTS, before)
  for (const { isNodelay, version, questions } of SETUPS) {
    const broker = await startMosquitto({ nodelay: isNodelay })
    const pairs = {}
    for (const subject of subjects) {
      const config = { subject, port: broker.port, version }
      const start = async file =>
        (await Child.start(process.execPath, programOf(`request/${file}`, subject, before), config)).child
      const responder = await start('responder.mjs')
      const requester = await start('requester.mjs')
      pairs[subject] = { responder, requester }
    }
    for (const question of questions) {
      const figures = await inTurn(subjects, rounds, subject => {
        const count = Math.ceil(question.count[subject] * share * (isNodelay ? 1 : HELD_BACK_SHARE))
        return pairs[subject].requester.ask({ ...question, count })
      })
      const { qos, atOnce } = question
      const where = `mosquitto, ${isNodelay ? 'nodelay' : 'default settings'}, MQTT ${version === 5 ? '5' : '3.1.1'}`
      yield rowOf(`${where}, QoS ${qos}, ${atOnce} at once`, figures, budgetsOf(isNodelay, question))
    }
    for (const { responder, requester } of Object.values(pairs)) {
      await requester.end()
      await responder.end()
    }
    await broker.stop()
  }
}

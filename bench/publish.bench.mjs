// How fast is publishing, and how much CPU does it use, compared with `mqtt` and with a socket that sends ready-made
// packets? Each runs in its own process, on mosquitto and on a peer that only acknowledges, where the client is the limit.
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { separate } from './owned.mjs'
import { neverWorseThan, rowOf } from './report/row.mjs'
import { costOf, inTurn } from './rounds.mjs'
import { programOf, subjectsWith } from './subjects.mjs'

export const title = 'Publishing'

const SUBJECTS = ['ours', 'mqtt', 'floor']
const PEER = 'free peer'
const QUESTIONS = [
  { qos: 0, perTurn: 1, messages: 300_000, free: [{ figure: 'cpuMicros', peer: 'mqtt', atMost: 0.5 }] },
  { qos: 0, perTurn: 100, messages: 300_000, free: [{ figure: 'cpuMicros', peer: 'mqtt', atMost: 0.5 }] },
  { qos: 1, perTurn: 1, messages: 6_000, free: [] },
  { qos: 1, perTurn: 100, messages: 60_000, free: [{ figure: 'perSecond', peer: 'mqtt', atLeast: 2 }] },
]
const here = file => new URL(`./publish/${file}`, import.meta.url)

/** @param args any of 3.1.1, 5, mosquitto, free */
export async function* rows({ rounds, share, args = [], before }) {
  const isLeftOut = (name, all) => args.some(arg => all.includes(arg)) && !args.includes(name)
  const mosquitto = await startMosquitto()
  const { child: peer, first } = await Child.start(process.execPath, here('acknowledging_peer.mjs'), {})
  const brokers = [
    { name: 'mosquitto', port: mosquitto.port, pid: mosquitto.pid() },
    { name: PEER, port: first.port, pid: peer.pid },
  ]
  for (const broker of brokers) {
    if (isLeftOut(broker.name.split(' ')[0], ['mosquitto', 'free'])) continue
    for (const [protocolVersion, version] of [
      [4, '3.1.1'],
      [5, '5'],
    ]) {
      if (isLeftOut(version, ['3.1.1', '5'])) continue
      yield* measure(broker, protocolVersion, { rounds, share, before })
    }
  }
  await peer.end()
  await mosquitto.stop()
}

async function* measure({ name, port, pid }, protocolVersion, { rounds, share, before }) {
  const children = {}
  const subjects = subjectsWith(SUBJECTS, before)
  for (const subject of subjects) {
    const config = { subject, port, protocolVersion }
    const program = programOf('publish/publisher.mjs', subject, before)
    children[subject] = (await Child.start(process.execPath, program, config)).child
  }
  separate(
    Object.values(children).map(child => child.pid),
    [pid],
  )
  for (const { qos, perTurn, messages: all, free } of QUESTIONS) {
    const messages = Math.round(all * share)
    const figures = await inTurn(subjects, rounds, subject =>
      costOf(pid, messages, () => children[subject].ask({ qos, perTurn, messages })),
    )
    const how = qos === 0 ? `${perTurn} per turn` : `${perTurn} in flight`
    const version = protocolVersion === 5 ? '5' : '3.1.1'
    yield rowOf(`${name}, MQTT ${version}, QoS ${qos}, ${how}`, figures, [
      ...neverWorseThan('mqtt'),
      ...(name === PEER ? free : []),
    ])
  }
  for (const child of Object.values(children)) await child.end()
}

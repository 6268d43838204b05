// How fast does a message reach a Nest handler, and how much CPU does it use, compared with Nest's built-in transport and
// with plain `mqtt`? Each runs in its own process.
import { Child } from './child.mjs'
import { budgetsOf, MOSQUITTO, messagesOf, PEER, plan, SUBJECTS, VERSIONS } from './inbound/plan.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { separate } from './owned.mjs'
import { rowOf } from './report/row.mjs'
import { costOf, inTurn } from './rounds.mjs'
import { programOf, subjectsWith } from './subjects.mjs'

export const title = 'Receiving'

const here = file => new URL(`./inbound/${file}`, import.meta.url)

/** @param args numbers of patterns */
export async function* rows({ rounds, share, args = [], isQuick = false, before }) {
  const groups = plan({ args, isQuick })
  const mosquitto = await startMosquitto()
  const { child: publisher } = await Child.start(process.execPath, here('publisher.mjs'), {
    port: mosquitto.port,
  })
  const { child: peer, first } = await Child.start(process.execPath, here('publishing_peer.mjs'), {})
  const brokers = [
    { name: PEER, port: first.port, publisher: peer, pid: peer.pid },
    { name: MOSQUITTO, port: mosquitto.port, publisher, pid: mosquitto.pid() },
  ]
  for (const broker of brokers)
    for (const group of groups.filter(({ on }) => on.includes(broker.name)))
      for (const protocolVersion of VERSIONS)
        yield* measure(broker, group, protocolVersion, { rounds, share, before })
  await publisher.end()
  await peer.end()
  await mosquitto.stop()
}

async function* measure({ name, port, publisher, pid }, group, protocolVersion, { rounds, share, before }) {
  const { count, kind, levels } = group
  const receivers = {}
  const subjects = subjectsWith(SUBJECTS, before)
  await Promise.all(
    subjects.map(async subject => {
      const config = { subject, port, protocolVersion, kind, count }
      const program = programOf('inbound/receiver.mjs', subject, before)
      receivers[subject] = await Child.start(process.execPath, program, config)
    }),
  )
  separate(
    Object.values(receivers).map(({ child }) => child.pid),
    [pid],
  )
  for (const qos of levels) {
    const figures = await inTurn(subjects, rounds, subject => {
      const messages = messagesOf(subject, group, share)
      const { child, first } = receivers[subject]
      return costOf(pid, messages, async () => {
        const received = child.ask({ messages })
        await publisher.ask({ receiver: first.port, subject, count, qos, messages })
        return received
      })
    })
    const decorator = kind === 'event' ? '@EventPattern' : '@MessagePattern'
    const version = protocolVersion === 5 ? '5' : '3.1.1'
    yield rowOf(
      `${name}, MQTT ${version}, QoS ${qos}, ${count.toLocaleString('en')} ${decorator}`,
      figures,
      budgetsOf(name, group),
    )
  }
  for (const { child } of Object.values(receivers)) await child.end()
}

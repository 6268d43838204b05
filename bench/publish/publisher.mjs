// One subject in its own process. Each request is one round: a number of messages, as fast as possible.
import { config, respondToRequests, say } from '../requests.mjs'
import { record } from '../telemetry/recording.mjs'
import { SUBJECTS, TOPIC } from './subjects.mjs'

const IN_FLIGHT = 100
const subject = await SUBJECTS[config.subject](config)
const nextTurn = () => new Promise(resolve => setImmediate(resolve))
const pause = () => new Promise(resolve => setTimeout(resolve, 1))

async function plain(messages, perTurn) {
  for (let sent = 0; sent < messages; ) {
    const end = Math.min(messages, sent + perTurn)
    while (sent < end && subject.tryPublish()) sent += 1
    // If the broker is the limit, waiting for it is not counted as work.
    await (sent < end ? pause() : nextTurn())
  }
  // The broker reads in order, so it has read everything by now.
  await subject.publish()
}

/** Each response triggers the next publish; with `perTurn` 1 they are sent one after the other. */
async function acknowledged(messages, inFlight) {
  let left = messages
  const worker = async () => {
    while (left-- > 0) await subject.publish()
  }
  await Promise.all(Array.from({ length: inFlight }, worker))
}

async function round({ mode, qos, perTurn, messages }) {
  if (mode !== undefined) return record(mode, [TOPIC])
  const cpu = process.cpuUsage()
  const start = performance.now()
  await (qos === 0 ? plain(messages, perTurn) : acknowledged(messages, perTurn === 1 ? 1 : IN_FLIGHT))
  const seconds = (performance.now() - start) / 1_000
  const { user, system } = process.cpuUsage(cpu)
  return { perSecond: messages / seconds, cpuMicros: (user + system) / messages, dropped: subject.dropped() }
}

say({ ready: true })
respondToRequests(round)

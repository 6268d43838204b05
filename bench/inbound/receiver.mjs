// One subject in its own process. Each request is one round: a number of messages through the handler. The publisher is
// notified of each handled batch, so that the number of messages in flight stays within the limit.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { config, respondToRequests, say } from '../requests.mjs'
import { record } from '../telemetry/recording.mjs'
import { controllerOf, patternsOf, topicsOf } from './handlers.mjs'
import { BATCH } from './plan.mjs'
import { SUBJECTS } from './subjects.mjs'

const { subject, port, protocolVersion, kind, count } = config
const BYTE = Buffer.from([1])
let publisher
let expected = 0
let handled = 0
let startMs = 0
let done

function take() {
  handled += 1
  if (handled % BATCH === 0) publisher.write(BYTE)
  if (handled === expected) done(performance.now())
}

async function round({ mode, messages }) {
  if (mode !== undefined) return record(mode)
  const cpu = process.cpuUsage()
  handled = 0
  expected = messages
  const endMs = await new Promise(resolve => {
    done = resolve
  })
  // The work after the last handler, such as the acknowledgement, is included.
  await new Promise(resolve => setImmediate(resolve))
  const { user, system } = process.cpuUsage(cpu)
  return { perSecond: (messages * 1_000) / (endMs - startMs), cpuMicros: (user + system) / messages }
}

const server = createServer(socket => {
  socket.setNoDelay(true)
  socket.on('error', () => {})
  publisher = socket
  // The round starts here, not with the first handled message, which may wait until all are looked up.
  startMs = performance.now()
  socket.write(BYTE)
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const patterns = patternsOf(subject, count)
const controller = controllerOf(kind, patterns, take)
const url = `mqtt://127.0.0.1:${port}`
await SUBJECTS[subject]({ url, protocolVersion, controller, patterns, topics: topicsOf(subject, count) })
say({ port: server.address().port })
respondToRequests(round)

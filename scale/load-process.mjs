// The devices: each has its own connection and topic, and publishes numbered readings at QoS 1.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { MqttClient } from 'nestjs-mqtt/client'
import { serve } from '../soak/remote.mjs'
import { nowMs } from './work.mjs'

const PACE_MS = 5
const { url, devices: count } = JSON.parse(process.argv[2])
const silent = { error() {}, warn() {}, log() {}, debug() {} }

let handled = 0
let wake = () => {}
const server = createServer(socket => {
  socket.on('error', () => {})
  socket.on('data', ({ length }) => {
    handled += length
    wake()
  })
}).listen(0, '127.0.0.1')
await once(server, 'listening')

const devices = []
for (let number = 0; number < count; number += 1) {
  const client = new MqttClient({
    url,
    clientId: `device-${number}`,
    protocolVersion: 5,
    logger: silent,
    reconnect: { delayMs: [50, 200] },
  })
  devices.push({ client, topic: `scale/devices/${number}/reading` })
}
await Promise.all(devices.map(({ client }) => client.start()))

let next = 0
let isRunning = false
let running = Promise.resolve()
const acknowledged = []
const others = {}
const pending = new Set()

function publish() {
  const id = next++
  const { client, topic } = devices[id % count]
  const reading = { id, atMs: nowMs(), celsius: 21.5 }
  const settled = client
    .publish(topic, reading, { qos: 1, whenBlocked: 'wait', timeoutMs: 30_000 })
    .then(({ status }) => {
      if (status === 'acknowledged') acknowledged.push(id)
      else others[status] = (others[status] ?? 0) + 1
      pending.delete(settled)
    })
  pending.add(settled)
}

/** At most `window` messages are on their way to handlers, so the processes are always busy and nothing piles up. */
async function saturate(window) {
  const base = next - handled
  while (isRunning) {
    while (isRunning && next - handled - base < window) publish()
    await new Promise(resolve => {
      wake = resolve
    })
  }
}

async function pace(perSecond) {
  const startMs = nowMs()
  const first = next
  while (isRunning) {
    const due = ((nowMs() - startMs) * perSecond) / 1_000
    while (next - first < due) publish()
    await wait(PACE_MS)
  }
}

function begin(load) {
  isRunning = true
  running = load()
}

serve({
  port: () => server.address().port,
  saturate: window => begin(() => saturate(window)),
  pace: perSecond => begin(() => pace(perSecond)),
  /** Resolves when every publish has settled. */
  async rest() {
    isRunning = false
    wake()
    await running
    await Promise.all(pending)
  },
  sample() {
    const { user, system } = process.cpuUsage()
    return { published: next, cpuMs: (user + system) / 1_000 }
  },
  /** Ids of the messages that the broker has acknowledged, and how often a publish ended otherwise. */
  outcomes: () => ({ acknowledged, others }),
})

// One client that holds `x` objects of one kind. Each request measures the cost of a message.
import { MqttClient } from 'nestjs-mqtt/client'
import { config, respondToRequests, say } from '../requests.mjs'

const { axis, x, port } = config
const TIMEOUT_MS = 600_000
const PAYLOAD = Buffer.alloc(100, 'x')
let expected = 0
let handled = () => {}
let count = 0

function take() {
  count += 1
  if (count === expected) handled()
}

const client = new MqttClient({
  url: `mqtt://127.0.0.1:${port}`,
  // The peer only supports 3.1.1, where each message is looked up by its topic.
  protocolVersion: axis === 'requests' ? 5 : 4,
  outbound: { maxInFlight: 65_535 },
  requests: { maxOpen: 65_000, timeoutMs: TIMEOUT_MS },
})
const filters =
  axis === 'handlers' ? Array.from({ length: x }, (_, index) => `growth/${index}/state`) : ['growth/+/state']
if (axis === 'handlers' || axis === 'topics')
  for (const filter of filters) client.subscribe(filter, take, { qos: 1 })
await client.start()
if (axis === 'handlers')
  while (client.stats().subscriptions.granted < x) await new Promise(resolve => setTimeout(resolve, 10))
if (axis === 'listeners') for (let index = 0; index < x; index += 1) client.onState(() => {})
if (axis === 'requests') {
  for (let index = 0; index < x; index += 1)
    client.request('growth/nobody', index, { timeoutMs: TIMEOUT_MS }).catch(() => {})
  await new Promise(resolve => setTimeout(resolve, 500))
}

async function receive(messages) {
  count = 0
  expected = messages
  await new Promise(resolve => {
    handled = resolve
  })
}

async function inParallel(messages, width, work) {
  let left = messages
  const worker = async () => {
    while (left-- > 0) await work()
  }
  await Promise.all(Array.from({ length: width }, worker))
}

const WORK = {
  handlers: receive,
  topics: receive,
  listeners: messages => inParallel(messages, 100, () => client.publish('growth/out', PAYLOAD, { qos: 1 })),
  unacknowledged: messages =>
    inParallel(messages, x, () => client.publish('growth/out', PAYLOAD, { qos: 1 })),
  requests: messages => inParallel(messages, 20, () => client.request('ours/echo', 1)),
}

say({ ready: true })
respondToRequests(async ({ messages }) => {
  const cpu = process.cpuUsage()
  await WORK[axis](messages)
  const { user, system } = process.cpuUsage(cpu)
  return { micros: (user + system) / messages }
})

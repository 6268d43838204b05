// Takes a flood and does nothing with it, and reports on request what it holds.
import { MqttClient } from 'nestjs-mqtt/client'
import { memory } from '../memory.mjs'
import { config, respondToRequests, say } from '../requests.mjs'

const { port, protocolVersion, handler } = config
const client = new MqttClient({
  url: `mqtt://127.0.0.1:${port}`,
  protocolVersion,
  keepalive: 0,
  reconnect: { delayMs: [1_000] },
})
const never = () => new Promise(() => {})

const HANDLERS = {
  'unread loop': () => {
    globalThis.loop = client.messages('flood', { qos: 1, limit: 1_000, overflow: 'drop-oldest' })
  },
  'no ack()': () => client.subscribe('flood', () => {}, { qos: 1, ack: 'manual' }),
  hanging: () => client.subscribe('flood', never, { qos: 2, concurrency: 16, order: 'none' }),
}

HANDLERS[handler]()
await client.start()
const before = memory()
let most = before.rss
setInterval(() => {
  most = Math.max(most, process.memoryUsage().rss)
}, 20)
say({ ready: true })
respondToRequests(() => {
  most = Math.max(most, process.memoryUsage().rss)
  return { before: before.rss, most, now: memory().rss, stats: client.stats() }
})

// An independent subscriber, on another client library, with a persistent session. Its link has no faults.
import { openSync, writeSync } from 'node:fs'
import { connectAsync } from 'mqtt'
import { serve } from './remote.mjs'

const { port, journal } = JSON.parse(process.argv[2])
const descriptor = openSync(journal, 'a')
let messages = 0

const client = await connectAsync(`mqtt://127.0.0.1:${port}`, {
  clientId: 'witness',
  clean: false,
  reconnectPeriod: 50,
  resubscribe: false,
  keepalive: 600,
})
client.on('error', () => {})
client.on('message', (topic, payload) => {
  messages += 1
  const id = idOf(payload)
  const line = topic.startsWith('soak/dead/') ? `D ${id}` : `W ${id} ${topic} ${Date.now()}`
  writeSync(descriptor, `${line}\n`)
})
await client.subscribeAsync(['soak/pub/#', 'soak/dead/#'], { qos: 2 })

/** A dead letter on MQTT 3.1.1 contains the original payload as text. */
function idOf(bytes) {
  const value = JSON.parse(bytes.toString())
  return value.id ?? JSON.parse(value.payload).id
}

serve({
  async flood(topic, count, bytes) {
    if (!client.connected) return
    const payload = Buffer.alloc(bytes, 'f')
    for (let index = 0; index < count; index += 1) client.publish(topic, payload, { qos: 0 })
  },
  pending: () => ({ disconnected: client.connected ? 0 : 1 }),
  count: () => messages,
  report: () => {
    const { user, system } = process.cpuUsage()
    return { cpuMs: (user + system) / 1_000 }
  },
  async finish() {
    await client.endAsync(true)
    process.disconnect()
  },
})

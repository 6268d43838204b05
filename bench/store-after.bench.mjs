// What does it cost to store every message, and not only those without an acknowledgement? And how long does a client take to
// start with a million stored messages?
// npm run bench -- store-after
import { join } from 'node:path'
import { MqttClient } from '../dist/client/index.js'
import { sqliteStore } from '../dist/store/index.js'
import { startMosquitto } from './mosquitto.mjs'
import { ownFolder } from './owned.mjs'

const SECONDS = 4
const PAYLOAD = Buffer.alloc(100)
const STORED = 1_000_000
const folder = ownFolder()
const broker = await startMosquitto()

async function publishing(storeAfterMs, outstanding) {
  const store = sqliteStore(join(folder, `${storeAfterMs}-${outstanding}.db`))
  const client = await MqttClient.connect({ url: broker.url, store, storeAfterMs })
  const outcomes = {}
  const endMs = performance.now() + SECONDS * 1_000
  const cpu = process.cpuUsage()
  const one = async topic => {
    while (performance.now() < endMs) {
      const { status } = await client.publish(topic, PAYLOAD, { qos: 1, whenBlocked: 'store' })
      outcomes[status] = (outcomes[status] ?? 0) + 1
    }
  }
  await Promise.all(Array.from({ length: outstanding }, (_, index) => one(`t/${index}`)))
  const { user, system } = process.cpuUsage(cpu)
  await client.close()
  const count = Object.values(outcomes).reduce((sum, ended) => sum + ended, 0)
  return {
    storeAfterMs,
    outstanding,
    'messages/s': Math.round(count / SECONDS),
    'CPU us/message': Math.round((user + system) / count),
    acknowledged: outcomes.acknowledged ?? 0,
    stored: outcomes.stored ?? 0,
  }
}

const rows = []
for (const outstanding of [1, 10, 100])
  for (const storeAfterMs of [200, 0]) rows.push(await publishing(storeAfterMs, outstanding))
console.table(rows)

const limits = { maxMessages: 2 * STORED, maxBytes: 4e9 }
const large = sqliteStore(join(folder, 'large.db'), limits)
await large.open({ settled: () => {} })
for (let count = 0; count < STORED; count += 10_000) {
  const adding = Array.from({ length: 10_000 }, (_, index) =>
    large.add({
      messageId: `m${count + index}`,
      topic: `t/${index % 1_000}`,
      payload: PAYLOAD,
      qos: 1,
      retain: false,
      storedAtMs: Date.now(),
    }),
  )
  await Promise.all(adding)
}
await large.close()
const before = process.memoryUsage().rss
const startMs = performance.now()
// Without a connection, so that nothing is sent yet.
const client = await MqttClient.connect({
  url: 'mqtt://127.0.0.1:9',
  connect: 'background',
  store: sqliteStore(join(folder, 'large.db'), limits),
})
const openedMs = Math.round(performance.now() - startMs)
const { messages } = client.stats().store
const outcome = await client.publish('t/1', PAYLOAD, { qos: 1, whenBlocked: 'store' })
const grownBytes = process.memoryUsage().rss - before
console.log(
  `${messages} stored messages: started in ${openedMs} ms, memory +${Math.round(grownBytes / 1e6)} MB; a publish is ${outcome.status}`,
)
await client.close()
await broker.stop()
process.exit(openedMs <= 2_000 && grownBytes <= 50e6 ? 0 : 1)

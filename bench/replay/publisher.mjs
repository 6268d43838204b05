// A process that replays stored messages beside live telemetry.
import { config, nowMs, respondToRequests, say } from '../requests.mjs'
import { pace } from '../staleness/pacing.mjs'

const { port, topic, stored, storedBytes, livePayloadBytes, load } = config

/** A new buffer each time, which starts with the time. */
function payload(bytes) {
  const buffer = Buffer.alloc(bytes)
  buffer.writeDoubleBE(nowMs())
  return buffer
}

const { memoryStore } = await import('../../dist/testing/index.js')
const { MqttClient } = await import('../../dist/client/index.js')
const store = memoryStore({ maxMessages: 1_000_000, maxBytes: 1_000_000_000 })

await store.open({ settled: () => {} })
for (let count = 0; count < stored; count += 1) {
  const messageId = crypto.randomUUID()
  const userProperties = { 'message-id': messageId, 'stored-at': new Date().toISOString() }
  await store.add({
    messageId,
    topic: 'stored',
    payload: payload(storedBytes),
    qos: 1,
    retain: false,
    properties: { userProperties },
    storedAtMs: Date.now(),
  })
}
await store.close()

const client = await MqttClient.connect({ url: `mqtt://127.0.0.1:${port}`, store })
let offered = 0
respondToRequests(({ start }) => {
  if (start && load !== null)
    pace(load, () => {
      offered += 1
      client.tryPublish(topic, payload(livePayloadBytes))
    })
  const { outbound, store: counts, connection } = client.stats()
  return {
    offered,
    dropped: Object.values(outbound.dropped).reduce((sum, count) => sum + count, 0),
    delivered: counts.delivered,
    waiting: counts.messages,
    losses: connection.losses,
    at: nowMs(),
  }
})
say({ ready: true })

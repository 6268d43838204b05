// Opens a store, adds one message without waiting for it, and does nothing else: the process must end by itself.
//   node store-once.mjs <file> <id, or nothing to add none>
import { sqliteStore } from 'nestjs-mqtt/store'

const [file, messageId] = process.argv.slice(2)
const store = sqliteStore(file)
await store.open({ settled: () => {} })
if (messageId !== undefined) {
  const payload = Buffer.from(messageId)
  store.add({ messageId, topic: 'alarms', payload, qos: 1, retain: false, storedAtMs: 1 })
}

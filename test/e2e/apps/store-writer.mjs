// Adds and settles messages until it is killed, and says on its standard output what has resolved, and what has failed.
//   node store-writer.mjs <file> <first number>
import { sqliteStore } from 'nestjs-mqtt/store'

const [file, first] = process.argv.slice(2)
const store = sqliteStore(file, { maxOutcomes: 100_000 })
await store.open({ settled: () => {} })
process.stdout.write('open\n')

const say = text => process.stdout.write(`${text}\n`)
let next = Number(first)
for (;;) {
  const burst = Array.from({ length: 1 + (next % 7) }, () => {
    next += 1
    const id = String(next)
    const message = { messageId: id, topic: `topics/${next % 3}`, payload: Buffer.from(id.repeat(9)), qos: 1 }
    return store.add({ ...message, retain: false, storedAtMs: Date.now() }).then(
      ({ position }) => say(`added ${id} ${position}`),
      ({ code }) => say(`failed ${code}`),
    )
  })
  await Promise.all(burst)
  if (next % 2 === 0) continue
  const messages = await store.read(0, { messages: 3, bytes: 10_000 })
  const ids = messages.map(({ messageId }) => messageId).join(' ')
  say(`settling ${ids}`)
  const outcome = { status: 'delivered', reasonCode: 0 }
  await store.settle(messages.map(({ position }) => ({ position, outcome }))).then(
    () => say(`settled ${ids}`),
    ({ code }) => say(`failed ${code}`),
  )
}

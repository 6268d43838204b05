// Does inbound traffic, or a lost PINGRESP, make the publisher drop messages on a free uplink?
// npm run bench -- free-uplink [--quick]: 15 s a row, or 4
import { setTimeout as sleep } from 'node:timers/promises'
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'

const SECONDS = process.argv.includes('--quick') ? 4 : 15
const THROTTLED = { downBytesPerSecond: 30_000, bufferBytes: 60_000, burnMicroseconds: 0, payloadBytes: 900 }
const FREE = { downBytesPerSecond: null, bufferBytes: 0, payloadBytes: 100, burnMicroseconds: 0 }
const SILENT = { ...FREE, messagesPerSecond: 0 }
const RUNS = {
  'downlink 30 KB/s, 33 KB/s offered': { ...THROTTLED, messagesPerSecond: 36 },
  'downlink 30 KB/s, 60 KB/s offered': { ...THROTTLED, messagesPerSecond: 66 },
  'flood, handler of 50 us': { ...FREE, messagesPerSecond: 60_000, burnMicroseconds: 50 },
  '25,000 messages/s in': { ...FREE, messagesPerSecond: 25_000 },
  'one lost PINGRESP': { ...SILENT, losing: 1 },
  'ten lost PINGRESPs': { ...SILENT, losing: 10 },
}

async function run(name, shape, qos) {
  const broker = await startMosquitto()
  const started = []
  const start = async (file, config) => {
    const child = await Child.start(process.execPath, new URL(`free-uplink/${file}`, import.meta.url), config)
    started.push(child.child)
    return child
  }
  try {
    const { child: link, first } = await start('link.mjs', { ...shape, port: broker.port })
    const { child: publisher } = await start('publisher.mjs', { ...shape, port: first.port, qos })
    const { child: flood } = await start('flood.mjs', { ...shape, port: broker.port })
    await publisher.ask({ start: true })
    await sleep(2_000)
    await flood.ask({ start: true })
    await sleep(SECONDS * 1_000)
    return { run: name, qos, ...(await publisher.ask()), ...(await link.ask()) }
  } finally {
    for (const child of started) await child.end()
    await broker.stop()
  }
}

const rows = []
// At QoS 1, PUBACKs replace PINGRESPs.
for (const [name, shape] of Object.entries(RUNS))
  for (const qos of shape.losing > 0 ? [0] : [0, 1]) {
    const row = await run(name, shape, qos).catch(error => ({ run: name, qos, failure: error.message }))
    rows.push({ ...row, verdict: row.dropped === 0 ? 'ok' : 'MISSED' })
  }
console.table(rows)
process.exit(rows.every(({ verdict }) => verdict === 'ok') ? 0 : 1)

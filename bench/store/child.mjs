// One store in a process of its own: node child.mjs <subject> <folder>
import { fdatasyncSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'

const SINGLE_MS = 4_000
const BURST_MS = 6_000
const BURST = 1_000
const payload = Buffer.alloc(100, 0x78)

const [subject, folder] = process.argv.slice(2)

async function sqlite(engine) {
  const { sqliteStore } = await import('nestjs-mqtt/store')
  const store = sqliteStore(join(folder, 'bench.db'), { engine })
  await store.open({ settled: () => {} })
  let last = 0
  return () => {
    last += 1
    return store.add({
      messageId: `7f1d8b2a-1c11-4c53-9a77-${last}`,
      topic: 'trucks/7/alarm',
      payload,
      qos: 1,
      retain: false,
      storedAtMs: Date.now(),
    })
  }
}

/** What mqtt does for a QoS 1 publish while it is offline; its store does not call fsync. */
async function level() {
  const { default: levelStore } = await import('mqtt-level-store')
  const { outgoing } = levelStore(join(folder, 'level'))
  let last = 0
  return () => {
    last = (last % 65_535) + 1
    const packet = {
      cmd: 'publish',
      messageId: last,
      topic: 'trucks/7/alarm',
      payload,
      qos: 1,
      retain: false,
    }
    return new Promise((resolve, reject) =>
      outgoing.put(packet, error => (error ? reject(error) : resolve())),
    )
  }
}

/** Bytes that SQLite writes to its log for a commit with one message (2 pages), and with a burst (47 pages). */
const PAGE = 4_096 + 24
const COMMIT = { one: Buffer.alloc(2 * PAGE, 1), burst: Buffer.alloc(47 * PAGE, 1) }
/** SQLite also writes its log from the start again after about 4 MB. */
const LOG_BYTES = 4_194_304

/** What the disk can do: the same bytes, each time with fdatasync, in a file that has its size already. */
function disk() {
  const file = openSync(join(folder, 'floor'), 'w+')
  writeSync(file, Buffer.alloc(LOG_BYTES))
  fsyncSync(file)
  let offset = 0
  const commit = bytes => {
    if (offset + bytes.length > LOG_BYTES) offset = 0
    writeSync(file, bytes, 0, bytes.length, offset)
    fdatasyncSync(file)
    offset += bytes.length
  }
  return { one: () => commit(COMMIT.one), burst: () => commit(COMMIT.burst) }
}

async function load() {
  if (subject === 'write and fdatasync alone') return disk()
  const one = await (subject === 'mqtt-level-store' ? level() : sqlite(subject))
  return { one, burst: () => Promise.all(Array.from({ length: BURST }, one)) }
}

const { one, burst } = await load().catch(error => {
  console.log(JSON.stringify({ missing: error.message.split(';')[0] }))
  process.exit(0)
})

const delay = monitorEventLoopDelay({ resolution: 1 })
// The log has reached its size.
for (let warm = 0; warm < 600; warm += 1) await one()
delay.enable()

const took = []
const singleUntil = performance.now() + SINGLE_MS
while (performance.now() < singleUntil) {
  const start = performance.now()
  await one()
  took.push(performance.now() - start)
}

let stored = 0
const burstStart = performance.now()
while (performance.now() < burstStart + BURST_MS) {
  await burst()
  stored += BURST
}
const burstMs = performance.now() - burstStart
delay.disable()

took.sort((one, other) => one - other)
console.log(
  JSON.stringify({
    single: Math.round(took.length / (SINGLE_MS / 1_000)),
    burst: Math.round(stored / (burstMs / 1_000)),
    p99: took[Math.floor(took.length * 0.99)].toFixed(1),
    delay: (delay.percentile(99) / 1e6).toFixed(1),
  }),
)
process.exit(0)

// How old is live telemetry while 20,000 stored messages are sent over a link of 50 KB/s, and how fast are they sent?
// npm run bench -- replay
import { setTimeout as sleep } from 'node:timers/promises'
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { evenly, MAX_DELAY_MS } from './staleness/plan.mjs'
import { findPython } from './staleness/python.mjs'

const LINK = 50_000
const STORED = 20_000
const STORED_BYTES = 100
const LIVE_BYTES = 1_000
const WARM_UP_MS = 5_000
const SECONDS = 20
const ROUND_TRIP_MS = 5
const LOADS = { none: null, '0.5x': evenly(LINK * 0.5), '10x': evenly(LINK * 10) }

const started = []
const start = async (...of) => {
  const { child, first } = await Child.start(...of)
  started.push(() => child.end())
  return { child, first }
}
const fileOf = name => new URL(name, import.meta.url)

async function measure(name, load, { broker, subscriber, python }) {
  const { child: link, first } = await start(python, fileOf('staleness/throttled_link.py'), {
    port: broker.port,
    bytesPerSecond: LINK,
    roundTripMs: 0,
  })
  const topic = `live/${name}`
  const { child: publisher } = await start(process.execPath, fileOf('replay/publisher.mjs'), {
    port: first.port,
    topic,
    stored: STORED,
    storedBytes: STORED_BYTES,
    livePayloadBytes: LIVE_BYTES,
    load,
  })
  const look = () => Promise.all([publisher.ask(), link.ask()])
  await publisher.ask({ start: true })
  await sleep(WARM_UP_MS)
  const [before, linkBefore] = await look()
  await sleep(SECONDS * 1_000)
  const [after, linkAfter] = await look()
  const ages = await subscriber.ask({ topic, from: linkBefore.at, to: linkAfter.at })
  await Promise.all([publisher.end(), link.end()])
  const carried = linkAfter.carried - linkBefore.carried
  return {
    load: name,
    p50Ms: ages.p50Ms,
    p99Ms: ages.p99Ms,
    offered: after.offered - before.offered,
    dropped: after.dropped,
    storedPerSecond: (after.delivered - before.delivered) / SECONDS,
    linkUse: carried / SECONDS / LINK,
    losses: after.losses,
  }
}

function missed({ load, p99Ms, dropped, storedPerSecond, linkUse }) {
  const limits = {
    'p99 age': load === 'none' || p99Ms <= 1.2 * MAX_DELAY_MS + ROUND_TRIP_MS,
    drops: load === '10x' || dropped === 0,
    replay: storedPerSecond > 0,
    'link use': linkUse >= 0.9,
  }
  return Object.entries(limits).flatMap(([name, isKept]) => (isKept ? [] : [name]))
}

try {
  const broker = await startMosquitto()
  started.push(() => broker.stop())
  const { child: subscriber } = await start(process.execPath, fileOf('staleness/age_subscriber.mjs'), {
    port: broker.port,
  })
  const python = findPython({ isPahoNeeded: false })
  const rows = []
  for (const [name, load] of Object.entries(LOADS))
    rows.push(await measure(name, load, { broker, subscriber, python }))
  console.log(`${STORED} stored messages of ${STORED_BYTES} B, a link of ${LINK} B/s, ${SECONDS} s each:`)
  console.table(rows.map(row => ({ ...row, missed: missed(row).join(', ') })))
  process.exitCode = rows.some(row => missed(row).length > 0) ? 1 : 0
} finally {
  for (const end of started.reverse()) await end()
  process.exit()
}

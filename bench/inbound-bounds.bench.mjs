// How much memory does a peer cost that ignores every limit? Each flood runs in its own process, with the default options.
// npm run bench -- inbound-bounds
import { Child } from './child.mjs'
import { startFlood } from './inbound-bounds/flood.mjs'
import { megabytes } from './memory.mjs'

const SECONDS = Number(process.env.FLOOD_SECONDS ?? 8)
const CONFIGURED_BYTES = 67_108_864
const BUDGET_BYTES = CONFIGURED_BYTES + 100e6
const MiB = 1_048_576

const FLOODS = [
  ...[4, 5].flatMap(protocolVersion =>
    ['unread loop', 'no ack()'].map(handler => ({
      protocolVersion,
      handler,
      qos: 1,
      count: 500_000,
      payloadBytes: 100,
    })),
  ),
  { protocolVersion: 4, handler: 'hanging', qos: 2, count: 10_000, payloadBytes: 100_000 },
  { protocolVersion: 4, handler: 'hanging', qos: 0, count: 1_000, payloadBytes: 16 * MiB - 100 },
]

async function run(flood) {
  const peer = await startFlood(flood)
  const receiver = new URL('inbound-bounds/receiver.mjs', import.meta.url)
  const { child } = await Child.start(process.execPath, receiver, { ...flood, port: peer.port }, [
    '--expose-gc',
  ])
  try {
    const end = performance.now() + SECONDS * 1_000
    while (performance.now() < end && peer.progress.written < flood.count)
      await new Promise(resolve => setTimeout(resolve, 200))
    await new Promise(resolve => setTimeout(resolve, 500))
    return { flood, ...peer.progress, ...(await child.ask()) }
  } finally {
    await child.end()
    peer.stop()
  }
}

let isMissed = false
for (const flood of FLOODS) {
  const { before, most, now, written, connections, stats } = await run(flood)
  const isOver = most - before > BUDGET_BYTES
  isMissed ||= isOver
  const { protocolVersion, handler, qos, count, payloadBytes } = flood
  console.log(
    `MQTT ${protocolVersion}, ${count} x ${payloadBytes} B at QoS ${qos}, ${handler}: +${megabytes(most - before)} MB at most, +${megabytes(now - before)} MB at the end ${isOver ? `MISSED (<= ${megabytes(BUDGET_BYTES)} MB)` : 'ok'}`,
  )
  const { received, dropped, unreleased, queuedBytes } = stats.inbound
  console.log(
    `  written ${written}, ${connections} connection(s) ${JSON.stringify({ received, dropped, unreleased, queuedBytes })}`,
  )
}
process.exit(isMissed ? 1 : 0)

// How long does a resumed session take to resend its publishes in flight, if the broker accepts 20 at a time? Twice as many
// must take about twice as long, and the event loop must stay responsive.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { MqttSession } from '../dist/client/mqtt-session.js'
import { resolveOptions } from '../dist/options/option-checks.js'
import { Child } from './child.mjs'

const COUNTS = [16_000, 32_000, 65_000]
const RECEIVE_MAXIMUM = 20
const ROUNDS = 3
/** Time per publish with the largest number in flight, divided by that with the smallest. */
const MAX_RATIO = 1.5
const MAX_DELAY_MS = 100
const CHUNK = 1_000

const silent = { error: console.error, warn: () => {}, log: () => {}, debug: () => {} }
const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

async function until(isDone) {
  const endMs = performance.now() + 60_000
  while (!(await isDone())) {
    if (performance.now() > endMs) throw new Error('nothing happens any more')
    await nextTurn()
  }
}

async function resume(count) {
  const { child, first } = await Child.start(process.execPath, new URL('resume/peer.mjs', import.meta.url), {
    receiveMaximum: RECEIVE_MAXIMUM,
  })
  const session = new MqttSession(
    resolveOptions({
      url: first.url,
      protocolVersion: 5,
      clean: false,
      clientId: 'resume',
      reconnect: { delayMs: [5] },
      outbound: {
        maxInFlight: count,
        ackTimeoutMs: 600_000,
        maxQueued: count,
        maxQueuedBytes: 1e9,
        whenBlocked: 'wait',
      },
    }),
    silent,
  )
  await session.start()
  const payload = Buffer.alloc(100, 'x')
  const outcomes = []
  for (let sent = 0; sent < count; sent += 1) {
    outcomes.push(session.publish({ topic: `resume/${sent % 100}`, payload, qos: 1, retain: false }))
    if (sent % CHUNK === 0) await nextTurn()
  }
  await until(async () => (await child.ask()).published === count)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  await child.ask({ cut: true })
  await until(() => session.stats.connection.losses === 1)
  const start = performance.now()
  for (const outcome of outcomes) {
    const { status } = await outcome
    if (status !== 'acknowledged') throw new Error(`a publish ended as ${status}`)
  }
  const ms = performance.now() - start
  delay.disable()
  const { published, mostOpen } = await child.ask()
  if (published !== 2 * count) throw new Error(`${published - count} of ${count} were sent again`)
  if (mostOpen > RECEIVE_MAXIMUM) throw new Error(`${mostOpen} were unacknowledged at a time`)
  await session.close()
  await child.end()
  return { ms, delayMs: delay.max / 1e6 }
}

const perPublish = []
let worstDelayMs = 0
await resume(COUNTS[0])
for (const count of COUNTS) {
  const rounds = []
  for (let round = 0; round < ROUNDS; round += 1) rounds.push(await resume(count))
  const ms = median(rounds.map(round => round.ms))
  const delayMs = median(rounds.map(round => round.delayMs))
  worstDelayMs = Math.max(worstDelayMs, delayMs)
  perPublish.push(ms / count)
  console.log(
    `${count} in flight, Receive Maximum ${RECEIVE_MAXIMUM}: resumed in ${Math.round(ms)} ms (${((1_000 * ms) / count).toFixed(1)} µs each), event loop delay at most ${Math.round(delayMs)} ms`,
  )
}
const ratio = perPublish.at(-1) / perPublish[0]
const isMissed = ratio > MAX_RATIO || worstDelayMs > MAX_DELAY_MS
console.log(
  `time for each publish, ${COUNTS.at(-1)} against ${COUNTS[0]}: x ${ratio.toFixed(2)} (at most ${MAX_RATIO}); event loop delay ${Math.round(worstDelayMs)} ms (at most ${MAX_DELAY_MS})`,
)
process.exitCode = isMissed ? 1 : 0

// The rate of the link falls and rises again: how long are messages too old, and how long is the link not fully used?
import { setTimeout as sleep } from 'node:timers/promises'
import { evenly, IS_QUICK, MAX_DELAY_MS, PAYLOAD_BYTES } from './plan.mjs'

const HIGH = 1_000_000
const LOW = 20_000
const PHASE_MS = 10_000
const ROUNDS = IS_QUICK ? 2 : 5
const WINDOW_MS = 250
const WARM_UP_MS = 5_000
/** Bytes of topic and header of a message, in addition to its payload. */
const MESSAGE_BYTES = PAYLOAD_BYTES + 12

/** Time within which a faster link must be fully used again. */
const UP_WITHIN_MS = 3_000

/** Samples the link for one phase, right after its rate was set. */
async function phase(link, bytesPerSecond) {
  const samples = [await link.ask({ bytesPerSecond })]
  const start = performance.now()
  for (let next = WINDOW_MS; next <= PHASE_MS; next += WINDOW_MS) {
    await sleep(Math.max(0, start + next - performance.now()))
    samples.push(await link.ask())
  }
  return samples
}

function stepUp(samples) {
  const [{ at: startedAt }] = samples
  const full = samples.find((sample, index) => {
    if (index === 0) return false
    const before = samples[index - 1]
    return (sample.carried - before.carried) / ((sample.at - before.at) / 1_000) > 0.9 * HIGH
  })
  const tookMs = full === undefined ? null : full.at - startedAt
  return { direction: 'up', tookMs, isKept: tookMs !== null && tookMs <= UP_WITHIN_MS }
}

function stepDown(samples, messages) {
  const { at: startedAt } = samples[0]
  const { at: endedAt } = samples.at(-1)
  // On one connection at QoS 0, messages that were sent before the step and arrive after it were in transit at the step.
  const inFlight = messages.filter(([at, age]) => at > startedAt && at - age <= startedAt).length
  const inFlightBytes = inFlight * MESSAGE_BYTES
  const arrived = messages.filter(([at]) => at > startedAt && at <= endedAt)
  const firstGood = arrived.findLastIndex(([, age]) => age > 1.2 * MAX_DELAY_MS) + 1
  // If no message is too old, the time is 0. If the last one is too old, the phase has not ended.
  const [backAt] = firstGood === 0 ? [startedAt] : (arrived[firstGood] ?? [null])
  const tookMs = backAt === null || arrived.length === 0 ? null : backAt - startedAt
  const allowedMs = (inFlightBytes / LOW) * 1.25 * 1_000
  const maxAgeMs = arrived.reduce((max, [, age]) => Math.max(max, age), 0)
  const isKept = tookMs !== null && tookMs <= allowedMs
  return { direction: 'down', inFlightBytes, tookMs, allowedMs, maxAgeMs, isKept }
}

export async function runSteps(bench, transport) {
  const parts = await bench.connect({
    subject: 'ours',
    transport,
    bytesPerSecond: HIGH,
    shape: evenly(2 * HIGH),
  })
  const { topic, link, publisher } = parts
  try {
    await publisher.ask({ start: true })
    await sleep(WARM_UP_MS)
    const phases = []
    for (let round = 0; round < ROUNDS; round += 1)
      phases.push({ down: await phase(link, LOW), up: await phase(link, HIGH) })
    const from = phases[0].down[0].at
    const { messages } = await bench.subscriber.ask({
      topic,
      from,
      to: phases.at(-1).up.at(-1).at,
      isList: true,
    })
    return phases.flatMap(({ down, up }) => [stepDown(down, messages), stepUp(up)])
  } finally {
    await parts.end()
  }
}

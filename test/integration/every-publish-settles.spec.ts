import { expect, it } from 'vitest'
import { holdClock } from '../support/held-clock.js'
import { PublishStorm } from '../support/publish-storm.js'
import { finish } from '../support/publisher-on-peer.js'

holdClock()

/** A different seed for each run of a fuzzer; otherwise always the same. */
const SEED = Number(process.env['SETTLE_SEED'] ?? 2)
/** A longer storm: SETTLE_PUBLISHES=1000000 for each version. */
const PUBLISHES = Number(process.env['SETTLE_PUBLISHES'] ?? 50_000)

const EVERY_REASON = [
  'aborted',
  'backlog',
  'expired',
  'in-flight-full',
  'offline',
  'queue-full',
  'superseded',
]

// A storm of 50,000 takes a few seconds; a publish has a millisecond of time.
it.each([5, 4] as const)(
  `every publish settles exactly once on version %i, with SETTLE_SEED=${SEED}`,
  async version => {
    const storm = await PublishStorm.start(version, SEED)
    while (storm.calls < PUBLISHES) await storm.turn()
    await storm.calm()
    const { calls, settled, rejected, tried, tally, reasons, reconnects, givenUp } = storm
    // Every kind of end was there.
    expect([...reasons].toSorted()).toEqual(EVERY_REASON)
    expect(reconnects).toBeGreaterThan(3)
    expect(givenUp).toBeGreaterThan(0)
    expect(tally.sent).toBeGreaterThan(1_000)
    expect(tally.acknowledged).toBeGreaterThan(1_000)
    expect(tally.lost).toBeGreaterThan(10)
    if (version === 5) expect(tally.refused).toBeGreaterThan(10)
    expect(settled).toBe(calls - tried.accepted - tried.dropped - tried.rejected)
    // What the counters say is what the promises said, and the rest is of `tryPublish`.
    const { attempted, acknowledged, lost, sent, dropped } = storm.parts.mqtt.stats().outbound
    const allDropped = Object.values(dropped).reduce((sum, count) => sum + count, 0)
    expect({ acknowledged, lost }).toEqual({ acknowledged: tally.acknowledged, lost: tally.lost })
    expect(attempted).toBe(settled - rejected + tried.accepted + tried.dropped)
    expect(sent).toBeGreaterThan(tally.sent)
    expect(sent).toBeLessThanOrEqual(tally.sent + tried.accepted)
    expect(allDropped).toBeGreaterThanOrEqual(tally.dropped + tried.dropped)
    await finish(storm.parts)
  },
  PUBLISHES,
)

// test/integration/large-publishes.spec.ts: fails today, passes with either patch (window or writer)
import { describe, expect, it, vi } from 'vitest'
import { holdClock, quiet } from '../support/held-clock.js'
import { finish, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

const BYTES_PER_MS = 20_000
const ROUND_TRIP_MS = 20
/** A round trip is measured again after 30 s, on an empty wire. */
const LONG_MS = 35_000
const PATIENCE_MS = 1_000

describe('publishes that are longer than one collected write', () => {
  it('continue without a pause on a fast link, even while its round trip is measured again', async () => {
    const outbound = { whenBlocked: 'wait', maxQueuedBytes: 2_000_000 } as const
    const parts = await publisherOnPeer({ outbound })
    const { connection, mqtt } = parts
    connection.respondsToPings = false
    const payload = Buffer.alloc(66_000)
    const unread: number[] = []
    let answers: number[] = []
    let readable = 0
    let lastReadMs = 0
    for (let elapsedMs = 0; elapsedMs < LONG_MS; elapsedMs += 1) {
      while (mqtt.stats().outbound.queued < 10) void mqtt.publish('large', payload)
      vi.advanceTimersByTime(1)
      await quiet(4)
      for (const { cmd } of connection.received.splice(0)) unread.push(cmd === 'pingreq' ? 0 : payload.length)
      readable = unread.length === 0 ? 0 : readable + BYTES_PER_MS
      for (let [next] = unread; next !== undefined && next <= readable; [next] = unread) {
        unread.shift()
        readable -= next
        lastReadMs = elapsedMs
        if (next === 0) answers.push(elapsedMs + ROUND_TRIP_MS)
      }
      const due = answers.filter(atMs => atMs <= elapsedMs)
      answers = answers.filter(atMs => atMs > elapsedMs)
      for (const _answer of due) connection.send({ cmd: 'pingresp' })
      expect(elapsedMs - lastReadMs, 'nothing is written any more').toBeLessThan(PATIENCE_MS)
    }
    await finish(parts)
  })
})

import { describe, expect, it } from 'vitest'
import { ReplayShare, replayWindow } from '../../../../src/core/outbound/replay-rules.js'
import { SimulatedLink } from '../../../support/simulated-link.js'

const LINK = { bytesPerSecond: 50_000, roundTripMs: 5 }
const STORED = 20_000
/** A payload of 100 B with topic, `message-id` and `stored-at`. */
const STORED_BYTES = 200
const LIVE_BYTES = 1_000
const MAX_IN_FLIGHT = 1_000
const MAX_DELAY_MS = 1_000
const SECOND_MS = 1_000

/** Sends stored messages over a link as the client does. Time is a number. */
class ReplayOnLink {
  readonly link = new SimulatedLink(LINK)
  delivered = 0
  private left = STORED
  private inFlight = 0
  private readonly share = new ReplayShare()

  constructor() {
    this.link.fill = othersWait => this.fill(othersWait)
    this.link.onFilled = () => {
      this.inFlight -= 1
      this.delivered += 1
    }
  }

  /** Live messages at this multiple of the link, for so long. */
  run(load: number, seconds: number): { readonly offered: number } {
    const bytesPerSecond = LINK.bytesPerSecond * load
    this.link.offer(seconds * SECOND_MS, { bytesPerSecond, messageBytes: LIVE_BYTES })
    return { offered: (seconds * bytesPerSecond) / LIVE_BYTES }
  }

  private fill(othersWait: boolean): void {
    const { link, share } = this
    share.offered(link.written)
    while (this.left > 0 && this.inFlight < replayWindow(MAX_IN_FLIGHT)) {
      if (!share.mayWrite(othersWait) || !link.isOpen()) return
      link.writeFilling(STORED_BYTES)
      this.left -= 1
      this.inFlight += 1
      share.wrote(othersWait, link.written)
    }
  }
}

describe('20,000 stored messages on a link of 50 KB/s', () => {
  it('take the whole link if there are no others, and all are delivered', () => {
    const replay = new ReplayOnLink()
    replay.run(0, 10)
    expect(replay.delivered / 10).toBeGreaterThan(0.95 * (LINK.bytesPerSecond / STORED_BYTES))
    replay.run(0, 75)
    expect(replay.delivered).toBe(STORED)
  })

  it('leave a live load of half the link as it is: nothing is dropped, and it arrives soon', () => {
    const replay = new ReplayOnLink()
    const { offered } = replay.run(0.5, 60)
    expect(replay.link.dropped).toBe(0)
    expect(replay.link.ages.length).toBeGreaterThan(offered - 20)
    expect(replay.link.age(0.99)).toBeLessThan(300)
    // And they take what it leaves.
    expect(replay.delivered / 60).toBeGreaterThan(0.45 * (LINK.bytesPerSecond / STORED_BYTES))
  })

  it('keep a tenth of the link beside a live load of ten times the link, which keeps the rest and its age', () => {
    const replay = new ReplayOnLink()
    replay.run(10, 10)
    const before = replay.delivered
    replay.link.forget()
    replay.run(10, 60)
    const storedShare = ((replay.delivered - before) * STORED_BYTES) / (60 * LINK.bytesPerSecond)
    const liveShare = (replay.link.ages.length * LIVE_BYTES) / (60 * LINK.bytesPerSecond)
    expect(storedShare).toBeGreaterThan(0.09)
    expect(storedShare).toBeLessThan(0.11)
    expect(liveShare).toBeGreaterThan(0.86)
    expect(replay.link.age(0.99)).toBeLessThan(1.2 * MAX_DELAY_MS + LINK.roundTripMs)
  })

  it('yield within a second when a live load begins, and take the link again when it ends', () => {
    const replay = new ReplayOnLink()
    replay.run(0, 5)
    replay.link.forget()
    replay.run(0.85, 20)
    expect(replay.link.dropped).toBe(0)
    expect(replay.link.age(0.99)).toBeLessThan(MAX_DELAY_MS)
    const before = replay.delivered
    replay.run(0, 5)
    expect((replay.delivered - before) / 5).toBeGreaterThan(0.9 * (LINK.bytesPerSecond / STORED_BYTES))
  })
})

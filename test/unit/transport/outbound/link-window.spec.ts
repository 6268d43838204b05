import { describe, expect, it } from 'vitest'
import { LinkWindow } from '../../../../src/transport/outbound/link-window.js'
import { type LinkConduct, SimulatedLink } from '../../../support/simulated-link.js'

const START_BYTES = 2_048
const FLOOR_BYTES = 512
/** Time to learn everything of a link. */
const LEARNING_MS = 4_000

/** Milliseconds of data that may be on their way: 100, or up to four round trips. */
const wireMs = (roundTripMs: number) => Math.max(100, Math.min(4 * roundTripMs, 2 * roundTripMs + 100))

function learned(conduct: LinkConduct): SimulatedLink {
  const link = new SimulatedLink(conduct)
  link.run(LEARNING_MS)
  return link
}

const RATES = [10_000, 100_000, 1_000_000, 10_000_000]
const ROUND_TRIPS = [1, 20, 50, 200]
const CONDUCTS = RATES.flatMap(bytesPerSecond =>
  ROUND_TRIPS.map((roundTripMs): LinkConduct => ({ bytesPerSecond, roundTripMs })),
)

describe('a link', () => {
  it.each(CONDUCTS)(
    'of $bytesPerSecond with round trips of $roundTripMs ms is full, and no fuller',
    conduct => {
      const { bytesPerSecond, roundTripMs } = conduct
      const link = learned(conduct)
      expect(link.utilisation(2_000)).toBeGreaterThan(0.95)
      const wireBytes = (bytesPerSecond * wireMs(roundTripMs)) / 1_000
      expect(link.mostOnWire).toBeLessThan(1.1 * wireBytes)
      expect(link.window.size).toBeGreaterThan(0.8 * wireBytes)
      expect(link.window.size).toBeLessThan(1.2 * wireBytes)
      expect(link.window.bytesPerSecond).toBeGreaterThan(0.9 * bytesPerSecond)
      expect(link.window.bytesPerSecond).toBeLessThan(1.1 * bytesPerSecond)
    },
  )

  it('carries what is far less than it could at once', () => {
    const link = new SimulatedLink({ bytesPerSecond: 1_000_000, roundTripMs: 20 })
    link.run(1_000, 25, 1)
    const { written } = link
    for (let round = 1; round <= 20_000; round += 1) {
      link.run(0.25, 25, 1)
      expect(link.written - written).toBe(25 * round)
      expect(link.window.isSlow(link.nowMs)).toBe(false)
    }
    expect(link.window.delayMs(0, link.nowMs)).toBeUndefined()
  })

  it('tells how long a message would take, once it is the limit', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000, roundTripMs: 20 })
    expect(link.window.delayMs(10_000, 0)).toBeUndefined()
    link.run(LEARNING_MS)
    const { unconfirmed } = link.window
    const delayMs = link.window.delayMs(10_000, link.nowMs) ?? 0
    expect(delayMs / (unconfirmed + 10_000)).toBeCloseTo(0.1, 2)
  })

  it('does not go below the smallest window, however slow it is', () => {
    const link = learned({ bytesPerSecond: 1_000, roundTripMs: 10 })
    expect(link.utilisation(20_000)).toBeGreaterThan(0.85)
    expect(link.window.size).toBe(FLOOR_BYTES)
    expect(link.mostOnWire).toBeLessThan(FLOOR_BYTES + 200)
  })
})

describe('the start', () => {
  it('is small, whatever the link could take', () => {
    const link = new SimulatedLink({ bytesPerSecond: 100_000_000, roundTripMs: 150 })
    link.run(149, 100)
    expect(link.written).toBeGreaterThanOrEqual(START_BYTES)
    expect(link.written).toBeLessThan(START_BYTES + 100)
  })

  it('doubles with each round trip while nothing queues on the link', () => {
    const link = new SimulatedLink({ bytesPerSecond: 100_000_000, roundTripMs: 20 })
    link.run(20 * 12, 1_000)
    expect(link.window.size).toBeGreaterThanOrEqual(START_BYTES * 2 ** 7)
    expect(link.window.size).toBeLessThanOrEqual(START_BYTES * 2 ** 12)
  })

  it('reaches a fast link within half a second', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000_000, roundTripMs: 10 })
    link.run(500)
    expect(link.utilisation(500)).toBeGreaterThan(0.9)
  })

  it('does not grow for a sender that needs no more', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000_000, roundTripMs: 10 })
    link.run(LEARNING_MS, 20, 1)
    expect(link.window.size).toBe(START_BYTES)
  })
})

describe('a link that becomes 50 times as slow', () => {
  it('gets nothing more before it has drained what was on its way', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 20_000, roundTripMs: 20 }
    // The answers that are on their way still tell of the fast link.
    link.run(25, 100)
    const { written, onWire } = link
    expect(onWire).toBeGreaterThan(20_000)
    while (link.onWire > 1_000) {
      link.run(1, 100)
      expect(link.written).toBe(written)
      expect(link.nowMs).toBeLessThan(60_000)
    }
    // From then on it is full, and no fuller.
    expect(link.utilisation(2_000, 100)).toBeGreaterThan(0.85)
    expect(link.mostOnWire).toBeLessThan(20_000 * 0.25)
  })

  it('is known as such soon after, and full again', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 20_000, roundTripMs: 20 }
    link.run(10_000, 100)
    expect(link.utilisation(2_000, 100)).toBeGreaterThan(0.9)
    expect(link.mostOnWire).toBeLessThan(20_000 * 0.15)
    expect(link.window.bytesPerSecond).toBeLessThan(22_000)
    expect(link.window.isSlow(link.nowMs)).toBe(true)
  })

  it('is used in full when it becomes fast again', () => {
    const link = learned({ bytesPerSecond: 20_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 1_000_000, roundTripMs: 20 }
    link.run(3_000)
    expect(link.utilisation(1_000)).toBeGreaterThan(0.95)
    expect(link.window.bytesPerSecond).toBeGreaterThan(900_000)
  })
})

describe('a marker that stays away', () => {
  it('shuts the window, however little is on the wire, and opens it when it comes', () => {
    const window = new LinkWindow()
    window.wrote(10, 0)
    window.mark(0)
    expect(window.isOpen(200)).toBe(true)
    expect(window.isOpen(201)).toBe(false)
    window.confirm(5_000)
    // Nobody knows the round trip yet: an empty wire is to tell it.
    expect(window.wantsProbe).toBe(true)
    window.mark(5_000)
    window.confirm(5_010)
    expect(window.isOpen(5_010)).toBe(true)
  })

  it('is waited for longer where round trips are long', () => {
    const window = new LinkWindow()
    window.mark(0)
    window.confirm(300)
    window.wrote(10, 300)
    window.mark(300)
    expect(window.isOpen(300 + 2 * wireMs(300))).toBe(true)
    expect(window.isOpen(301 + 2 * wireMs(300))).toBe(false)
  })

  it('stops a link that stands still within twice its time on the wire', () => {
    const link = learned({ bytesPerSecond: 100_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 0, roundTripMs: 20 }
    const { written } = link
    link.run(60_000, 100)
    expect(link.written - written).toBeLessThan(100_000 * 0.1)
    const after = link.written
    link.run(60_000, 100)
    expect(link.written).toBe(after)
  })

  it('is nobody else than the one that was asked for: an answer too many is passed over', () => {
    const window = new LinkWindow()
    window.confirm(0)
    expect(window.unconfirmed).toBe(0)
    expect(window.isOpen(0)).toBe(true)
    window.wrote(100, 1)
    window.confirm(2)
    expect(window.unconfirmed).toBe(100)
  })
})

describe('a pause of this process', () => {
  it.each([true, false])('is not taken for a slow link, with a publish before the answers: %j', isBlocked => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000_000, roundTripMs: 5 })
    link.run(2_000, 100, 1)
    link.isPaused = true
    link.run(700)
    link.isPaused = false
    if (isBlocked) expect(link.window.isOpen(link.nowMs)).toBe(false)
    for (let elapsed = 0; elapsed < 3_000; elapsed += 1) {
      link.run(1, 100, 1)
      expect(link.window.isSlow(link.nowMs)).toBe(false)
    }
    expect(link.delivered).toBeGreaterThan(link.written - 10_000)
  })
})

describe('one late marker', () => {
  it('makes the window half as large, and no smaller', () => {
    const window = new LinkWindow()
    window.mark(0)
    window.confirm(10)
    window.wrote(START_BYTES, 10)
    window.mark(10)
    expect(window.isOpen(10)).toBe(false)
    window.confirm(2_010)
    expect(window.size).toBe(START_BYTES / 2)
  })
})

describe('round trips that become longer', () => {
  it('are measured again, so that the link is full again', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 5 })
    link.conduct = { bytesPerSecond: 1_000_000, roundTripMs: 200 }
    link.run(6_000)
    expect(link.utilisation(2_000)).toBeGreaterThan(0.9)
    expect(link.window.size).toBeGreaterThan(1_000_000 * 0.3)
  })

  it('are measured on an empty wire only: until then nothing is written', () => {
    const window = new LinkWindow()
    window.wrote(3_000, 0)
    window.mark(0)
    expect(window.isOpen(0)).toBe(false)
    window.wrote(10, 1)
    window.mark(1)
    window.confirm(500)
    expect(window.isOpen(500)).toBe(false)
    expect(window.wantsProbe).toBe(false)
    window.confirm(501)
    expect(window.wantsProbe).toBe(true)
    window.mark(501)
    expect(window.wantsProbe).toBe(false)
    expect(window.isOpen(501)).toBe(false)
    window.confirm(541)
    expect(window.isOpen(541)).toBe(true)
    expect(window.isOpen(541 + 1)).toBe(true)
  })

  it('are measured again from time to time on a busy link', () => {
    const link = learned({ bytesPerSecond: 100_000, roundTripMs: 50 })
    const empty: number[] = []
    for (let elapsed = 0; elapsed < 70_000; elapsed += 1) {
      link.run(1, 200)
      if (link.window.unconfirmed === 0 && (empty.at(-1) ?? 0) < link.nowMs - 1_000) empty.push(link.nowMs)
    }
    expect(empty.length).toBeGreaterThanOrEqual(2)
    expect(empty.length).toBeLessThanOrEqual(3)
  })
})

describe('markers', () => {
  it('are due behind an eighth of the window, and by time behind less', () => {
    const window = new LinkWindow()
    expect(window.markerDueMs).toBeUndefined()
    window.mark(1_000)
    window.wrote(START_BYTES / 8 - 1, 1_000)
    expect(window.wantsMarker).toBe(false)
    expect(window.markerDueMs).toBe(1_000 + 100 / 8)
    window.wrote(1, 1_000)
    expect(window.wantsMarker).toBe(true)
    window.mark(1_001)
    expect(window.wantsMarker).toBe(false)
    expect(window.markerDueMs).toBeUndefined()
  })

  it('confirm what stands before them, in order', () => {
    const window = new LinkWindow()
    window.wrote(100, 0)
    window.mark(0)
    window.wrote(50, 1)
    window.mark(1)
    window.wrote(7, 2)
    expect(window.unconfirmed).toBe(157)
    window.confirm(10)
    expect(window.unconfirmed).toBe(57)
    window.confirm(11)
    expect(window.unconfirmed).toBe(7)
  })
})

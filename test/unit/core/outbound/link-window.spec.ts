import { describe, expect, it } from 'vitest'
import { LinkWindow } from '../../../../src/core/outbound/link-window.js'
import { type LinkConduct, SimulatedLink } from '../../../support/simulated-link.js'

const START_BYTES = 2_048
const FLOOR_BYTES = 512
/** Time to learn everything of a link. */
const LEARNING_MS = 4_000

/** Milliseconds of data that may be on their way: one round trip, and 100 that may queue. */
const wireMs = (roundTripMs: number) => roundTripMs + 100

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
    'of $bytesPerSecond with round trips of $roundTripMs ms is fully used, and not overfilled',
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

  it('carries a load far below its capacity at once', () => {
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

  it('estimates the time of a message, once it is the limit', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000, roundTripMs: 20 })
    expect(link.window.delayMs(10_000, 0)).toBeUndefined()
    link.run(LEARNING_MS)
    const { unconfirmed } = link.window
    const delayMs = link.window.delayMs(10_000, link.nowMs) ?? 0
    expect(delayMs / (unconfirmed + 10_000)).toBeCloseTo(0.1, 2)
  })

  it('does not shrink below the smallest window, however slow it is', () => {
    const link = learned({ bytesPerSecond: 1_000, roundTripMs: 10 })
    link.run(20_000)
    expect(link.utilisation(20_000)).toBeGreaterThan(0.85)
    expect(link.window.size).toBeGreaterThanOrEqual(FLOOR_BYTES)
    expect(link.mostOnWire).toBeLessThan(FLOOR_BYTES + 200)
  })
})

describe('the first window', () => {
  it('is small, whatever the capacity of the link', () => {
    const link = new SimulatedLink({ bytesPerSecond: 100_000_000, roundTripMs: 150 })
    link.run(149, 100)
    expect(link.written).toBeGreaterThanOrEqual(START_BYTES)
    expect(link.written).toBeLessThan(START_BYTES + 100)
  })

  it('at least doubles with each round trip while the queue of the link is empty', () => {
    const link = new SimulatedLink({ bytesPerSecond: 100_000_000, roundTripMs: 20 })
    link.run(20 * 7, 1_000)
    expect(link.window.size).toBeGreaterThanOrEqual(START_BYTES * 2 ** 7)
    expect(link.window.size).toBeLessThanOrEqual((100_000_000 * wireMs(20)) / 1_000)
  })

  it('reaches a fast link within half a second', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000_000, roundTripMs: 10 })
    link.run(500)
    expect(link.utilisation(500)).toBeGreaterThan(0.9)
  })

  it('does not grow if the sender does not use it', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000_000, roundTripMs: 10 })
    link.run(LEARNING_MS, 20, 1)
    expect(link.window.size).toBe(START_BYTES)
  })
})

describe('a link that becomes 50 times as slow', () => {
  it('receives nothing more before it has drained the bytes in transit', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 20_000, roundTripMs: 20 }
    // The responses in transit still show the rate of the fast link.
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

  it('is detected soon, and fully used again', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 20_000, roundTripMs: 20 }
    link.run(10_000, 100)
    expect(link.utilisation(2_000, 100)).toBeGreaterThan(0.9)
    expect(link.mostOnWire).toBeLessThan(20_000 * 0.15)
    expect(link.window.bytesPerSecond).toBeLessThan(22_000)
    expect(link.window.isSlow(link.nowMs)).toBe(true)
  })

  it('is fully used when it becomes fast again', () => {
    const link = learned({ bytesPerSecond: 20_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 1_000_000, roundTripMs: 20 }
    link.run(3_000)
    expect(link.utilisation(1_000)).toBeGreaterThan(0.95)
    expect(link.window.bytesPerSecond).toBeGreaterThan(900_000)
  })
})

describe('a marker without a response', () => {
  it('lets little more be written, however large the window is', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 20 })
    link.run(2_000, 100, 0)
    link.conduct = { bytesPerSecond: 0, roundTripMs: 20 }
    link.offer(60_000, { bytesPerSecond: 2_400, messageBytes: 120 })
    expect(link.onWire).toBeLessThan(10_000)
  })

  it('stops a full link that is blocked', () => {
    const link = learned({ bytesPerSecond: 100_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 0, roundTripMs: 20 }
    const { written } = link
    link.run(60_000, 100)
    expect(link.written - written).toBeLessThan(100_000 * 0.1)
    const after = link.written
    link.run(60_000, 100)
    expect(link.written).toBe(after)
  })

  it('is sent again with growing pauses', () => {
    const link = learned({ bytesPerSecond: 100_000, roundTripMs: 20 })
    link.conduct = { bytesPerSecond: 0, roundTripMs: 20 }
    link.run(2_000, 100)
    const before = link.pings
    link.run(60_000, 100)
    expect(link.pings).toBeGreaterThan(before + 10)
    link.conduct = { bytesPerSecond: 100_000, roundTripMs: 20 }
    link.run(5_000, 100)
    expect(link.utilisation(2_000, 100)).toBeGreaterThan(0.9)
  })

  it('has exactly one response: a surplus response is ignored', () => {
    const window = new LinkWindow()
    window.confirm(0)
    expect(window.unconfirmed).toBe(0)
    expect(window.isOpen(0)).toBe(true)
    window.wrote(100, 1)
    window.confirm(2)
    expect(window.unconfirmed).toBe(100)
  })
})

describe('a busy process', () => {
  it.each([true, false])(
    'is not mistaken for a slow link, with a publish before the responses: %j',
    isBlocked => {
      const link = new SimulatedLink({ bytesPerSecond: 10_000_000, roundTripMs: 5 })
      link.run(2_000, 100, 1)
      link.isPaused = true
      link.run(700)
      link.isPaused = false
      if (isBlocked) link.window.isOpen(link.nowMs)
      for (let elapsed = 0; elapsed < 3_000; elapsed += 1) {
        link.run(1, 100, 1)
        expect(link.window.isSlow(link.nowMs)).toBe(false)
      }
      expect(link.delivered).toBeGreaterThan(link.written - 10_000)
    },
  )
})

describe('round trips that become longer', () => {
  it('are measured again, so that the link is fully used again', () => {
    const link = learned({ bytesPerSecond: 1_000_000, roundTripMs: 5 })
    link.conduct = { bytesPerSecond: 1_000_000, roundTripMs: 200 }
    link.run(6_000)
    expect(link.utilisation(2_000)).toBeGreaterThan(0.9)
    expect(link.window.size).toBeGreaterThan(1_000_000 * 0.3)
  })

  it('are measured again from time to time on a busy link, by a hold of 100 ms', () => {
    const link = learned({ bytesPerSecond: 100_000, roundTripMs: 50 })
    let holds = 0
    let heldMs = 0
    for (let elapsed = 0; elapsed < 70_000; elapsed += 1) {
      const { written } = link
      link.run(1, 100)
      heldMs = link.written === written ? heldMs + 1 : 0
      if (heldMs === 90) holds += 1
    }
    expect(holds).toBeGreaterThanOrEqual(6)
    expect(holds).toBeLessThanOrEqual(15)
  })
})

describe('markers', () => {
  it('are due after half of the first window, and not by time after fewer bytes', () => {
    const window = new LinkWindow()
    expect(window.wrote(START_BYTES / 2 - 1, 1_000)).toBe(false)
    expect(window.isMarkerDue(60_000)).toBe(false)
    expect(window.dueMs(60_000)).toBeUndefined()
    expect(window.wrote(1, 60_000)).toBe(true)
    window.mark(60_000)
    expect(window.isMarkerDue(60_000)).toBe(false)
  })

  it('are due after an eighth of the window, and by time after fewer bytes, while the window is the limit', () => {
    const window = new LinkWindow()
    window.wrote(START_BYTES, 1_000)
    window.mark(1_000)
    expect(window.isOpen(1_000)).toBe(false)
    window.confirm(1_010)
    expect(window.wrote(START_BYTES / 8 - 1, 1_010)).toBe(false)
    expect(window.isMarkerDue(1_012)).toBe(false)
    expect(window.dueMs(1_010)).toBe(1_012.5)
    expect(window.isMarkerDue(1_012.5)).toBe(true)
  })

  it('are not needed after bytes that a PUBACK has confirmed', () => {
    const window = new LinkWindow()
    for (let at = 100; at <= 10_000; at += 100) {
      expect(window.wrote(100, at)).toBe(false)
      window.acknowledged(at, at, at + 10)
      expect(window.unconfirmed).toBe(0)
    }
  })

  it('show which bytes the broker has not read; the few bytes without a marker count as read', () => {
    const window = new LinkWindow()
    window.wrote(100, 0)
    expect(window.read).toBe(100)
    window.mark(0)
    window.wrote(50, 1)
    expect(window.read).toBe(0)
    window.confirm(10)
    expect(window.read).toBe(150)
  })

  it('confirm the bytes before them, in order', () => {
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

describe('the acknowledgement of a message', () => {
  it('confirms the bytes up to its end, and never fewer than before', () => {
    const window = new LinkWindow()
    window.wrote(100, 0)
    window.wrote(50, 1)
    window.acknowledged(100, 0, 10)
    expect(window.unconfirmed).toBe(50)
    window.acknowledged(60, 0, 11)
    expect(window.unconfirmed).toBe(50)
    window.acknowledged(150, 1, 12)
    expect(window.unconfirmed).toBe(0)
  })

  it('confirms nothing while a marker is in transit, whose response confirms it', () => {
    const window = new LinkWindow()
    window.wrote(100, 0)
    window.mark(0)
    window.wrote(50, 1)
    window.acknowledged(150, 1, 10)
    expect(window.unconfirmed).toBe(150)
    window.confirm(11)
    expect(window.unconfirmed).toBe(50)
  })

  it('shows that the round trip is no longer than its age', () => {
    const window = new LinkWindow()
    window.wrote(100, 1_000)
    window.acknowledged(100, 1_000, 1_030)
    window.wrote(100, 2_000)
    window.mark(2_000)
    // A round trip of 30 ms, a queue of 100 ms, and 100 ms that need no explanation.
    expect(window.dueMs(2_000)).toBe(2_000 + 30 + 100 + 100 + 1)
  })

  it.each([
    { ageMs: 20, roundTripMs: 20 },
    { ageMs: 30, roundTripMs: 30 },
    { ageMs: 50, roundTripMs: 30 },
  ])(
    'with an age of $ageMs ms makes a round trip of 30 ms one of $roundTripMs ms',
    ({ ageMs, roundTripMs }) => {
      const window = new LinkWindow()
      window.wrote(100, 1_000)
      window.acknowledged(100, 1_000, 1_030)
      window.wrote(100, 2_000)
      window.acknowledged(200, 2_000, 2_000 + ageMs)
      window.wrote(100, 3_000)
      window.mark(3_000)
      expect(window.dueMs(3_000)).toBe(3_000 + roundTripMs + 100 + 100 + 1)
    },
  )
})

describe('the largest message in transit', () => {
  it('delays the point at which a response counts as late, until everything is confirmed', () => {
    const link = learned({ bytesPerSecond: 10_000, roundTripMs: 20 })
    const lateAfterMs = (bytes: number) => {
      link.write(bytes)
      link.mark()
      return (link.window.dueMs(link.nowMs) ?? Number.POSITIVE_INFINITY) - link.nowMs
    }
    link.mark()
    link.idle(1_000)
    expect(link.window.unconfirmed).toBe(0)
    const smallMs = lateAfterMs(100)
    link.idle(1_000)
    const largeMs = lateAfterMs(1_500)
    // 1,400 bytes more, at about 10 bytes per millisecond.
    expect(largeMs - smallMs).toBeGreaterThan(120)
    expect(largeMs - smallMs).toBeLessThan(160)
    expect(lateAfterMs(100)).toBe(largeMs)
    link.idle(1_000)
    expect(link.window.unconfirmed).toBe(0)
    expect(lateAfterMs(100)).toBeLessThan(largeMs - 100)
  })
})

describe('a second after the window was closed', () => {
  /** A window that was closed at 1,000 ms, with everything confirmed. */
  function closedAt1000(): LinkWindow {
    const window = new LinkWindow()
    window.wrote(START_BYTES, 1_000)
    window.mark(1_000)
    expect(window.isOpen(1_000)).toBe(false)
    window.confirm(1_010)
    return window
  }

  it('a few bytes need no marker any more', () => {
    const before = closedAt1000()
    expect(before.wrote(START_BYTES / 2 - 1, 1_999)).toBe(true)
    const after = closedAt1000()
    expect(after.wrote(START_BYTES / 2 - 1, 2_000)).toBe(false)
  })

  it('no marker is due by time any more', () => {
    const window = closedAt1000()
    window.wrote(10, 1_010)
    expect(window.isMarkerDue(1_999.9)).toBe(true)
    expect(window.isMarkerDue(2_000)).toBe(false)
    expect(window.dueMs(2_000)).toBeUndefined()
  })
})

describe('a window that is open or closed', () => {
  it('is closed when it is exactly full', () => {
    const window = new LinkWindow()
    window.wrote(START_BYTES - 1, 0)
    expect(window.isOpen(0)).toBe(true)
    window.wrote(1, 0)
    expect(window.isOpen(0)).toBe(false)
  })

  it('accepts one message of any size', () => {
    const window = new LinkWindow()
    expect(window.isOpen(0)).toBe(true)
    window.wrote(10 * START_BYTES, 0)
    expect(window.isOpen(0)).toBe(false)
  })

  it('is as much larger as responses may have waited unread', () => {
    const window = new LinkWindow()
    window.wrote(100, 0)
    window.mark(0)
    window.confirm(100)
    // A round trip of 100 ms and 100 ms in the queue: with 200 ms unread, twice as much.
    window.wrote(2 * window.size - 1, 200)
    window.mark(200)
    expect(window.isOpen(200)).toBe(false)
    expect(window.isOpen(200, 200)).toBe(true)
    window.wrote(1, 200)
    expect(window.isOpen(200, 200)).toBe(false)
  })

  it('is idle without unconfirmed bytes: nothing becomes due', () => {
    const window = new LinkWindow()
    window.wrote(2_000, 0)
    window.mark(0)
    expect(window.isTending).toBe(true)
    window.confirm(10)
    expect(window.dueMs(10)).toBeUndefined()
    expect(window.isTending).toBe(false)
  })
})

describe('a marker of the first burst', () => {
  it('is due when the window is exactly full, although only a few bytes are unmarked', () => {
    const window = new LinkWindow()
    window.wrote(START_BYTES - 10, 0)
    window.mark(0)
    window.wrote(9, 0)
    expect(window.isMarkerDue(0)).toBe(false)
    window.wrote(1, 0)
    expect(window.isMarkerDue(0)).toBe(true)
  })
})

describe('a response two seconds after its marker', () => {
  /** A round trip of 10 ms is known, the response to a marker sent at 1,000 ms is missing, and there are bytes after it. */
  function waiting(): LinkWindow {
    const window = new LinkWindow()
    window.wrote(100, 0)
    window.mark(0)
    window.confirm(10)
    window.wrote(100, 1_000)
    window.mark(1_000)
    window.wrote(100, 1_100)
    return window
  }

  it('needs an explanation by a hold', () => {
    const window = waiting()
    window.confirm(3_000, 999)
    expect(window.holdDue).toBe('now')
  })

  it('needs none if it may have waited unread since its marker was sent', () => {
    const window = waiting()
    window.confirm(3_000, 1_000)
    expect(window.holdDue).toBeUndefined()
  })

  it('ends the hold that looked for the reason, if it may have waited unread', () => {
    const window = waiting()
    window.look(1_500)
    expect(window.isOpen(1_500)).toBe(false)
    window.confirm(3_000, 3_000)
    expect(window.isOpen(3_000)).toBe(true)
    expect(window.isMarkerDue(3_000)).toBe(false)
  })
})

import { describe, expect, it } from 'vitest'
import type { Finding, Marker } from '../../../../src/core/outbound/pings.js'
import { type Response, WindowSize } from '../../../../src/core/outbound/window-size.js'

const START_BYTES = 2_048
const FLOOR_BYTES = 512

interface Fields
  extends Partial<Omit<Response, 'marker'>>,
    Partial<Pick<Marker, 'at' | 'confirmed' | 'sinceMs'>> {}

/** A response to a marker behind 1,000 bytes, which was sent when the previous one had its response. */
function response({ at = 1_000, confirmed = 0, sinceMs, ...fields }: Fields = {}): Response {
  const { ageMs = 50, nowMs = 50 } = fields
  const sentMs = nowMs - ageMs
  return {
    marker: { at, sentMs, confirmed, sinceMs: sinceMs ?? sentMs, received: 0 },
    ageMs,
    nowMs,
    written: at,
    isLimited: true,
    isHolding: false,
    isDoubted: false,
    ...fields,
  }
}

/** A window with a round trip of 50 ms and no known rate. */
function measured(): WindowSize {
  const window = new WindowSize()
  window.measure(response({ confirmed: 1_000 }))
  return window
}

/** A window whose link is the limit, with 100 bytes per millisecond. */
function limited(): WindowSize {
  const window = measured()
  window.bytes = 15_000
  window.rate.fit(100, 1_000)
  return window
}

const finding = (fields: Partial<Finding> = {}): Finding => ({
  isDrained: true,
  isUplinkFree: false,
  ageMs: 50,
  delivered: 100,
  ...fields,
})

describe('the size of the window', () => {
  it('is 2 KB at first, whatever the first round trip', () => {
    const window = measured()
    expect([window.bytes, window.isSettled, window.hasShrunk]).toEqual([START_BYTES, true, false])
  })

  it('doubles once per round trip while nothing waits and it is the limit', () => {
    const window = measured()
    window.adapt(response({ at: 1_000, written: 2_000 }), 400)
    expect(window.bytes).toBe(2 * START_BYTES)
    window.adapt(response({ at: 2_000, confirmed: 1_000, written: 6_000, nowMs: 60 }), 400)
    expect(window.bytes).toBe(2 * START_BYTES)
    window.adapt(response({ at: 2_001, confirmed: 1_000, written: 6_000, nowMs: 70 }), 400)
    expect(window.bytes).toBe(4 * START_BYTES)
  })

  it('does not grow while it is not the limit, or without bytes before the marker', () => {
    const window = measured()
    window.adapt(response({ isLimited: false }), 400)
    window.adapt(response({ at: 1_000, confirmed: 1_000 }), 400)
    expect(window.bytes).toBe(START_BYTES)
  })

  it('grows by at most the own queue once the rate is known', () => {
    const window = limited()
    window.adapt(response({ at: 5_000, ageMs: 55 }), 400)
    expect(window.bytes).toBe(15_000 + 100 * 100)
  })

  it('has an end', () => {
    const window = measured()
    window.bytes = 64 * 1_048_576
    window.adapt(response(), 400)
    expect(window.bytes).toBe(64 * 1_048_576)
  })

  it('follows the round trip', () => {
    const window = limited()
    window.measure(response({ confirmed: 1_000, ageMs: 200, nowMs: 2_000 }))
    expect(window.bytes).toBe((15_000 * 300) / 150)
    window.measure(response({ confirmed: 1_000, ageMs: 50, nowMs: 3_000 }))
    expect(window.bytes).toBe(15_000)
  })

  it('does not become smaller than the first one by a shorter round trip while the rate is unknown', () => {
    const window = measured()
    window.measure(response({ confirmed: 1_000, ageMs: 1, nowMs: 2_000 }))
    expect(window.bytes).toBe(START_BYTES)
    const known = limited()
    known.bytes = FLOOR_BYTES + 1
    known.measure(response({ confirmed: 1_000, ageMs: 1, nowMs: 2_000 }))
    expect(known.bytes).toBe(FLOOR_BYTES)
  })
})

describe('the window of a link that is the limit', () => {
  /** Two responses, with own bytes waiting: 100 ms later, so many bytes more. */
  function fitted(window: WindowSize, bytes: number, fields: Fields = {}): WindowSize {
    window.adapt(response({ at: 50_000, confirmed: 49_000, ageMs: 130, nowMs: 1_000, sinceMs: 900 }), 400)
    window.adapt(
      response({
        at: 50_000 + bytes,
        confirmed: 50_000,
        ageMs: 130,
        nowMs: 1_100,
        sinceMs: 1_000,
        ...fields,
      }),
      400,
    )
    return window
  }

  it('is what the link carries in one round trip and 100 ms', () => {
    expect(fitted(limited(), 10_000).bytes).toBe(100 * 150)
    const slower = fitted(limited(), 8_000)
    expect(slower.rate.bytesPerMs).toBe(90)
    expect(slower.bytes).toBe(90 * 150)
  })

  it('changes by at most a factor of two at a time, and never falls below 512 bytes', () => {
    expect(fitted(limited(), 1_000).bytes).toBe(15_000 / 2)
    const wide = limited()
    wide.bytes = 5_000
    expect(fitted(wide, 10_000).bytes).toBe(10_000)
    const narrow = limited()
    narrow.bytes = FLOOR_BYTES
    expect(fitted(narrow, 100).bytes).toBe(FLOOR_BYTES)
  })

  it('has shrunk suspiciously below half of the largest size since the last hold', () => {
    const window = limited()
    window.adapt(response({ isLimited: false }), 400)
    window.bytes = 7_500
    expect(window.hasShrunk).toBe(false)
    window.bytes = 7_499
    expect(window.hasShrunk).toBe(true)
    window.judge(finding(), response({ nowMs: 2_000 }))
    expect(window.hasShrunk).toBe(false)
  })

  it('stays the same while it is not the limit', () => {
    expect(fitted(limited(), 1_000, { isLimited: false }).bytes).toBe(15_000)
  })

  it('stays the same during a hold, unless a late response has to be explained', () => {
    expect(fitted(limited(), 1_000, { isHolding: true }).bytes).toBe(15_000)
    expect(fitted(limited(), 1_000, { isHolding: true, isDoubted: true }).bytes).toBe(7_500)
  })

  it('stays the same while the round trip follows the ages', () => {
    const window = limited()
    window.roundTrip.lengthened(50, 1_000)
    expect(fitted(window, 1_000).bytes).toBe(15_000)
  })

  it('follows a response that is far too late without a second one', () => {
    const window = limited()
    window.adapt(response({ at: 10_000, ageMs: 400, nowMs: 1_000, sinceMs: 800 }), 399)
    // 10,000 bytes in 400 ms, because others share the link.
    expect(window.rate.bytesPerMs).toBe(25)
    const other = limited()
    other.adapt(response({ at: 10_000, ageMs: 400, nowMs: 1_000, sinceMs: 800 }), 400)
    expect(other.rate.bytesPerMs).toBe(100)
  })

  it('is the share of the link that own bytes had if its queue is longer than their own', () => {
    // 130 ms is within one round trip and 125 ms, 180 ms is not.
    expect(fitted(limited(), 10_000, { ageMs: 170 }).rate.bytesPerMs).toBe(100)
    expect(fitted(limited(), 10_000, { ageMs: 180 }).rate.bytesPerMs).toBeCloseTo((100 + 10_000 / 180) / 2)
  })
})

describe('the result of a hold', () => {
  it('is the round trip if the queue was empty', () => {
    const window = limited()
    window.judge(finding({ ageMs: 80 }), response({ nowMs: 2_000 }))
    expect([window.roundTrip.ms, window.rate.isUplinkFull]).toEqual([80, true])
    expect(window.bytes).toBe((15_000 * 180) / 150)
  })

  it('is a shorter round trip if the queue was not empty', () => {
    const window = limited()
    window.judge(finding({ isDrained: false, ageMs: 80 }), response({ nowMs: 2_000 }))
    expect(window.roundTrip.ms).toBe(50 - 50 / 4)
  })

  it('is followed by no growth before a whole window was confirmed', () => {
    const window = measured()
    window.judge(finding(), response({ written: 10_000, nowMs: 2_000 }))
    window.adapt(response({ at: 10_000 + START_BYTES, confirmed: 9_000, nowMs: 2_100 }), 400)
    expect(window.bytes).toBe(START_BYTES)
    window.adapt(response({ at: 10_001 + START_BYTES, confirmed: 9_000, nowMs: 2_200 }), 400)
    expect(window.bytes).toBe(2 * START_BYTES)
  })

  it('restores the size before responses were late if the uplink is free', () => {
    const window = limited()
    window.remember()
    window.bytes = 1_000
    window.rate.bytesPerMs = 7
    window.judge(finding({ isUplinkFree: true }), response({ nowMs: 2_000, isLimited: false }))
    expect([window.bytes, window.rate.bytesPerMs, window.rate.isUplinkFull]).toEqual([15_000, 100, false])
    expect(window.roundTrip.isLengthened).toBe(false)
    expect(window.rate.limitMs(3_000)).toBe(0)
  })

  it('restores it for the longer round trip, which other traffic has caused', () => {
    const window = limited()
    window.remember()
    window.bytes = 1_000
    window.judge(finding({ isUplinkFree: true, ageMs: 100 }), response({ nowMs: 2_000, isLimited: false }))
    expect([window.bytes, window.roundTrip.isLengthened]).toEqual([100 * 200, true])
    const nearly = limited()
    nearly.judge(finding({ isUplinkFree: true, ageMs: 99 }), response({ nowMs: 2_000, isLimited: false }))
    expect(nearly.roundTrip.isLengthened).toBe(false)
  })

  it('leaves a part to others that fill the same uplink, but not more than three tenths', () => {
    const window = limited()
    window.judge(finding({ isUplinkFree: true, ageMs: 100, delivered: 90 }), response({ nowMs: 2_000 }))
    expect([window.rate.bytesPerMs, window.bytes, window.rate.isUplinkFull]).toEqual([90, 90 * 200, true])
    const crowded = limited()
    crowded.judge(finding({ isUplinkFree: true, ageMs: 100, delivered: 10 }), response({ nowMs: 2_000 }))
    expect(crowded.rate.bytesPerMs).toBe(70)
    const alone = limited()
    alone.judge(finding({ isUplinkFree: true, ageMs: 100, delivered: 500 }), response({ nowMs: 2_000 }))
    expect(alone.rate.bytesPerMs).toBe(100)
  })

  it('leaves nothing to inbound traffic that explains the longer round trip', () => {
    const window = limited()
    window.roundTrip.isExplained = true
    window.judge(finding({ isUplinkFree: true, ageMs: 100, delivered: 10 }), response({ nowMs: 2_000 }))
    expect([window.rate.bytesPerMs, window.rate.isUplinkFull]).toEqual([100, false])
  })

  it('doubles a window of unknown rate if inbound traffic explains the longer round trip', () => {
    const window = measured()
    window.roundTrip.isExplained = true
    window.judge(finding({ isUplinkFree: true, ageMs: 100 }), response({ nowMs: 2_000 }))
    expect(window.bytes).toBe((START_BYTES / 150) * 2 * 200)
  })
})

describe('lost responses', () => {
  it('restore the size and the rate before they were missing', () => {
    const window = limited()
    window.remember()
    window.rate.bytesPerMs = 7
    window.bytes = 1_000
    window.restoreAfterLoss(60, 2_000)
    expect([window.bytes, window.rate.bytesPerMs, window.roundTrip.ms]).toEqual([15_000, 100, 60])
    window.bytes = 1_000
    window.restoreAfterLoss(60, 2_000)
    expect(window.bytes).toBe(1_000)
  })

  it('restore the first size that was remembered, unless it is forgotten', () => {
    const window = limited()
    window.remember()
    window.bytes = 1_000
    window.remember()
    window.restoreAfterLoss(50, 2_000)
    expect(window.bytes).toBe(15_000)
    window.remember()
    window.bytes = 1_000
    window.forget()
    window.restoreAfterLoss(50, 2_000)
    expect(window.bytes).toBe(1_000)
  })

  it('leave a larger window as it is', () => {
    const window = limited()
    window.remember()
    window.bytes = 20_000
    window.restoreAfterLoss(50, 2_000)
    expect(window.bytes).toBe(20_000)
  })
})

describe('a burst', () => {
  it('opens the window at once for the rate at which it is delivered, and is settled once it has left', () => {
    const window = measured()
    window.adapt(response({ at: 1_000, nowMs: 50, ageMs: 50, isLimited: false }), 400)
    const next = { ageMs: 90, isLimited: true } as const
    window.adapt(response({ at: 9_000, confirmed: 1_000, nowMs: 129, written: 20_000, ...next }), 400)
    // 8,000 bytes in 80 ms.
    expect(window.bytes).toBe(100 * 150)
    window.adapt(
      response({ at: 35_000, confirmed: 30_000, nowMs: 400, written: 40_000, isLimited: false }),
      400,
    )
    expect(window.isSettled).toBe(false)
    window.adapt(
      response({ at: 35_001, confirmed: 30_000, nowMs: 500, written: 40_000, isLimited: false }),
      400,
    )
    expect(window.isSettled).toBe(true)
  })

  it('does not show the rate for half a minute after others were found on the uplink', () => {
    const window = limited()
    window.judge(finding({ isUplinkFree: true, ageMs: 100, delivered: 100 }), response({ nowMs: 2_000 }))
    const { bytes } = window
    window.adapt(response({ at: 1_000, nowMs: 3_000, ageMs: 100, isLimited: false }), 400)
    const late = { confirmed: 1_000, written: 100, ageMs: 140 } as const
    window.adapt(response({ at: 101_000, nowMs: 3_079, ...late }), 400)
    expect(window.bytes).toBeLessThanOrEqual(2 * bytes)
  })
})

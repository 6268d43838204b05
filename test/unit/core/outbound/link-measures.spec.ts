import { describe, expect, it } from 'vitest'
import { DeliveredRate, QUEUE_MS, RoundTrip } from '../../../../src/core/outbound/link-measures.js'
import type { Marker } from '../../../../src/core/outbound/pings.js'

/** A marker behind 1,000 bytes, with nothing in transit before it. */
const marker = (fields: Partial<Marker> = {}): Marker => ({
  at: 1_000,
  sentMs: 0,
  confirmed: 1_000,
  sinceMs: 0,
  received: 0,
  ...fields,
})
/** A marker behind bytes that are in transit. */
const behind = (bytes: number, fields: Partial<Marker> = {}) => marker({ at: 1_000 + bytes, ...fields })

/** A round trip of 50 ms, measured at time 0. */
function known(): RoundTrip {
  const roundTrip = new RoundTrip()
  roundTrip.responded(marker(), 50, false, 0)
  return roundTrip
}

describe('the round trip', () => {
  it('is unknown at first, when only the own queue may be in transit', () => {
    const roundTrip = new RoundTrip()
    expect([roundTrip.ms, roundTrip.wireMs, roundTrip.isOld(0)]).toEqual([undefined, QUEUE_MS, false])
    expect([roundTrip.isLengthened, roundTrip.isShared, roundTrip.isFollowing(0)]).toEqual([
      false,
      false,
      false,
    ])
  })

  it('is the smallest age of a marker behind own bytes', () => {
    const roundTrip = known()
    roundTrip.responded(behind(500), 80, true, 100)
    expect(roundTrip.ms).toBe(50)
    roundTrip.responded(behind(500), 40, true, 200)
    expect([roundTrip.ms, roundTrip.wireMs]).toEqual([40, 40 + QUEUE_MS])
  })

  it('is the age of a marker without own bytes before it, even if it is longer', () => {
    const roundTrip = known()
    roundTrip.responded(marker(), 80, true, 100)
    expect(roundTrip.ms).toBe(80)
  })

  it('allows bytes in transit for 200 ms more than the shortest one, unless inbound traffic explains it', () => {
    const roundTrip = known()
    roundTrip.responded(marker(), 900, true, 100)
    expect(roundTrip.wireMs).toBe(50 + 200 + QUEUE_MS)
    roundTrip.isExplained = true
    roundTrip.responded(marker(), 900, true, 200)
    expect(roundTrip.wireMs).toBe(900 + QUEUE_MS)
  })

  it('is old 10 s after it was measured without own bytes', () => {
    const roundTrip = known()
    roundTrip.responded(behind(500), 50, true, 9_000)
    expect([roundTrip.isOld(10_000), roundTrip.isOld(10_001)]).toEqual([false, true])
    roundTrip.responded(marker(), 50, true, 9_500)
    expect(roundTrip.isOld(19_500)).toBe(false)
  })

  it('is at most the age of an acknowledged publish', () => {
    const roundTrip = known()
    roundTrip.acknowledged(30)
    expect([roundTrip.ms, roundTrip.crowdedMs(100)]).toEqual([30, 100 - 30 - QUEUE_MS / 2])
  })
})

describe('a round trip that other traffic makes longer', () => {
  it('follows the ages for 3 s, unless the link is the limit', () => {
    const roundTrip = known()
    roundTrip.lengthened(50, 1_000)
    expect([roundTrip.isFollowing(3_999), roundTrip.isFollowing(4_000)]).toEqual([true, false])
    roundTrip.responded(behind(500), 400, true, 1_100)
    expect(roundTrip.ms).toBe(50)
    roundTrip.responded(behind(500), 400, false, 1_200)
    expect(roundTrip.ms).toBe(400)
    roundTrip.responded(behind(500), 600, false, 5_000)
    expect(roundTrip.ms).toBe(400)
  })

  it('is shared with others unless inbound traffic explains it', () => {
    const roundTrip = known()
    roundTrip.isExplained = false
    expect(roundTrip.isShared).toBe(false)
    roundTrip.lengthened(50, 0)
    expect([roundTrip.isLengthened, roundTrip.isShared]).toEqual([true, true])
    roundTrip.isExplained = true
    expect([roundTrip.isLengthened, roundTrip.isShared]).toEqual([true, false])
  })

  it('ends with a response as early as before', () => {
    const roundTrip = known()
    roundTrip.lengthened(50, 0)
    roundTrip.lengthened(500, 0)
    roundTrip.forgetLengthened(50 + QUEUE_MS / 2)
    expect(roundTrip.isLengthened).toBe(true)
    roundTrip.forgetLengthened(50 + QUEUE_MS / 2 - 1)
    expect(roundTrip.isLengthened).toBe(false)
  })

  it('is assumed to stay so while a hold has no result', () => {
    const roundTrip = known()
    roundTrip.held()
    expect(roundTrip.isFollowing(0)).toBe(false)
    roundTrip.lengthened(50, 0)
    roundTrip.held()
    expect(roundTrip.isFollowing(1e9)).toBe(true)
    roundTrip.measured(70, 1e9)
    expect([roundTrip.isFollowing(1e9), roundTrip.ms]).toEqual([false, 70])
  })
})

describe('inbound traffic', () => {
  it.each([
    [0, 1_023, false],
    [0, 1_024, true],
    [80_000, 9_999, false],
    [80_000, 10_000, true],
  ])(
    'explains the age of a marker behind %i bytes if as much as an eighth arrives: %i, %j',
    (bytes, arrived, does) => {
      expect(known().explains(behind(bytes, { received: 500 }), 500 + arrived)).toBe(does)
    },
  )

  it('leaves nothing of the age to others', () => {
    const roundTrip = known()
    expect([roundTrip.crowdedMs(90), roundTrip.crowdedMs(400)]).toEqual([0, 400 - 50 - QUEUE_MS / 2])
    roundTrip.isExplained = true
    expect(roundTrip.crowdedMs(400)).toBe(0)
  })
})

describe('the time that bytes spend on the path and not in front of the link', () => {
  it('is the round trip', () => {
    expect([new RoundTrip().carryMs(1), known().carryMs(1)]).toEqual([0, 50])
  })

  it('is less by the own bytes before the first marker', () => {
    const roundTrip = new RoundTrip()
    roundTrip.responded(behind(300), 50, true, 0)
    expect([roundTrip.carryMs(10), roundTrip.carryMs(1)]).toEqual([20, 0])
    roundTrip.responded(behind(400), 60, true, 10)
    expect(roundTrip.carryMs(10)).toBe(20)
    roundTrip.responded(behind(400), 40, true, 20)
    expect(roundTrip.carryMs(10)).toBe(40)
  })

  it('is the shortest one while nothing explains a longer one', () => {
    const roundTrip = known()
    roundTrip.responded(marker(), 300, true, 0)
    expect(roundTrip.carryMs(10)).toBe(50)
    roundTrip.isExplained = true
    expect(roundTrip.carryMs(10)).toBe(300)
  })
})

describe('a hold that did not measure the round trip', () => {
  it('makes it shorter by the bytes before the first marker, or by a quarter of the own queue', () => {
    const first = new RoundTrip()
    first.responded(behind(300), 50, true, 0)
    first.notMeasured(10, 1_000)
    expect(first.ms).toBe(20)
    const other = new RoundTrip()
    other.responded(marker(), 400, true, 0)
    other.notMeasured(10, 1_000)
    expect(other.ms).toBe(375)
    const short = known()
    short.notMeasured(10, 1_000)
    expect(short.ms).toBe(50 - 50 / 4)
  })

  it('leaves it while the rate is unknown', () => {
    const roundTrip = known()
    roundTrip.notMeasured(undefined, 1_000)
    expect(roundTrip.ms).toBe(50)
  })

  it('brings a longer one nearer to what it was before, in steps of half the own queue', () => {
    const roundTrip = known()
    roundTrip.lengthened(50, 0)
    roundTrip.responded(marker(), 90, true, 10)
    roundTrip.notMeasured(10, 1_000)
    expect(roundTrip.ms).toBe(70)
    roundTrip.responded(marker(), 450, true, 1_010)
    roundTrip.notMeasured(10, 2_000)
    expect([roundTrip.ms, roundTrip.isFollowing(2_000)]).toEqual([400, false])
  })

  it('makes it old after 2 s', () => {
    const roundTrip = known()
    roundTrip.notMeasured(10, 5_000)
    expect([roundTrip.isOld(7_000), roundTrip.isOld(7_001)]).toEqual([false, true])
  })
})

describe('a hold that measured the round trip', () => {
  it('replaces it, with nothing before its marker', () => {
    const roundTrip = new RoundTrip()
    roundTrip.responded(behind(300), 50, true, 0)
    roundTrip.measured(80, 20_000)
    expect([roundTrip.ms, roundTrip.isOld(30_000), roundTrip.isOld(30_001)]).toEqual([80, false, true])
    roundTrip.isExplained = true
    expect(roundTrip.carryMs(10)).toBe(80)
  })
})

describe('the rate of the link', () => {
  it('is the first sample, and later the mean of a steady one and the known one', () => {
    const rate = new DeliveredRate()
    expect([rate.fit(100, 0), rate.fit(150, 0), rate.fit(65, 0)]).toEqual([100, 125, 95])
  })

  it('is a much lower sample at once, and at most doubles with a much higher one', () => {
    const rate = new DeliveredRate()
    rate.fit(100, 0)
    expect([rate.fit(50, 0), rate.fit(100, 0), rate.fit(1_000, 0)]).toEqual([50, 100, 200])
  })

  it('is raised by what is delivered while nothing waits, once it is known', () => {
    const rate = new DeliveredRate()
    rate.raise(100)
    expect(rate.bytesPerMs).toBeUndefined()
    rate.fit(100, 0)
    rate.raise(50)
    expect(rate.bytesPerMs).toBe(100)
    rate.raise(300)
    expect(rate.bytesPerMs).toBe(300)
  })

  it('is sure once a hold and every marker for 300 ms have shown that the uplink is the limit', () => {
    const rate = new DeliveredRate()
    expect([rate.limitMs(500), rate.isSure(500)]).toEqual([0, false])
    rate.fit(100, 1_000)
    rate.fit(100, 1_200)
    expect([rate.limitMs(1_300), rate.isSure(1_300)]).toEqual([300, false])
    rate.isUplinkFull = true
    expect([rate.isSure(1_299), rate.isSure(1_300)]).toEqual([false, true])
    rate.notLimited()
    expect([rate.limitMs(1_300), rate.isSure(1_300)]).toEqual([0, false])
  })
})

describe('a sample of the rate', () => {
  const sent = (at: number, sentMs: number) => marker({ at, sentMs })

  it('is taken between two responses while own bytes wait', () => {
    const rate = new DeliveredRate()
    expect(rate.sample(sent(1_000, 0), 100, true)).toBeUndefined()
    expect(rate.sample(sent(2_000, 10), 112, true)).toBeUndefined()
    expect(rate.sample(sent(3_000, 20), 112.5, true)).toBe(160)
    expect(rate.sample(sent(5_000, 40), 200, true)).toBe(40)
  })

  it('starts again after 100 ms', () => {
    const rate = new DeliveredRate()
    rate.sample(sent(1_000, 0), 0, true)
    expect(rate.sample(sent(2_000, 10), 100, true)).toBe(10)
    expect(rate.sample(sent(5_040, 20), 101, true)).toBe(40)
    expect(rate.sample(sent(6_040, 30), 121, true)).toBe(50)
  })

  it('starts again when nothing has waited', () => {
    const rate = new DeliveredRate()
    rate.sample(sent(1_000, 0), 0, true)
    expect(rate.sample(sent(2_000, 10), 20, false)).toBeUndefined()
    expect(rate.sample(sent(3_000, 20), 40, true)).toBeUndefined()
    expect(rate.sample(sent(4_000, 30), 60, true)).toBe(50)
  })

  it('is not taken across a pause in writing', () => {
    const rate = new DeliveredRate()
    rate.sample(sent(1_000, 0), 0, true)
    rate.pausedMs = 30
    expect(rate.sample(sent(2_000, 29), 40, true)).toBe(25)
    expect(rate.sample(sent(3_000, 30), 60, true)).toBeUndefined()
    expect(rate.sample(sent(4_000, 40), 80, true)).toBe(50)
  })

  it('is not taken between probes with no bytes between them', () => {
    const rate = new DeliveredRate()
    rate.sample(sent(1_000, 0), 0, true)
    expect(rate.sample(sent(1_000, 50), 50, true)).toBeUndefined()
  })
})

describe('the rate of a burst', () => {
  const sent = (at: number, sentMs: number) => marker({ at, sentMs })

  it('is known if the responses are twice as far apart as the markers', () => {
    const rate = new DeliveredRate()
    expect(rate.trainRate(sent(1_000, 0), 50)).toBeUndefined()
    // One millisecond more, because responses may be read late.
    expect(rate.trainRate(sent(5_000, 20), 89)).toBe(100)
    expect(rate.trainRate(sent(5_000, 20.1), 89)).toBeUndefined()
  })

  it('starts again with a marker that is too far from the first', () => {
    const rate = new DeliveredRate()
    rate.trainRate(sent(1_000, 0), 50)
    rate.trainRate(sent(2_000, 100), 150)
    expect(rate.trainRate(sent(4_000, 105), 169)).toBe(100)
  })

  it('counts responses that are read together as 12.5 ms apart', () => {
    const rate = new DeliveredRate()
    rate.trainRate(sent(1_000, 0), 50)
    expect(rate.trainRate(sent(3_500, 6), 50)).toBe(200)
    expect(rate.trainRate(sent(3_500, 6.3), 50)).toBeUndefined()
  })
})

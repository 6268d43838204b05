import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../../support/seeded-random.js'
import { type InboundTraffic, type Offered, SimulatedLink } from '../../../support/simulated-link.js'

/** 20 messages a second. */
const MODEST: Offered = { bytesPerSecond: 2_400, messageBytes: 120 }
const FREE = { bytesPerSecond: 5_000_000, roundTripMs: 20 }

const throttled = (bytesPerSecond: number): InboundTraffic => ({
  bytesPerSecond,
  carriedPerSecond: 30_000,
  queueBytes: 60_000,
  isOurReading: false,
})

describe('a free uplink', () => {
  it.each([33_000, 60_000, 200_000])(
    'drops nothing while the load of the downlink of 30 KB/s is %i',
    rate => {
      const link = new SimulatedLink(FREE)
      link.offer(5_000, MODEST)
      link.inbound = throttled(rate)
      link.offer(30_000, MODEST)
      expect(link.dropped).toBe(0)
      expect(link.age(1)).toBeLessThan(1_000)
      link.inbound = undefined
      link.offer(10_000, MODEST)
      expect(link.dropped).toBe(0)
    },
  )

  it.each([33_000, 60_000, 120_000])(
    'drops nothing while the queue of the downlink grows without a limit, with a load of %i',
    rate => {
      const link = new SimulatedLink(FREE)
      link.offer(2_000, MODEST)
      link.inbound = { ...throttled(rate), queueBytes: 10_000_000 }
      link.offer(20_000, MODEST)
      expect(link.dropped).toBe(0)
      expect(link.age(1)).toBeLessThan(200)
    },
  )

  it.each([
    ['flows', 90_000],
    ['stalls as well', 20_000],
  ])('that stalls behind a full downlink accepts little more while the downlink %s', (how, most) => {
    const link = new SimulatedLink(FREE)
    link.offer(2_000, MODEST)
    link.inbound = { ...throttled(60_000), queueBytes: 10_000_000 }
    link.offer(5_000, MODEST)
    link.conduct = { bytesPerSecond: 0, roundTripMs: 20 }
    if (how !== 'flows') link.inbound = { ...throttled(60_000), queueBytes: 10_000_000, carriedPerSecond: 0 }
    link.offer(60_000, MODEST)
    expect(link.onWire).toBeLessThan(most)
  })

  it('drops nothing of a larger load once the downlink has been full for a while', () => {
    const offered = { bytesPerSecond: 100_000, messageBytes: 1_000 }
    const link = new SimulatedLink(FREE)
    link.offer(5_000, offered)
    link.inbound = throttled(60_000)
    link.offer(5_000, offered)
    expect(link.dropped).toBeLessThan(150)
    link.forget()
    link.offer(60_000, offered)
    expect(link.dropped).toBe(0)
  })

  it.each([2_000_000, 20_000_000])('drops nothing while this process reads too slowly, with %i in', rate => {
    const link = new SimulatedLink(FREE)
    link.offer(5_000, MODEST)
    link.inbound = {
      bytesPerSecond: rate,
      carriedPerSecond: 1_500_000,
      queueBytes: 6_000_000,
      isOurReading: true,
    }
    link.offer(15_000, MODEST)
    expect(link.dropped).toBe(0)
    link.inbound = undefined
    link.offer(5_000, MODEST)
    expect(link.dropped).toBe(0)
  })

  it('carries data while both directions are full', () => {
    const offered = { bytesPerSecond: 500_000, messageBytes: 1_000 }
    const link = new SimulatedLink({ bytesPerSecond: 50_000, roundTripMs: 20 })
    link.offer(5_000, offered)
    link.inbound = throttled(60_000)
    link.offer(5_000, offered)
    link.forget()
    // The queue of the downlink makes round trips of 2 s.
    expect(link.utilisationOf(30_000, offered)).toBeGreaterThan(0.7)
    expect(link.age(0.99)).toBeLessThan(3_400)
  })
})

describe('a lost response', () => {
  it('does not stop publishing, and neither does the tenth', () => {
    const link = new SimulatedLink(FREE)
    link.offer(5_000, MODEST)
    for (let round = 0; round < 10; round += 1) {
      link.losing = 1
      link.offer(10_000, MODEST)
    }
    expect(link.losing).toBe(0)
    expect(link.dropped).toBe(0)
    link.idle(5_000)
    expect(link.window.unconfirmed).toBeLessThan(1_100)
  })

  it.each([1, 2, 3, 5])(
    'does not stop publishing for good when one of %i is lost, ten in all',
    losingEvery => {
      const link = new SimulatedLink(FREE)
      link.offer(2_000, MODEST)
      link.losing = 10
      link.losingEvery = losingEvery
      link.offer(62_000, MODEST)
      expect(link.losing).toBe(0)
      // Ten lost in a row are a link that stands still.
      if (losingEvery === 1) link.forget()
      link.offer(10_000, MODEST)
      expect(link.dropped).toBe(0)
    },
  )

  it.each([1, 10])('does not stop a full link: %i lost', losing => {
    const offered = { bytesPerSecond: 500_000, messageBytes: 1_000 }
    const link = new SimulatedLink({ bytesPerSecond: 50_000, roundTripMs: 20 })
    link.offer(5_000, offered)
    link.losing = losing
    link.offer(5_000, offered)
    link.forget()
    expect(link.utilisationOf(20_000, offered)).toBeGreaterThan(0.9)
    expect(link.age(0.99)).toBeLessThan(1_400)
  })
})

describe('long round trips', () => {
  const LONG = { bytesPerSecond: 1_000_000, roundTripMs: 600 }

  it('keep the age of messages within the delay and one round trip', () => {
    const offered = { bytesPerSecond: 3_000_000, messageBytes: 1_000 }
    const link = new SimulatedLink(LONG)
    link.offer(15_000, offered)
    link.forget()
    expect(link.utilisationOf(20_000, offered)).toBeGreaterThan(0.95)
    expect(link.age(0.99)).toBeLessThan(1_200)
  })

  it('open the window within 4 s', () => {
    const link = new SimulatedLink(LONG)
    link.run(4_000)
    expect(link.utilisation(1_000)).toBeGreaterThan(0.95)
  })

  it('drop nothing within the capacity of the link, after the first two', () => {
    const offered = { bytesPerSecond: 900_000, messageBytes: 1_000 }
    const link = new SimulatedLink(LONG)
    link.offer(1_500, offered)
    expect(link.dropped).toBeLessThan(200)
    link.forget()
    link.offer(60_000, offered)
    expect(link.dropped).toBe(0)
  })
})

describe('sparse traffic', () => {
  it('sends no marker', () => {
    const link = new SimulatedLink(FREE)
    link.offer(8_000, { bytesPerSecond: 120, messageBytes: 60 })
    expect(link.pings).toBe(0)
  })

  it('is followed by a burst that starts small', () => {
    const link = new SimulatedLink({ bytesPerSecond: 10_000, roundTripMs: 20 })
    link.offer(8_000, { bytesPerSecond: 120, messageBytes: 60 })
    link.mostOnWire = 0
    link.offer(10_000, { bytesPerSecond: 100_000, messageBytes: 100 })
    expect(link.mostOnWire).toBeLessThan(4_200)
    expect(link.age(0.99)).toBeLessThan(1_200)
  })
})

describe.each([10_000, 50_000, 1_000_000])('an uplink of %i bytes per second that is the limit', rate => {
  it('is fully used, and messages are no older than their delay', () => {
    const factor = rate === 1_000_000 ? 3 : 10
    const offered = { bytesPerSecond: rate * factor, messageBytes: 1_000 }
    const link = new SimulatedLink({ bytesPerSecond: rate, roundTripMs: 5 })
    link.offer(5_000, offered)
    link.forget()
    expect(link.utilisationOf(30_000, offered)).toBeGreaterThan(0.98)
    expect(link.age(0.99)).toBeLessThan(1_100)
  })
})

describe('connections that share one uplink', () => {
  it.each([2, 5])('%i keep the ages within the budget, and each gets its share', count => {
    const rate = 50_000
    const offered = { bytesPerSecond: (2 * rate) / count, messageBytes: 500 }
    const links = SimulatedLink.sharing(count, { bytesPerSecond: rate, roundTripMs: 20 })
    SimulatedLink.offerOnEach(links, 10_000, offered)
    const before = links.map(({ delivered }) => delivered)
    for (const link of links) link.forget()
    SimulatedLink.offerOnEach(links, 60_000, offered)
    const parts = links.map(({ delivered }, index) => (delivered - (before[index] ?? 0)) / 60 / rate)
    expect(parts.reduce((sum, part) => sum + part)).toBeGreaterThan(0.95)
    for (const part of parts) expect(part).toBeGreaterThan(0.2 / count)
    for (const link of links) expect(link.age(0.99)).toBeLessThan(1_220)
  })
})

describe.each([2_000, 2_500])('messages of %i bytes on an uplink of 5 KB/s', messageBytes => {
  it('are not late because the link needs longer for each than a response usually takes', () => {
    const offered = { bytesPerSecond: 15_000, messageBytes }
    const link = new SimulatedLink({ bytesPerSecond: 5_000, roundTripMs: 20 })
    link.offer(10_000, offered)
    link.forget()
    const before = link.pings
    link.offer(30_000, offered)
    // A late response is asked for again, and a hold sends two probes.
    expect(link.pings - before).toBeLessThan(1.2 * link.ages.length)
    expect(link.age(1)).toBeLessThan(1_000 + messageBytes / 5 + 20)
  })
})

describe.each([1, 3, 6, 7])('a process with short pauses, in order %i', seed => {
  it('writes no more in doubt once a hold has found that the uplink is full', () => {
    const random = new SeededRandom(seed)
    const offered = { bytesPerSecond: 15_000, messageBytes: 1_500 }
    const link = new SimulatedLink({ bytesPerSecond: 5_000_000, roundTripMs: 1 })
    const offer = (forMs: number): void => {
      for (const endMs = link.nowMs + forMs; link.nowMs < endMs; ) {
        link.offer(random.below(200), offered)
        link.isPaused = true
        link.idle(random.below(40))
        link.isPaused = false
      }
    }
    offer(3_000)
    link.conduct = { bytesPerSecond: 5_000, roundTripMs: 1 }
    link.forget()
    offer(6_000)
    expect(link.age(1)).toBeLessThan(1_300)
  })
})

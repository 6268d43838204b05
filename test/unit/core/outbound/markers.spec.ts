import { describe, expect, it } from 'vitest'
import { LinkHold, type Marker, MarkerQueue } from '../../../../src/core/outbound/pings.js'

const ROUND_TRIP_MS = 100

const marker = (sentMs: number, fields: Partial<Marker> = {}): Marker => ({
  at: 0,
  sentMs,
  confirmed: 0,
  sinceMs: 0,
  received: 0,
  ...fields,
})

/** Markers that were sent at these times. */
function queueOf(...sentMs: readonly number[]) {
  const queue = new MarkerQueue()
  const markers = sentMs.map(ms => marker(ms))
  for (const one of markers) queue.push(one, ROUND_TRIP_MS)
  return { queue, markers }
}

describe('a PINGRESP', () => {
  it('belongs to the oldest PINGREQ', () => {
    const { queue, markers } = queueOf(0, 10)
    expect(queue.oldest).toBe(markers[0])
    expect(queue.take(100, ROUND_TRIP_MS)).toEqual({ marker: markers[0], isLoss: false, isDoubtful: false })
    expect(queue.ageMs).toBe(100)
    expect(queue.take(120, ROUND_TRIP_MS)).toEqual({ marker: markers[1], isLoss: false, isDoubtful: false })
    expect(queue.ageMs).toBe(110)
  })

  it('belongs to none if no PINGREQ is in transit', () => {
    expect(new MarkerQueue().take(0, ROUND_TRIP_MS)).toBeUndefined()
  })
})

describe('another PINGREQ', () => {
  it('is sent after a round trip and 50 ms without a response, and then with growing pauses', () => {
    const { queue } = queueOf(0)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(150)
    queue.push(marker(150), ROUND_TRIP_MS)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(150 + 300)
    queue.push(marker(450), ROUND_TRIP_MS)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(450 + 600)
    for (let n = 0; n < 5; n += 1) queue.push(marker(queue.askMs(ROUND_TRIP_MS)), ROUND_TRIP_MS)
    const last = queue.sent.at(-1)
    expect(queue.askMs(ROUND_TRIP_MS) - (last?.sentMs ?? 0)).toBe(2_000)
  })

  it('is sent later the older the last response was, up to 2 s', () => {
    const { queue } = queueOf(0)
    queue.take(300, ROUND_TRIP_MS)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(300 + ROUND_TRIP_MS + 2 * 300 + 50)
    queue.push(marker(1_000), ROUND_TRIP_MS)
    queue.take(9_000, ROUND_TRIP_MS)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(9_000 + ROUND_TRIP_MS + 2_000)
  })

  it('is sent without a longer pause after a response', () => {
    const { queue } = queueOf(0, 150, 450)
    queue.take(460, ROUND_TRIP_MS)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(460 + ROUND_TRIP_MS + 50)
  })

  it('is sent without a longer pause if the previous one followed soon after another', () => {
    const { queue } = queueOf(0, 150, 160)
    expect(queue.askMs(ROUND_TRIP_MS)).toBe(160 + 150)
  })
})

describe('lost responses', () => {
  /** One PINGRESP is lost. A PINGREQ after the silence gets a response after 100 ms, and so does the next one. */
  function shifted() {
    const { queue, markers } = queueOf(0, 500)
    const first = queue.take(600, ROUND_TRIP_MS)
    const second = marker(1_200)
    queue.push(second, ROUND_TRIP_MS)
    return { queue, markers, first, second }
  }

  it('are suspected if a PINGREQ after a silence gets a response within a round trip', () => {
    const { queue, markers, first } = shifted()
    expect(first).toEqual({ marker: markers[0], isLoss: false, isDoubtful: true })
    // Its age is not used.
    expect(queue.ageMs).toBe(0)
  })

  it.each([
    [ROUND_TRIP_MS * 1.25 + 50, true],
    [ROUND_TRIP_MS * 1.25 + 51, false],
  ])('are suspected if the response comes after %d ms: %j', (ageMs, isDoubtful) => {
    const { queue } = queueOf(0, 500)
    expect(queue.take(500 + ageMs, ROUND_TRIP_MS)?.isDoubtful).toBe(isDoubtful)
  })

  it('are not suspected without a silence, or without an older PINGREQ', () => {
    expect(queueOf(0, 149).queue.take(200, ROUND_TRIP_MS)?.isDoubtful).toBe(false)
    expect(queueOf(500).queue.take(600, ROUND_TRIP_MS)?.isDoubtful).toBe(false)
  })

  it('are certain if the next PINGREQ gets its response as quickly', () => {
    const { queue, second } = shifted()
    expect(queue.take(1_300, ROUND_TRIP_MS)).toEqual({ marker: second, isLoss: true, isDoubtful: false })
    expect([queue.sent, queue.ageMs]).toEqual([[], 100])
  })

  it('are not certain if the next PINGREQ gets its response later by more than a quarter and 50 ms', () => {
    const { queue, markers } = queueOf(0, 500)
    queue.take(500, ROUND_TRIP_MS)
    queue.push(marker(1_200), ROUND_TRIP_MS)
    expect(queue.take(1_200 + 67, ROUND_TRIP_MS)).toEqual({
      marker: markers[1],
      isLoss: false,
      isDoubtful: true,
    })
  })

  it('are certain at a difference of exactly a quarter and 50 ms', () => {
    const { queue } = queueOf(0, 500)
    queue.take(500, ROUND_TRIP_MS)
    queue.push(marker(1_200), ROUND_TRIP_MS)
    expect(queue.take(1_200 + 66, ROUND_TRIP_MS)?.isLoss).toBe(true)
  })

  it('are not certain if another response was not prompt in between', () => {
    const { queue } = shifted()
    expect(queue.take(1_500, ROUND_TRIP_MS)).toMatchObject({ isLoss: false, isDoubtful: false })
    queue.push(marker(4_000), ROUND_TRIP_MS)
    expect(queue.take(4_100, ROUND_TRIP_MS)).toMatchObject({ isLoss: false, isDoubtful: true })
  })

  it('that come after all are ignored, because they are too early for the next PINGREQ', () => {
    const { queue } = shifted()
    queue.take(1_300, ROUND_TRIP_MS)
    const next = marker(1_400)
    queue.push(next, ROUND_TRIP_MS)
    expect(queue.take(1_400 + 0.8 * ROUND_TRIP_MS - 2, ROUND_TRIP_MS)).toBeUndefined()
    expect(queue.sent).toEqual([next])
    // As many are ignored as were given up.
    expect(queue.take(1_450, ROUND_TRIP_MS)?.marker).toBe(next)
  })

  it('do not make a response on time be ignored', () => {
    const { queue } = shifted()
    queue.take(1_300, ROUND_TRIP_MS)
    const next = marker(1_400)
    queue.push(next, ROUND_TRIP_MS)
    expect(queue.take(1_400 + 0.8 * ROUND_TRIP_MS - 1, ROUND_TRIP_MS)?.marker).toBe(next)
  })
})

describe('a hold of the link', () => {
  /** 2,000 bytes were in transit for 50 ms before it began at time 1,000. */
  function held() {
    const hold = new LinkHold(1_000)
    const first = marker(1_000, { at: 3_000, confirmed: 1_000 })
    const second = marker(1_100, { at: 3_000, confirmed: 1_000 })
    return { hold, first, second }
  }

  it('pauses for 100 ms between two probes', () => {
    const { hold, first, second } = held()
    expect([hold.endMs, hold.isPausing, hold.wantsProbe(1_000)]).toEqual([1_100, true, true])
    expect(hold.sent(first)).toBe(false)
    expect([hold.wantsProbe(1_099), hold.wantsProbe(1_100)]).toEqual([false, true])
    expect(hold.sent(marker(1_050))).toBe(false)
    expect(hold.isPausing).toBe(true)
    expect(hold.sent(second)).toBe(true)
    expect([hold.isPausing, hold.wantsProbe(1_200)]).toEqual([false, false])
    expect(hold.sent(marker(1_300))).toBe(false)
  })

  it('has its result with the response to the second probe', () => {
    const { hold, first, second } = held()
    hold.sent(first)
    expect(hold.responded(first, 1_050)).toBeUndefined()
    expect(hold.responded(second, 1_060)).toBeUndefined()
    hold.sent(second)
    expect(hold.responded(marker(1_050), 1_140)).toBeUndefined()
    expect(hold.responded(second, 1_150)).toEqual({
      isDrained: true,
      isUplinkFree: true,
      ageMs: 50,
      delivered: 2_000 / 50,
    })
  })

  it.each([
    [12.5, false, false],
    [13, true, false],
    [49, true, false],
    [50, true, true],
    [100, true, true],
  ])(
    'with responses %d ms apart found the queue empty: %j, and the uplink free: %j',
    (apartMs, isDrained, isUplinkFree) => {
      const { hold, first, second } = held()
      hold.sent(first)
      hold.sent(second)
      hold.responded(first, 1_200)
      expect(hold.responded(second, 1_200 + apartMs)).toMatchObject({ isDrained, isUplinkFree })
    },
  )

  it('takes at least a millisecond for what was delivered up to it', () => {
    const { hold, first, second } = held()
    hold.sent(first)
    hold.sent(second)
    hold.responded(first, 1_000.5)
    expect(hold.responded(second, 1_100)?.delivered).toBe(2_000)
  })
})

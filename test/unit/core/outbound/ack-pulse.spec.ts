import { describe, expect, it } from 'vitest'
import { AckPulse } from '../../../../src/core/outbound/pings.js'

/** A pulse after a request at time 0, of 100 bytes, whose PUBACK of 4 bytes has come. */
function afterPuback() {
  const pulse = new AckPulse()
  expect(pulse.begin(0, 0, 100)).toBe(true)
  return pulse
}

describe('a PINGREQ that carries a TCP acknowledgement', () => {
  it('is sent if data has arrived since this side last wrote', () => {
    expect(afterPuback().beat(2, 4, 100)).toBe('ping')
  })

  it('is not sent while this side writes anyway', () => {
    expect(afterPuback().beat(2, 4, 200)).toBe('wait')
  })

  it('is not sent within 1 ms of a write, because a broker that holds nothing back responds by then', () => {
    const pulse = afterPuback()
    expect(pulse.beat(0.9, 4, 100)).toBe('wait')
    expect(pulse.beat(2.9, 4, 100)).toBe('ping')
  })

  it('waits for the PINGRESP of the previous one, and acknowledges it', () => {
    const pulse = afterPuback()
    pulse.beat(2, 4, 100)
    expect(pulse.beat(4, 4, 100)).toBe('wait')
    pulse.responded()
    expect(pulse.beat(6, 6, 100)).toBe('ping')
  })

  it('is sent for data behind which the PINGRESP of the previous one is held back', () => {
    const pulse = afterPuback()
    expect(pulse.beat(2, 2, 100)).toBe('ping')
    // PUBACK arrives instead of the PINGRESP.
    expect(pulse.beat(4, 6, 100)).toBe('ping')
    expect(pulse.beat(6, 6, 100)).toBe('wait')
  })

  it('ends 40 ms after the last packet that was not a PINGRESP', () => {
    const pulse = afterPuback()
    let pings = 0
    let received = 4
    let nowMs = 2
    for (; ; nowMs += 2) {
      const step = pulse.beat(nowMs, received, 100)
      if (step === 'stop') break
      if (step !== 'ping') continue
      pings += 1
      received += 2
      pulse.responded()
    }
    expect(nowMs).toBe(44)
    expect(pings).toBeGreaterThan(9)
    expect(pulse.begin(50, received, 100)).toBe(true)
  })

  it('is not sent again for 10 s to a broker that takes longer than 5 ms three times in a row', () => {
    const pulse = afterPuback()
    pulse.beat(2, 4, 100)
    expect(pulse.beat(8, 4, 100)).toBe('wait')
    // Something else came, and a PINGRESP in time starts the count again.
    expect(pulse.beat(10, 8, 100)).toBe('ping')
    pulse.responded()
    for (let late = 0, nowMs = 12; late < 3; late += 1, nowMs += 8) {
      expect(pulse.beat(nowMs, 20 + late, 100)).toBe('ping')
      expect(pulse.beat(nowMs + 6, 20 + late, 100)).toBe(late < 2 ? 'wait' : 'stop')
    }
    expect(pulse.begin(40, 24, 100)).toBe(false)
    expect(pulse.begin(10_033, 24, 100)).toBe(false)
    expect(pulse.begin(10_034, 24, 100)).toBe(true)
  })
})

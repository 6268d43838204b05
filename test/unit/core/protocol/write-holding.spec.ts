import { describe, expect, it } from 'vitest'
import { type BatchSize, WriteHolding } from '../../../../src/core/protocol/write-batch.js'

const ONE: BatchSize = { packets: 1, exchanged: 0, bytes: 10 }

/** Turns of the event loop with one packet each, until one is held; how many were written at once before. */
function writtenBeforeHold(holding: WriteHolding, most = 20_000): number {
  for (let turn = 0; turn < most; turn += 1) if (holding.mayHold(ONE, 0)) return turn
  return most
}

describe('a stream of packets', () => {
  it('is held after sixteen consecutive turns', () => {
    expect(writtenBeforeHold(new WriteHolding())).toBe(16)
  })

  it('is written at forty packets, at twenty that the broker may wait for, or at 16 KiB', () => {
    const holding = new WriteHolding()
    writtenBeforeHold(holding)
    expect(holding.mayHold({ packets: 39, exchanged: 19, bytes: 16_383 }, 0)).toBe(true)
    expect(holding.mayHold({ packets: 40, exchanged: 0, bytes: 400 }, 0)).toBe(false)
    expect(holding.mayHold({ packets: 20, exchanged: 20, bytes: 400 }, 0)).toBe(false)
    expect(holding.mayHold({ packets: 1, exchanged: 0, bytes: 16_384 }, 0)).toBe(false)
  })

  it('ends with a turn that has nothing to send', () => {
    const holding = new WriteHolding()
    writtenBeforeHold(holding)
    holding.busyTurns = 0
    expect(writtenBeforeHold(holding)).toBe(16)
  })

  it('of single packets is never held', () => {
    const holding = new WriteHolding()
    for (let request = 0; request < 1_000; request += 1) {
      expect(holding.mayHold(ONE, 1)).toBe(false)
      holding.busyTurns = 0
    }
  })
})

describe('many publishes without a PUBACK', () => {
  it('let packets be held, because a PUBACK soon starts a new turn', () => {
    const holding = new WriteHolding()
    expect(holding.mayHold(ONE, 7)).toBe(false)
    expect(holding.mayHold(ONE, 8)).toBe(true)
    expect(holding.mayHold({ ...ONE, packets: 2 }, 8)).toBe(false)
    expect(holding.mayHold(ONE, 7)).toBe(false)
  })
})

describe('a hold that ended by its timer', () => {
  it('is not repeated for a period that doubles each time, up to 4,096 turns', () => {
    const holding = new WriteHolding()
    writtenBeforeHold(holding)
    const pauses = Array.from({ length: 11 }, () => {
      holding.wasInVain()
      return writtenBeforeHold(holding)
    })
    expect(pauses).toEqual([16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 4_096, 4_096])
  })

  it('has no effect after a successful one', () => {
    const holding = new WriteHolding()
    writtenBeforeHold(holding)
    holding.wasInVain()
    holding.wasInVain()
    writtenBeforeHold(holding)
    expect(holding.mayHold({ ...ONE, packets: 40 }, 0)).toBe(false)
    holding.wasInVain()
    expect(writtenBeforeHold(holding)).toBe(16)
  })
})

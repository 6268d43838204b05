import { describe, expect, it } from 'vitest'
import { Intake } from '../../../../src/client/inbound/backpressure.js'
import type { HandlerRun, InboundHandler } from '../../../../src/client/inbound/delivery.js'
import { deliveryTo, namedHandler } from '../../../support/handler-runs.js'

type Overflowing = 'drop-oldest' | 'drop-newest' | 'latest' | 'stall'

/** Adds a message for each topic. @returns its runs, and what each of them drove out */
function intakeWith(overflow: Overflowing, maxQueued: number, topics: string, handlers: InboundHandler[]) {
  const intake = new Intake({ maxQueued, overflow })
  const all: HandlerRun[] = []
  const out = [...topics].map(topic =>
    deliveryTo(handlers, topic).runs.map(run => {
      all.push(run)
      const overflowing = intake.add(run)
      // Whoever owns it takes out what must go.
      if (overflowing?.mayStall !== true)
        for (const dropped of overflowing?.drop ?? []) intake.remove(dropped)
      return overflowing
    }),
  )
  const indexes = out.flat().map(overflowing => overflowing?.drop.map(run => all.indexOf(run)) ?? [])
  return { intake, all, out: out.flat(), indexes }
}

const ONE = [namedHandler('one')]
const TWO = [namedHandler('first'), namedHandler('second')]

describe('Intake', () => {
  it('accepts messages up to the limit', () => {
    const { intake, indexes } = intakeWith('drop-oldest', 3, 'abc', ONE)
    expect(indexes).toEqual([[], [], []])
    expect(intake.size).toBe(3)
  })

  it('"drop-oldest" drops the oldest', () => {
    const { intake, indexes } = intakeWith('drop-oldest', 2, 'abcd', ONE)
    expect(indexes).toEqual([[], [], [0], [1]])
    expect(intake.size).toBe(2)
  })

  it('"drop-newest" drops the new one', () => {
    const { intake, indexes } = intakeWith('drop-newest', 2, 'abcd', ONE)
    expect(indexes).toEqual([[], [], [2], [3]])
    expect(intake.size).toBe(2)
  })

  it('"latest" drops the older one of the topic, or else the oldest of all', () => {
    const { intake, indexes } = intakeWith('latest', 2, 'aabbc', ONE)
    expect(indexes).toEqual([[], [0], [], [2], [1]])
    expect(intake.size).toBe(2)
  })

  it('"stall" reports that it is full, and drops the oldest only if it cannot stall', () => {
    const { intake, all, out } = intakeWith('stall', 2, 'abc', ONE)
    expect(out.map(overflow => overflow?.mayStall)).toEqual([undefined, undefined, true])
    expect(out[2]?.drop).toEqual([all[0]])
    expect(intake.size).toBe(3)
  })

  it('counts a message once, however many handlers it has, and drops it for all of them', () => {
    const { intake, indexes } = intakeWith('drop-oldest', 2, 'abc', TWO)
    expect(indexes).toEqual([[], [], [], [], [0, 1], []])
    expect(intake.size).toBe(2)
  })

  it('"latest" applies per handler, because handlers may have progressed differently', () => {
    const intake = new Intake({ maxQueued: 5, overflow: 'latest' })
    const older = deliveryTo(TWO, 'a')
    for (const run of older.runs) intake.add(run)
    const [begun, waiting] = older.runs
    if (begun !== undefined) intake.remove(begun)
    const dropped = deliveryTo(TWO, 'a').runs.map(run => intake.add(run)?.drop ?? [])
    expect(dropped).toEqual([[], [waiting]])
  })

  it('removes a started run, and removes a message with its last run', () => {
    const { intake, all } = intakeWith('drop-oldest', 2, 'ab', TWO)
    for (const [index, size] of [2, 1, 1, 0].entries()) {
      const run = all[index]
      if (run === undefined) throw new Error('there is no such run')
      intake.remove(run)
      intake.remove(run)
      expect(intake.size).toBe(size)
    }
  })

  it('has room again when half of it is empty', () => {
    const { intake, all } = intakeWith('stall', 4, 'abcd', ONE)
    const rooms = all.map(run => {
      const before = intake.hasRoom
      intake.remove(run)
      return before
    })
    expect(rooms).toEqual([false, false, true, true])
  })
})

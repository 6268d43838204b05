import { describe, expect, it } from 'vitest'
import { DropLines } from '../../../src/core/log-lines.js'
import type { DropReason } from '../../../src/core/outbound/publish-outcome.js'

const TROUBLES = ['offline', 'backlog', 'in-flight-full', 'queue-full', 'expired'] as const
const AS_ASKED = ['superseded', 'aborted', 'closed'] as const

/** Drops so many, one each millisecond, and returns what is logged. */
function drop(drops: DropLines, reason: DropReason, count: number, startMs: number): string[] {
  const lines: string[] = []
  for (let index = 0; index < count; index += 1) {
    const line = drops.dropped(reason, startMs + index)
    if (line !== undefined) lines.push(line)
  }
  return lines
}

describe('DropLines', () => {
  it.each(TROUBLES)('logs the start once: %s', reason => {
    const lines = drop(new DropLines(), reason, 10_000, 0)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatch(/^publishes are dropped/)
  })

  it('logs a different text for each reason', () => {
    expect(new Set(TROUBLES.flatMap(reason => drop(new DropLines(), reason, 1, 0))).size).toBe(5)
  })

  it.each(AS_ASKED)('logs nothing that the caller requested: %s', reason => {
    const drops = new DropLines()
    expect(drop(drops, reason, 100, 0)).toEqual([])
    expect(drops.ended(1_000_000)).toBeUndefined()
  })

  it('logs the number per reason and the time at the end, including requested drops in between', () => {
    const drops = new DropLines()
    drop(drops, 'offline', 3, 10_000)
    expect(drop(drops, 'queue-full', 2, 10_100)).toEqual([])
    expect(drop(drops, 'superseded', 1, 10_200)).toEqual([])
    expect(drops.ended(12_340)).toBe(
      '6 publishes were dropped within 2.3 s: offline 3, queue-full 2, superseded 1',
    )
  })

  it('logs the end once', () => {
    const drops = new DropLines()
    drop(drops, 'offline', 1, 0)
    expect(drops.ended(1)).toBe('1 publish was dropped within 0.0 s: offline 1')
    expect(drops.ended(2)).toBeUndefined()
  })

  it('starts again after its end, with new numbers', () => {
    const drops = new DropLines()
    drop(drops, 'backlog', 5, 0)
    drops.ended(1_000)
    expect(drop(drops, 'offline', 2, 50_000)).toHaveLength(1)
    expect(drops.ended(50_500)).toBe('2 publishes were dropped within 0.5 s: offline 2')
  })

  it('logs nothing for a period without drops', () => {
    expect(new DropLines().ended(5_000)).toBeUndefined()
  })
})

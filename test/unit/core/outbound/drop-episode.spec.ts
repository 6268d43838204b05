import { describe, expect, it } from 'vitest'
import { DropEpisode } from '../../../../src/core/outbound/drop-episode.js'
import type { DropReason } from '../../../../src/core/outbound/publish-outcome.js'

const TROUBLES = ['offline', 'backlog', 'in-flight-full', 'queue-full', 'expired'] as const
const AS_ASKED = ['superseded', 'aborted', 'closed'] as const

/** Drops so many, one each millisecond, and returns what is logged. */
function drop(episode: DropEpisode, reason: DropReason, count: number, startMs: number): string[] {
  const lines: string[] = []
  for (let index = 0; index < count; index += 1) {
    const line = episode.dropped(reason, startMs + index)
    if (line !== undefined) lines.push(line)
  }
  return lines
}

describe('DropEpisode', () => {
  it.each(TROUBLES)('tells once that it begins: %s', reason => {
    const lines = drop(new DropEpisode(), reason, 10_000, 0)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toMatch(/^publishes are dropped/)
  })

  it('says something else for each reason', () => {
    expect(new Set(TROUBLES.flatMap(reason => drop(new DropEpisode(), reason, 1, 0))).size).toBe(5)
  })

  it.each(AS_ASKED)('says nothing of what the caller asked for: %s', reason => {
    const episode = new DropEpisode()
    expect(drop(episode, reason, 100, 0)).toEqual([])
    expect(episode.caughtUp(1_000_000)).toBeUndefined()
    expect(episode.ended(1_000_000)).toBeUndefined()
  })

  it('tells the number of each reason and the time at the end, with what was asked for in between', () => {
    const episode = new DropEpisode()
    drop(episode, 'offline', 3, 10_000)
    expect(drop(episode, 'queue-full', 2, 10_100)).toEqual([])
    expect(drop(episode, 'superseded', 1, 10_200)).toEqual([])
    expect(episode.ended(12_340)).toBe(
      '6 publishes were dropped within 2.3 s: offline 3, queue-full 2, superseded 1',
    )
  })

  it('tells the end once', () => {
    const episode = new DropEpisode()
    drop(episode, 'offline', 1, 0)
    expect(episode.ended(1)).toBeDefined()
    expect(episode.ended(2)).toBeUndefined()
    expect(episode.caughtUp(10_000)).toBeUndefined()
  })

  it('is not over when nothing waits for a moment, but after a second without a drop', () => {
    const episode = new DropEpisode()
    drop(episode, 'backlog', 5, 0)
    expect(episode.caughtUp(1_003)).toBeUndefined()
    expect(drop(episode, 'backlog', 1, 1_003)).toEqual([])
    expect(episode.caughtUp(2_002)).toBeUndefined()
    expect(episode.caughtUp(2_003)).toBe('6 publishes were dropped within 2.0 s: backlog 6')
  })

  it('begins again after its end, with numbers of its own', () => {
    const episode = new DropEpisode()
    drop(episode, 'backlog', 5, 0)
    episode.ended(1_000)
    expect(drop(episode, 'offline', 2, 50_000)).toHaveLength(1)
    expect(episode.ended(50_500)).toBe('2 publishes were dropped within 0.5 s: offline 2')
  })

  it('says nothing of a time without drops', () => {
    expect(new DropEpisode().caughtUp(5_000)).toBeUndefined()
    expect(new DropEpisode().ended(5_000)).toBeUndefined()
  })
})

import { describe, expect, it } from 'vitest'
import { Evidence, median } from '../../cluster/verdict.mjs'

const FIRST = 'mqtt://127.0.0.1:1'
const SECOND = 'mqtt://127.0.0.1:2'

/** Evidence of journals: lines by process. */
function evidenceOf(journals: Readonly<Record<string, readonly string[]>>): Evidence {
  const evidence = new Evidence()
  for (const [process, lines] of Object.entries(journals))
    for (const line of lines) evidence.take(process, line)
  return evidence
}

describe('the verdict on a run of a cluster', () => {
  it('reports only what was acknowledged, stored or delivered as missing if it was not handled', () => {
    const ends = ['acknowledged', 'stored', 'dropped:offline', 'lost', 'refused']
    const calls = ends.flatMap((end, index) => [`C ${index} 100`, `O ${index} ${end} 110`])
    const evidence = evidenceOf({ plain: [...calls, 'O 1 delivered 120', 'C 9 130'], subscriber: [] })
    expect(evidence.missing()).toEqual(['plain 0', 'plain 1'])
    evidence.take('subscriber', 'H plain 0 115 first')
    evidence.take('subscriber', 'H plain 1 125 dup')
    expect(evidence.missing()).toEqual([])
  })

  it('tells the publishers apart, counts repeats, and takes the last outcome of each publish', () => {
    const evidence = evidenceOf({
      plain: ['C 1 100', 'O 1 acknowledged 101', 'C 2 110', 'O 2 lost 120', 'C 3 130'],
      storing: ['C 1 100', 'O 1 stored 200', 'O 1 delivered 300'],
      subscriber: [
        'H plain 1 102 first',
        'H plain 1 900 dup',
        'H plain 2 121 first',
        'H storing 1 301 first',
      ],
    })
    expect([...evidence.totals()]).toEqual([
      ['plain', { publishes: 3, ends: { acknowledged: 1, lost: 1, pending: 1 }, handled: 2, repeats: 1 }],
      ['storing', { publishes: 1, ends: { delivered: 1 }, handled: 1, repeats: 0 }],
    ])
    expect(evidence.unknown()).toEqual([])
    evidence.take('subscriber', 'H plain 7 1000 first')
    expect(evidence.unknown()).toEqual(['plain 7'])
  })

  it('measures a kill from messages that were published after it, for the client that waits longest', () => {
    const evidence = evidenceOf({
      plain: [
        ...[`S 10 connected ${FIRST}`, 'S 1003 waiting -', `S 1500 connected ${SECOND}`],
        // Acknowledged and handled after the kill, but published before it.
        ...['C 1 999', 'O 1 acknowledged 1001', 'C 2 1400', 'O 2 dropped:offline 1400'],
        ...['C 3 1510', 'O 3 acknowledged 1520'],
      ],
      storing: [
        ...[`S 10 connected ${SECOND}`, 'C 1 1002', 'O 1 stored 1200', 'O 1 delivered 1700'],
        ...['C 2 5000', 'O 2 acknowledged 5001'],
      ],
      subscriber: [
        ...[`S 5 connected ${FIRST}`, 'S 1004 waiting -', `S 1900 connected ${SECOND}`],
        ...['H plain 1 1002 first', 'H plain 3 1910 first', 'H storing 1 2100 first'],
      ],
    })
    expect(evidence.effectOf({ atMs: 1_000, url: FIRST }, 4_000)).toEqual({
      cut: 2,
      connected: 900,
      acknowledged: 700,
      handled: 1_100,
    })
    // Nobody was on the second node before, and nothing of this period was handled.
    expect(evidence.effectOf({ atMs: 4_000, url: FIRST }, 9_000)).toEqual({
      cut: 0,
      connected: undefined,
      acknowledged: 1_001,
      handled: Number.POSITIVE_INFINITY,
    })
  })

  it('reports the median of the measured values', () => {
    expect(median([3, undefined, 1, 2])).toBe(2)
    expect(median([4, 1, 3, 2])).toBe(2)
    expect(median([undefined])).toBeUndefined()
  })
})

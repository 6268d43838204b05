import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Evidence } from '../../soak/evidence.mjs'
import { type Facts, failureOf, judge } from '../../soak/laws.mjs'
import { leaks, type Measures } from '../../soak/leaks.mjs'

const NO_FACTS: Facts = { killed: {}, stores: [{ name: 'p.db', messages: 0, setAside: 0 }] }
const TOPIC = 'soak/pub/queue/1/p/3'

/** Journals of a run that keeps all laws, except that it performs few operations. */
const RUN = {
  p: [
    'L 1',
    `C 1000000 1 queue ok ${TOPIC}`,
    'O 1000000 acknowledged',
    `C 1000001 2 queue poison ${TOPIC}`,
    'O 1000001 acknowledged',
    `C 1000002 0 drop ok ${TOPIC}`,
    'O 1000002 dropped:backlog',
    'E 1',
  ],
  s: ['L 1', 'S c:1000000 s:1:0', `B p:1000000 ${TOPIC}`, 'H p:1000000', `B p:1000001 ${TOPIC}`, 'E 1'],
  c: ['L 1', 'Q c:1000000 qos0 500 10', 'A c:1000000 20 response c:1000000 s:1:0', 'E 1'],
  witness: [`W p:1000000 ${TOPIC} 1`, `W p:1000001 ${TOPIC} 2`, 'D p:1000001'],
}
type Journals = Readonly<Record<string, readonly string[]>>

function brokenLaws(journals: Journals, facts = NO_FACTS): Record<string, readonly string[]> {
  const evidence = new Evidence()
  for (const [process, lines] of Object.entries(journals))
    for (const line of lines) evidence.take(process, line)
  const broken = judge(evidence, facts).filter(law => law.name !== 'operations' && law.broken.length > 0)
  return Object.fromEntries(broken.map(law => [law.name, law.broken]))
}

const without = (process: keyof typeof RUN, text: string): Journals => ({
  ...RUN,
  [process]: RUN[process].filter(line => line !== text),
})
const withLine = (process: keyof typeof RUN, ...lines: string[]): Journals => ({
  ...RUN,
  [process]: [...RUN[process], ...lines],
})

describe('the soak', () => {
  it('runs for a minute with seed 1 in .ci/run', () => {
    const lines = readFileSync(new URL('../../.ci/run', import.meta.url), 'utf8').split('\n')
    expect(lines).toContain('node soak/run.mjs --minutes 0.8 --seed 1')
  })

  it('fails if a law is broken, or has checked nothing', () => {
    const law = (name: string, checks: number, broken: number) => ({ name, checks, broken })
    expect(failureOf([law('order', 3, 0)])).toBeUndefined()
    expect(failureOf([law('order', 3, 1), law('rows', 2, 2)])).toBe('order, rows')
    expect(failureOf([law('order', 3, 0), law('rows', 0, 0)])).toBe('without a check: rows')
    expect(failureOf([law('order', 3, 1), law('rows', 0, 0)])).toBe('order; without a check: rows')
  })

  it('finds no fault in a run that keeps its laws, and checks each of them', () => {
    expect(brokenLaws(RUN)).toEqual({})
    const evidence = new Evidence()
    for (const [process, lines] of Object.entries(RUN)) for (const line of lines) evidence.take(process, line)
    expect(judge(evidence, NO_FACTS).filter(({ checks }) => checks === 0)).toEqual([])
  })

  it.each([
    ['a publish that never settles', 'outcomes', without('p', 'O 1000002 dropped:backlog')],
    ['a publish that settles twice', 'outcomes', withLine('p', 'O 1000000 lost')],
    [
      'an acknowledged message that did not arrive',
      'delivered',
      without('witness', `W p:1000000 ${TOPIC} 1`),
    ],
    ['a QoS 2 message that arrives twice', 'exactly once', withLine('witness', `W p:1000001 ${TOPIC} 3`)],
    ['a dropped message that arrives', 'dropped', withLine('witness', `W p:1000002 ${TOPIC} 3`)],
    ['an acknowledged message that was not handled', 'handled', without('s', 'H p:1000000')],
    ['a poisoned message without a dead letter', 'poison', without('witness', 'D p:1000001')],
    ['a poisoned message that was handled', 'poison', withLine('s', 'H p:1000001')],
    [
      'messages that are handled out of order',
      'order',
      withLine('s', 'B p:1000009 soak/pub/x/1/p/3', 'B p:1000008 soak/pub/x/1/p/3'),
    ],
    ['counters that a process found wrong', 'counters', withLine('p', 'V counters p: 1 is 2')],
    ['a request that never settles', 'requests', without('c', 'A c:1000000 20 response c:1000000 s:1:0')],
    ['a request that settles twice', 'requests', withLine('c', 'A c:1000000 21 TIMEOUT no response')],
    ['a request that settles late', 'requests', withLine('c', 'Q c:1 qos0 500 0', 'A c:1 20000 TIMEOUT no')],
    [
      'a response to another request',
      'requests',
      withLine('c', 'Q c:1 qos0 500 10', 'A c:1 20 response c:1000000 s:1:0'),
    ],
    [
      'a response that no handler made',
      'requests',
      withLine('c', 'Q c:1 qos0 500 10', 'A c:1 20 response c:1 s:1:7'),
    ],
    [
      'the error of another request',
      'requests',
      withLine('c', 'Q c:1 qos0 500 10', 'A c:1 20 REQUEST_FAILED refused: c:2 '),
    ],
    ['an unexpected end of a request', 'requests', withLine('c', 'Q c:1 qos0 9 10', 'A c:1 20 unexpected x')],
    ['a handler that runs for no request', 'requests', withLine('s', 'S c:7 s:1:9')],
    ['two runs for a request at QoS 0', 'responders', withLine('s', 'S c:1000000 s:1:9')],
    ['a process that ends without being killed', 'kills', withLine('p', 'L 2')],
  ])('finds %s', (_what, law, journals) => {
    expect(Object.keys(brokenLaws(journals))).toContain(law)
  })

  it('allows a service that closes to end a stream, but no other request', () => {
    const ended = (kind: string) =>
      withLine('c', `Q c:1 ${kind} 500 10`, 'A c:1 20 REQUEST_FAILED the responder is closing')
    expect(brokenLaws(ended('stream-qos1'))).toEqual({})
    expect(brokenLaws(ended('qos1'))).toHaveProperty('requests')
  })

  it('allows a stream to lose values at QoS 0 only', () => {
    const lost = (kind: string) =>
      withLine('c', `Q c:1 ${kind} 500 10`, 'A c:1 20 RESPONSE_LOST 1 of 2 responses did not arrive')
    expect(brokenLaws(lost('stream-qos0'))).toEqual({})
    for (const kind of ['stream-qos1', 'qos0']) expect(brokenLaws(lost(kind))).toHaveProperty('requests')
  })

  it('allows an order that the broker has changed', () => {
    const [first, second] = ['B p:1000009 soak/pub/x/1/p/3', 'B p:1000008 soak/pub/x/1/p/3']
    const journals = withLine('s', first, second)
    const sent = (...ids: string[]) => ids.map(id => `T s 4 p:${id}`)
    expect(brokenLaws({ ...journals, stage: sent('1000009', '1000008') })).toEqual({})
    expect(brokenLaws({ ...journals, stage: sent('1000008', '1000009') })).toHaveProperty('order')
    expect(brokenLaws({ ...journals, stage: ['T s 4 p:1000009', 'T s 5 p:1000008'] })).toEqual({})
    expect(brokenLaws({ ...journals, stage: ['T s 4 p:1000008', 'T s 5 p:1000009'] })).toHaveProperty('order')
  })

  it('allows what was pending when its process was killed', () => {
    const { p, c } = RUN
    const killed = { ...NO_FACTS, killed: { p: [1], c: [1] } }
    expect(brokenLaws({ ...RUN, p: p.slice(0, -2), c: c.slice(0, -2) }, killed)).toEqual({})
  })

  it('finds messages that are left in a store, and a store that cannot be read', () => {
    for (const left of [
      { messages: 1, setAside: 0 },
      { messages: 0, setAside: 1 },
      { error: 'it is locked' },
    ])
      expect(Object.keys(brokenLaws(RUN, { killed: {}, stores: [{ name: 'p.db', ...left }] }))).toEqual([
        'rows',
      ])
  })

  it('finds an operation that was never performed', () => {
    const [operations] = judge(new Evidence(), NO_FACTS).filter(({ name }) => name === 'operations')
    expect(operations?.broken).toContain('"publish store 2" was not performed')
    expect(operations?.broken).toContain('"unread iterator" was not performed')
    expect(operations?.broken).toHaveLength(operations?.checks ?? 0)
  })
})

describe('a leak', () => {
  const STEADY = { one: { name: 'a', mayBeKilled: false }, other: { name: 'b', mayBeKilled: true } }
  const calm: Measures = {
    ...{ timers: 1, handles: 3, descriptors: 20, listeners: 16, subscriptions: 5, heapBytes: 20_000_000 },
    ...{ slots: 0, queuedBytes: 0, rows: 0 },
  }
  const found = (first: Measures, last: Measures, actor = STEADY.one) =>
    [...leaks([actor], [[first], [last]])].filter(text => text !== undefined)

  it.each(['timers', 'handles', 'descriptors', 'listeners', 'subscriptions', 'heapBytes'])(
    'of %s is found between two quiet points of a process that is never killed',
    what => {
      const grown = { ...calm, [what]: (calm[what] ?? 0) * 2 + 10 }
      expect(found(calm, calm)).toEqual([])
      expect(found(calm, grown)).toEqual([`${what} of a: ${calm[what]}, then ${grown[what]}`])
      expect(found(calm, grown, STEADY.other)).toEqual([])
    },
  )

  it('is there at every later quiet point: timers of a moment are none, and one more per storm is found', () => {
    const foundIn = (...timers: number[]) =>
      [
        ...leaks(
          [STEADY.one],
          timers.map(each => [{ ...calm, timers: each }]),
        ),
      ].filter(text => text !== undefined)
    expect(foundIn(1, 1, 2, 9)).toEqual([])
    expect(foundIn(1, 9, 9, 2)).toEqual([])
    expect(foundIn(1, 3, 5, 7)).toEqual(['timers of a: 1, then 5'])
    expect(foundIn(1, 2, 3, 4, 5, 6, 7, 8)).toEqual(['timers of a: 1, then 5'])
  })

  it.each(['slots', 'queuedBytes', 'rows'])('of %s is found at any quiet point of any process', what => {
    expect(found({ ...calm, [what]: 1 }, calm, STEADY.other)).toHaveLength(1)
  })
})

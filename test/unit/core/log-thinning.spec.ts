import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { counted, LogWindows, oneLine, printable } from '../../../src/core/log-lines.js'

/** Lines of so many failures, one each millisecond. */
const happen = (windows: LogWindows<string>, line: string, count: number, startMs = 0): boolean[] =>
  Array.from({ length: count }, (_, index) => windows.happened(line, 'error', startMs + index))

describe('LogWindows', () => {
  it('logs the first of each line at once, and counts its repeats', () => {
    const windows = new LogWindows<string>()
    expect(happen(windows, 'a', 3)).toEqual([true, false, false])
    expect(happen(windows, 'b', 2)).toEqual([true, false])
    expect(windows.ended(9_999)).toEqual([])
    expect(windows.ended(10_000)).toEqual([
      { line: 'a', tag: 'error', count: 2, withinMs: 10_000 },
      { line: 'b', tag: 'error', count: 1, withinMs: 10_000 },
    ])
  })

  it('continues to count a line with repeats, and forgets a line without any', () => {
    const windows = new LogWindows<string>()
    happen(windows, 'a', 2)
    expect(windows.ended(10_000)).toHaveLength(1)
    expect(windows.happened('a', 'error', 10_001)).toBe(false)
    expect(windows.ended(20_000)).toEqual([{ line: 'a', tag: 'error', count: 1, withinMs: 10_000 }])
    expect(windows.ended(30_000)).toEqual([])
    expect(windows.nextEndMs).toBe(Number.POSITIVE_INFINITY)
    expect(windows.happened('a', 'error', 30_001)).toBe(true)
  })

  it('keeps at most 100 lines, and counts the others as one', () => {
    const windows = new LogWindows<string>()
    const taken = Array.from({ length: 1_000 }, (_, index) => windows.happened(`cause ${index}`, 'error', 0))
    expect(taken.filter(Boolean)).toHaveLength(101)
    expect(windows.ended(10_000)).toEqual([
      { line: 'other failures', tag: 'error', count: 899, withinMs: 10_000 },
    ])
  })

  it('accounts for every line as logged or counted', () => {
    const events = fc.array(fc.record({ line: fc.nat(150), pauseMs: fc.nat(3_000) }), { maxLength: 500 })
    fc.assert(
      fc.property(events, list => {
        const windows = new LogWindows<string>()
        let nowMs = 0
        let told = 0
        const count = (repeats: readonly { readonly count: number }[]): void => {
          for (const repeat of repeats) told += repeat.count
        }
        for (const { line, pauseMs } of list) {
          nowMs += pauseMs
          count(windows.ended(nowMs))
          if (windows.happened(String(line), 'warn', nowMs)) told += 1
        }
        count(windows.flush(nowMs))
        expect(told).toBe(list.length)
      }),
    )
  })

  it('has nothing left after a flush', () => {
    const windows = new LogWindows<string>()
    happen(windows, 'a', 3)
    expect(windows.flush(2_500)).toEqual([{ line: 'a', tag: 'error', count: 2, withinMs: 2_500 }])
    expect(windows.flush(2_500)).toEqual([])
    expect(windows.happened('a', 'error', 2_501)).toBe(true)
  })
})

describe('strings from outside', () => {
  it('are quoted, with at most 200 characters', () => {
    expect(printable('a\u001b[31m\n')).toBe('"a\\u001b[31m\\n"')
    expect(printable('x'.repeat(1_000))).toBe(`"${'x'.repeat(200)}…"`)
  })

  it('of errors stay in one line, with at most 500 characters', () => {
    expect(oneLine('a\r\n  b\u0000\u009bc')).toBe('a b c')
    expect(oneLine('x'.repeat(1_000))).toBe(`${'x'.repeat(500)}…`)
  })
})

describe('characters that a log line must not contain', () => {
  it.each([
    ['DEL', '\u007f', '%7F'],
    ['the start of a terminal command', '\u009b31m', '%C2%9B31m'],
    ['NEL, which some readers take for a line break', '\u0085', '%C2%85'],
    ['a line separator', '\u2028', '%E2%80%A8'],
    ['a mark that reverses the line', '\u202e', '%E2%80%AE'],
    ['an invisible character', '\u200b', '%E2%80%8B'],
  ])('are encoded: %s', (_what, text, encoded) => {
    expect(printable(`a${text}b`)).toBe(`"a${encoded}b"`)
  })

  it('do not include letters of any language and emoji', () => {
    expect(printable('Grüße 温度 🌡')).toBe('"Grüße 温度 🌡"')
  })
})

describe('a number with its noun', () => {
  it.each([
    [0, '0 messages'],
    [1, '1 message'],
    [2, '2 messages'],
    [1_000, '1000 messages'],
  ])('%i', (count, text) => {
    expect(counted(count, 'message')).toBe(text)
  })

  it('has a plural of its own if an "s" is not enough', () => {
    expect([1, 3].map(count => counted(count, 'publish was', 'publishes were'))).toEqual([
      '1 publish was',
      '3 publishes were',
    ])
  })
})

describe('the windows of LogWindows', () => {
  it('end 10 s after their line, the oldest first', () => {
    const windows = new LogWindows<string>()
    expect(windows.nextEndMs).toBe(Number.POSITIVE_INFINITY)
    windows.happened('a', 'tag', 1_000)
    windows.happened('b', 'tag', 2_000)
    expect(windows.nextEndMs).toBe(11_000)
    expect([windows.ended(11_000), windows.nextEndMs]).toEqual([[], 12_000])
  })

  it('report at a flush only lines with repeats, with the time since the line', () => {
    const windows = new LogWindows<string>()
    windows.happened('a', 'tag of a', 1_000)
    windows.happened('b', 'tag of b', 2_000)
    windows.happened('b', 'tag of b', 3_000)
    expect(windows.flush(5_000)).toEqual([{ line: 'b', tag: 'tag of b', count: 1, withinMs: 3_000 }])
  })
})

describe('strings from outside of exactly the longest length', () => {
  it('are not shortened', () => {
    expect(printable('x'.repeat(200))).toBe(`"${'x'.repeat(200)}"`)
    expect(oneLine('x'.repeat(500))).toBe('x'.repeat(500))
  })
})

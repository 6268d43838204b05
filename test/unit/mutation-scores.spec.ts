import { describe, expect, it } from 'vitest'
import { scoreOf, withScore } from '../../scripts/mutation-scores.mjs'

const PAGE =
  'before\n<!-- mutation scores: written by npm run mutation -->\n<!-- end of mutation scores -->\nafter\n'

describe('the mutation score', () => {
  it('counts what was noticed or did not end, and not what does not compile or was ignored', () => {
    const statuses = [
      'Killed',
      'Timeout',
      'Survived',
      'NoCoverage',
      'CompileError',
      'RuntimeError',
      'Ignored',
    ]
    expect(scoreOf(statuses.map(status => ({ status })))).toEqual({ killed: 2, total: 4, percent: '50.0' })
    expect(scoreOf([])).toEqual({ killed: 0, total: 0, percent: '0.0' })
  })

  it('is a row in the table of its page, in the order of the folders, and replaces the row before it', () => {
    const once = withScore(PAGE, 'topic', { killed: 1, total: 2, percent: '50.0' })
    const twice = withScore(once, 'inbound', { killed: 9, total: 10, percent: '90.0' })
    const again = withScore(twice, 'topic', { killed: 2, total: 2, percent: '100.0' })
    const rows = again.split('\n').filter(line => line.startsWith('| `'))
    expect(rows).toEqual([
      '| `src/core/inbound` | 10 | 9 | 90.0 % |',
      '| `src/core/topic` | 2 | 2 | 100.0 % |',
    ])
    expect(again.startsWith('before\n<!--') && again.endsWith('-->\nafter\n')).toBe(true)
  })

  it('has a row for the files that are in no folder', () => {
    const rows = withScore(PAGE, '.', { killed: 1, total: 2, percent: '50.0' })
    expect(rows).toContain('| `src/core/*.ts` | 2 | 1 | 50.0 % |')
  })

  it('needs a place in the page', () => {
    expect(() => withScore('nothing', 'topic', scoreOf([]))).toThrow('no place')
  })
})

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  type CollectedTest,
  countsOf,
  filesOf,
  type Manifest,
  pageOf,
  problemsOf,
  readManifest,
  type Statement,
} from '../../scripts/conformance-manifest.mjs'

const FILE = 'test/a.spec.ts'
const held: Statement = { id: 'MQTT-1.1.1-1', says: 'It holds.', tests: [`${FILE} > a > holds`] }
const server: Statement = { id: 'MQTT-1.1.1-2', says: 'It serves.', notApplicable: 'It binds the server.' }
const collected: readonly CollectedTest[] = [
  { file: FILE, title: 'a > holds', state: 'run' },
  { file: FILE, title: 'a > holds 1 of 2', state: 'passed' },
  { file: FILE, title: 'a > holds 2 of 2', state: 'passed' },
]
const manifest = (...mqtt5: Statement[]): Manifest => ({ mqtt5, mqtt311: [] })

describe('a conformance manifest', () => {
  it('has no problems if every statement has a test or a reason', () => {
    expect(problemsOf(manifest(held, server), collected)).toEqual([])
    expect(countsOf([held, server])).toEqual({ statements: 2, tested: 1, notApplicable: 1, deviating: 0 })
    expect(filesOf(manifest(held, server))).toEqual([FILE])
  })

  it.each<readonly [string, Statement, RegExp]>([
    ['has no test', { id: held.id, says: 'x' }, /MQTT-1.1.1-1 has no test/],
    ['has an empty list of tests', { ...held, tests: [] }, /has no test/],
    [
      'names a file without tests',
      { ...held, tests: ['test/b.spec.ts > a > holds'] },
      /no test in test\/b\.spec\.ts/,
    ],
    ['names a title that no test has', { ...held, tests: [`${FILE} > a > hold`] }, /has no test "a > hold"/],
    ['names only a part of a title', { ...held, tests: [`${FILE} > holds`] }, /has no test "holds"/],
    ['has no link', { ...held, tests: ['holds'] }, /there is no test in/],
    ['has no description', { ...held, says: '' }, /has no description/],
    ['does not say why it does not apply', { ...server, id: held.id, notApplicable: '' }, /does not say why/],
    ['does not say why the client deviates', { ...held, deviates: '' }, /does not say why/],
    ['has a deviation without a test', { id: held.id, says: 'x', deviates: 'It does.' }, /has no test/],
    ['has tests, but does not apply', { ...held, notApplicable: 'x' }, /not applicable, but has tests/],
  ])('has a problem if a statement %s', (_what, statement, problem) => {
    expect(problemsOf(manifest(statement), collected)).toEqual([expect.stringMatching(problem)])
  })

  it.each(['skip', 'todo', 'skipped', 'pending', 'failed'])('has a problem if a test is "%s"', state => {
    const tests: readonly CollectedTest[] = [{ file: FILE, title: 'a > holds', state }]
    expect(problemsOf(manifest(held), tests)).toEqual([
      `MQTT 5 MQTT-1.1.1-1: the test "a > holds" in ${FILE} is ${state}`,
    ])
  })

  it('may name the tests of several values by "*", of which none may be skipped', () => {
    const several = manifest({ ...held, tests: [`${FILE} > a > holds * of *`] })
    expect(problemsOf(several, collected)).toEqual([])
    const skipped = { file: FILE, title: 'a > holds 3 of 3', state: 'skip' }
    expect(problemsOf(several, [...collected, skipped])).toEqual([expect.stringContaining('is skip')])
    expect(problemsOf(several, collected.slice(0, 1))).toEqual([expect.stringContaining('has no test')])
  })

  it.each([
    ['is missing at the beginning', ['MQTT-1.1.1-2']],
    ['is missing between two', ['MQTT-1.1.1-1', 'MQTT-1.1.1-3']],
    ['is there twice', ['MQTT-1.1.1-1', 'MQTT-1.1.1-1']],
  ])('has a problem if a number of a section %s', (_what, ids) => {
    const statements = ids.map(id => ({ ...held, id }))
    expect(problemsOf(manifest(...statements), collected)).toEqual([
      expect.stringContaining('is out of order'),
    ])
  })
})

describe('the conformance manifest of this package', () => {
  it('has all 251 statements of MQTT 5, and makes docs/conformance.md', () => {
    const own = readManifest()
    expect(countsOf(own.mqtt5).statements).toBe(251)
    expect(readFileSync(new URL('../../docs/conformance.md', import.meta.url), 'utf8')).toBe(pageOf(own))
  })

  it('says in the page how many statements are tested, do not apply and are not followed', () => {
    const deviating: Statement = { ...held, id: 'MQTT-1.1.1-3', deviates: 'On purpose.' }
    const page = pageOf(manifest(held, server, deviating))
    expect(page).toContain('| MQTT 5 | 3 | 1 | 1 | 1 |')
    expect(page).toContain('| MQTT-1.1.1-1 | It holds. | a: a > holds |')
    expect(page).toContain('| MQTT-1.1.1-2 | It serves. | not applicable: It binds the server. |')
    expect(page).toContain('- MQTT-1.1.1-3: It holds. On purpose.')
  })
})

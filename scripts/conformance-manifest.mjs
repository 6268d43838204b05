// The conformance manifest: what is wrong with it, and its page in the documentation.
import { readFileSync } from 'node:fs'

const FILE = new URL('../test/conformance/statements.json', import.meta.url)
const SEPARATOR = ' > '
/** Sections whose numbers do not begin at 1 in the standard. */
const FIRST_NUMBERS = { 'mqtt5 MQTT-2.2.1': 2 }

export const EDITIONS = {
  mqtt5: { name: 'MQTT 5', isComplete: true },
  mqtt311: { name: 'MQTT 3.1.1', isComplete: false },
}

export function readManifest(file = FILE) {
  return JSON.parse(readFileSync(file, 'utf8'))
}

/** Every statement with its edition. */
function all(manifest) {
  return Object.keys(EDITIONS).flatMap(edition =>
    (manifest[edition] ?? []).map(statement => ({ edition, ...statement })),
  )
}

const nameOf = ({ edition, id }) => `${EDITIONS[edition].name} ${id}`

/** The files that the manifest names. */
export function filesOf(manifest) {
  return [...new Set(all(manifest).flatMap(({ tests = [] }) => tests.map(link => split(link).file)))].sort()
}

function split(link) {
  const at = link.indexOf(SEPARATOR)
  return { file: link.slice(0, Math.max(at, 0)), title: link.slice(at + SEPARATOR.length) }
}

/** A "*" in a link stands for any text, such as the values of a test that runs with several. */
function matcherOf(title) {
  const parts = title.split('*').map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`, 's')
}

/**
 * @param collected tests as { file, title, state }, where `state` is "run" or "passed", or says why a test does not count
 * @returns what is wrong, as lines
 */
export function problemsOf(manifest, collected) {
  const byFile = groupByFile(collected)
  return [...gapsIn(manifest), ...all(manifest).flatMap(statement => problemsOfOne(statement, byFile))]
}

function groupByFile(collected) {
  const groups = new Map()
  for (const test of collected) groups.set(test.file, [...(groups.get(test.file) ?? []), test])
  return groups
}

function problemsOfOne(statement, byFile) {
  const { says, tests = [], notApplicable, deviates } = statement
  const name = nameOf(statement)
  const problems = []
  if (!says) problems.push(`${name} has no description`)
  if (notApplicable !== undefined && (tests.length > 0 || deviates !== undefined))
    problems.push(`${name} is not applicable, but has tests or a deviation`)
  if (notApplicable === '' || deviates === '') problems.push(`${name} does not say why`)
  if (notApplicable === undefined && tests.length === 0) problems.push(`${name} has no test`)
  for (const link of tests) {
    const { file, title } = split(link)
    const found = (byFile.get(file) ?? []).filter(test => matcherOf(title).test(test.title))
    if (!byFile.has(file)) problems.push(`${name}: there is no test in ${file}`)
    else if (found.length === 0) problems.push(`${name}: ${file} has no test "${title}"`)
    for (const test of found.filter(({ state }) => state !== 'run' && state !== 'passed'))
      problems.push(`${name}: the test "${test.title}" in ${file} is ${test.state}`)
  }
  return problems
}

/** Statements that are missing or twice in the manifest: the numbers of a section of the standard have no holes. */
function gapsIn(manifest) {
  const problems = []
  const last = new Map()
  for (const { edition, id } of all(manifest)) {
    const [section, number] = [id.slice(0, id.lastIndexOf('-')), Number(id.slice(id.lastIndexOf('-') + 1))]
    const key = `${edition} ${section}`
    const expected = last.has(key) ? last.get(key) + 1 : (FIRST_NUMBERS[key] ?? 1)
    const isWrong = EDITIONS[edition].isComplete ? number !== expected : number <= (last.get(key) ?? 0)
    if (isWrong)
      problems.push(`${EDITIONS[edition].name} ${id} is out of order, or the one before it is missing`)
    last.set(key, number)
  }
  return problems
}

export function countsOf(statements) {
  const notApplicable = statements.filter(statement => statement.notApplicable !== undefined).length
  const deviating = statements.filter(statement => statement.deviates !== undefined).length
  const tested = statements.length - notApplicable - deviating
  return { statements: statements.length, tested, notApplicable, deviating }
}

/** @returns the text of docs/conformance.md */
export function pageOf(manifest) {
  const { mqtt5, mqtt311 } = manifest
  return [
    '# Conformance',
    '',
    'This page lists every numbered normative statement of MQTT 5 (appendix B of the OASIS standard), and those of MQTT 3.1.1 that apply',
    'to a client and differ. Each statement that applies to a client names the tests that verify it. The descriptions are short',
    'paraphrases; only the standard is binding. `npm run conformance` checks that each test exists and is not skipped, and writes this page.',
    '',
    '| | statements | tested | not applicable | deviating |',
    '|---|---|---|---|---|',
    row('MQTT 5', ...Object.values(countsOf(mqtt5))),
    row('MQTT 3.1.1, where it differs', ...Object.values(countsOf(mqtt311))),
    '',
    'Each test is given as its file in the folder `test` of the repository, and its title. In a title, * stands for any text.',
    '',
    ...deviations([...mqtt5, ...mqtt311]),
    '## MQTT 5',
    '',
    ...table(mqtt5),
    '',
    '## MQTT 3.1.1',
    '',
    ...table(mqtt311),
    '',
  ].join('\n')
}

const cell = text =>
  text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('*', '\\*').replaceAll('_', '\\_')
const row = (...cells) => `| ${cells.join(' | ')} |`

function deviations(statements) {
  const found = statements.filter(({ deviates }) => deviates !== undefined)
  if (found.length === 0) return []
  return ['## Deviations', '', ...found.map(({ id, says, deviates }) => `- ${id}: ${says} ${deviates}`), '']
}

function table(statements) {
  const rows = statements.map(({ id, says, tests = [], notApplicable, deviates }) => {
    const links = tests.map(link => {
      const { file, title } = split(link)
      return `${cell(file.replace(/^test\//, '').replace(/\.spec\.ts$/, ''))}: ${cell(title)}`
    })
    const held = notApplicable === undefined ? links.join('<br>') : `not applicable: ${cell(notApplicable)}`
    return row(id, cell(says), deviates === undefined ? held : `deviates, see above<br>${held}`)
  })
  return ['| Statement | In short | Tests |', '|---|---|---|', ...rows]
}

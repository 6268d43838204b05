import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const ROOT = new URL('../../', import.meta.url)
const page = readFileSync(new URL('docs/security.md', ROOT), 'utf8')
const threats = page.slice(
  page.indexOf('## Threats'),
  page.indexOf('### What the package does not defend against'),
)

interface Threat {
  readonly actor: string
  readonly threat: string
  readonly defence: string
  readonly file: string
  readonly title: string
}

/** The rows of the tables, each with the heading above it. */
function rowsOf(markdown: string): Threat[] {
  return markdown.split('\n### ').flatMap(part => {
    const [actor = '', ...lines] = part.split('\n')
    const rows = lines.filter(line => line.startsWith('| ') && !line.startsWith('| Threat '))
    return rows.map(line => {
      const [threat = '', defence = '', test = ''] = line.slice(2, -2).split(' | ')
      const at = test.indexOf(': ')
      return { actor, threat, defence, file: test.slice(0, at), title: test.slice(at + 2) }
    })
  })
}

const hasTest = ({ file, title }: Threat): boolean => {
  const source = readFileSync(new URL(`test/${file}.spec.ts`, ROOT), 'utf8')
  return [`'${title}'`, `"${title}"`, `\`${title}\``].some(text => source.includes(text))
}

const ROWS = rowsOf(threats)

describe('the threats in docs/security.md', () => {
  it('are those of a broker, a publisher, a requester, a log and the supply chain', () => {
    const actors = new Set(ROWS.map(({ actor }) => actor))
    expect([...actors]).toEqual([
      'A hostile broker',
      'A hostile publisher',
      'A hostile requester',
      'A stolen log',
      'The supply chain',
    ])
    expect(ROWS.length).toBeGreaterThanOrEqual(30)
    for (const actor of actors) expect(ROWS.filter(row => row.actor === actor).length).toBeGreaterThan(3)
  })

  it.each(ROWS)('$actor, $threat: there is a defence, and the test that holds it', row => {
    expect(row.defence).not.toBe('')
    expect(hasTest(row)).toBe(true)
  })

  it('would be noticed without their test', () => {
    const dead = rowsOf('### A\n| x | y | unit/lock-file: the lock file names a host |')
    expect(dead.map(hasTest)).toEqual([false])
  })
})

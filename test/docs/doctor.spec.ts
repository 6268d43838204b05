import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { BROKERS } from '../../scripts/brokers/start.mjs'
import { RULES } from '../../src/cli/doctor/findings.js'
import { EXIT, reportOfFailure } from '../../src/cli/doctor/report.js'
import { NoConnection } from '../../src/cli/doctor/target.js'
import { main } from '../../src/cli/main.js'

const page = readFileSync(new URL('../../docs/doctor.md', import.meta.url), 'utf8')

/** The names in backticks of the first column of a table below a heading. */
function namesBelow(heading: string): string[] {
  const [, section = ''] = page.split(`\n## ${heading}\n`)
  const rows = (section.split('\n## ')[0] ?? '').split('\n').filter(line => line.startsWith('| '))
  return rows.flatMap(row =>
    [...(row.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, name = '']) => name),
  )
}

describe('docs/doctor.md', () => {
  it('describes every finding', () => {
    const ids = namesBelow('Findings').filter(name => name !== 'id')
    expect(ids.toSorted()).toEqual(RULES.map(({ id }) => id).toSorted())
  })

  it('describes every field of the JSON', () => {
    const failure = reportOfFailure(new NoConnection('refused', ''), {
      target: '',
      durationMs: 0,
      traffic: { packetsOut: 0, bytesOut: 0, packetsIn: 0, bytesIn: 0 },
      leftBehind: [],
    })
    expect(namesBelow('JSON').toSorted()).toEqual(Object.keys(failure).toSorted())
  })

  it('describes every exit code', () => {
    const [, section = ''] = page.split('\n## Exit codes\n')
    const codes = [...section.matchAll(/^\| (\d) \|/gm)].map(([, code]) => Number(code))
    expect(codes).toEqual([...Object.values(EXIT), 1].toSorted())
  })

  it('describes every argument of the usage', async () => {
    let usage = ''
    await main(['--help'], {
      cwd: '/',
      load: () => Promise.reject(new Error('nothing is loaded')),
      out: async text => {
        usage += text
      },
      error: async () => {},
    })
    const [, section = ''] = usage.split('nestjs-mqtt doctor')
    const flags = [...section.matchAll(/--[a-z]+/g)].map(([flag]) => flag)
    expect(flags.length).toBeGreaterThan(5)
    for (const flag of flags) expect(page).toContain(flag)
  })

  it('has the output of each broker', () => {
    const [, outputs = ''] = page.split('\n## Outputs\n')
    const titles = [...outputs.matchAll(/^### (.+?)(?: [\d.]+)?$/gm)].map(([, title]) => title)
    expect(titles).toEqual(BROKERS.map(({ title }) => title))
    expect(outputs).not.toMatch(/127\.0\.0\.1:(?!1883)/)
  })
})

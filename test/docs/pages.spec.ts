import { describe, expect, it } from 'vitest'
import { DocApp } from './doc-app.js'

const PAGES = ['README.md', 'docs/migration.md', 'docs/testing.md']

describe.each(PAGES)('the code of %s', page => {
  it('consists of whole files', () => {
    expect(new DocApp(page).fragments).toEqual([])
  })

  it.each(['commonjs', 'module'] as const)('compiles under strict as %s', { timeout: 60_000 }, async type => {
    const app = new DocApp(page, type)
    app.write()
    await app.compile()
  })
})

import { beforeAll, describe, expect, it } from 'vitest'
import { compilePages, DocApp } from './doc-app.js'

const PAGES = [
  'README.md',
  'docs/asyncapi.md',
  'docs/authentication.md',
  'docs/brokers.md',
  'docs/codecs.md',
  'docs/connections.md',
  'docs/contracts.md',
  'docs/deployment.md',
  'docs/freshness.md',
  'docs/getting-started.md',
  'docs/handlers.md',
  'docs/health.md',
  'docs/migration.md',
  'docs/opentelemetry.md',
  'docs/outbox.md',
  'docs/scaling.md',
  'docs/security.md',
  'docs/state.md',
  'docs/storing.md',
  'docs/testing.md',
  'docs/tutorial.md',
]
/** Pages that also show parts of files, which are not compiled. */
const PAGES_WITH_PARTS = ['docs/publishing.md', 'docs/receiving.md', 'docs/requests.md']

describe.each(PAGES)('the code of %s', page => {
  it('consists of complete files', () => {
    expect(new DocApp(page).fragments).toEqual([])
  })
})

describe.each(['commonjs', 'module'] as const)('as %s, with strict checks,', type => {
  const pages = [...PAGES, ...PAGES_WITH_PARTS]
  let errorsOf: (page: string) => readonly string[]
  beforeAll(async () => {
    errorsOf = await compilePages(pages, type)
  }, 120_000)

  it.each(pages)('the files of %s compile', page => {
    expect(errorsOf(page)).toEqual([])
  })
})

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const page = readFileSync(join(ROOT, 'docs/delivery.md'), 'utf8')

it('docs/delivery.md names existing tests', () => {
  const names = [...page.matchAll(/[\w-]+\.spec\.ts/g)].map(([name]) => name)
  expect(names.length).toBeGreaterThan(5)
  expect(names.filter(name => !existsSync(join(ROOT, 'test/integration', name)))).toEqual([])
})

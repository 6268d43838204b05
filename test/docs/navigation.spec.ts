import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const pages = readdirSync(file('docs'))
  .filter(name => name.endsWith('.md'))
  .map(name => name.replace(/\.md$/, ''))

it('every page is in the navigation of the site', () => {
  const navigation = readFileSync(file('site/.vitepress/config.mjs'), 'utf8')
  expect(pages.filter(page => !navigation.includes(`, '${page}')`))).toEqual([])
})

it('every page is linked from the README', () => {
  const readme = readFileSync(file('README.md'), 'utf8')
  expect(pages.filter(page => !readme.includes(`(docs/${page}.md`))).toEqual([])
})

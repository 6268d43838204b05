// Runs the tests of the page in a headless Chromium. Without one, it says so and succeeds.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const paths = (process.env.PATH ?? '').split(delimiter)
const chromium =
  process.env.CHROMIUM ||
  NAMES.flatMap(name => paths.map(path => join(path, name))).find(path => existsSync(path))

if (chromium === undefined) {
  console.log('The tests of the page need Chromium, and there is none. They were not run.')
  console.log('Install it (Debian: apt-get install chromium), or set CHROMIUM to its path.')
  process.exit(0)
}
const folder = dirname(fileURLToPath(import.meta.url))
const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs')
const { status } = spawnSync(process.execPath, [vitest, 'run', '--root', folder, ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: { ...process.env, CHROMIUM: chromium },
})
process.exit(status ?? 1)

// Runs the tests of the page in a headless Chromium or Chrome. Without one, it says so in one line, and succeeds.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const ELSEWHERE = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
]
const folders = (process.env.PATH ?? '').split(delimiter)
const installed = [...NAMES.flatMap(name => folders.map(folder => join(folder, name))), ...ELSEWHERE]
const chromium = process.env.CHROMIUM || installed.find(path => existsSync(path))

if (chromium === undefined) {
  console.log(
    'test:browser was NOT RUN: no Chromium on PATH; install it (Debian: apt-get install chromium) or set CHROMIUM to its path',
  )
  process.exit(0)
}
if (!existsSync(chromium)) {
  console.error(`CHROMIUM is set to ${chromium}, which does not exist`)
  process.exit(1)
}
console.log(`test:browser runs in ${chromium}`)
const folder = dirname(fileURLToPath(import.meta.url))
const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs')
const { status } = spawnSync(process.execPath, [vitest, 'run', '--root', folder, ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: { ...process.env, CHROMIUM: chromium },
})
process.exit(status ?? 1)

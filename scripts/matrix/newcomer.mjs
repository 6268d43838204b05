import { mkdirSync, readFileSync } from 'node:fs'
import { docBlocks } from '../doc-blocks.mjs'
import { ScratchApp } from './scratch-app.mjs'
import { checkStart } from './start-check.mjs'

const README = new URL('../../README.md', import.meta.url)

/** From `nest new` to a green test. */
const MAX_SECONDS = 300
/** What a newcomer may have to write or change by hand. */
const MAX_OWN_LINES = 9

/**
 * Goes the path of a new user: generate, install, paste the README, build, send a message, test; then the linter as
 * generated, over the pages about testing as well. Nothing that the generator made is left out.
 */
export async function tryNewcomer(parent, app, tarball) {
  const scratch = new ScratchApp(parent, app)
  const node = process.versions.node
  const seconds = {}
  let ownLines = 0
  const steps = {
    'nest new': () => {
      mkdirSync(parent, { recursive: true })
      return scratch.npm(app.generate, { cwd: parent })
    },
    'npm install': async () => {
      for (const packages of installs(app.nest))
        await scratch.npm(['install', ...packages.map(name => (name === 'nestjs-mqtt' ? tarball : name))])
    },
    paste: () => {
      ownLines = scratch.writeCode(['README.md'])
    },
    build: () => scratch.npm(['run', 'build']),
    'first message': () => checkStart(scratch.folder, node),
    test: () => scratch.npm(['test']),
  }
  for (const [step, work] of Object.entries(steps)) seconds[step] = await secondsOf(step, work)
  const total = Object.values(seconds).reduce((sum, more) => sum + more, 0)
  const lint = await secondsOf('lint', () => {
    scratch.writeCode()
    return scratch.npm(['run', 'lint'])
  })
  const problems = [
    ...(total > MAX_SECONDS ? [`${total} s; the limit is ${MAX_SECONDS}`] : []),
    ...(ownLines > MAX_OWN_LINES ? [`${ownLines} own lines; the limit is ${MAX_OWN_LINES}`] : []),
  ]
  if (problems.length > 0) throw new Error(problems.join('; '))
  return { ...seconds, total, 'own lines': ownLines, lint }
}

/** What the README installs: in its first block for Nest 11, with Nest 12 in the comment, and where it introduces tests. */
function installs(nest) {
  const [first] = docBlocks(README)
  const [, own, forNest11, forNest12] = /^npm install (\S+) (\S+) +# with Nest 12: (\S+)$/m.exec(first.code)
  const microservices = nest === 11 ? forNest11 : forNest12
  const [, forTests] = /`npm install (--save-dev [^`]+)`/.exec(readFileSync(README, 'utf8'))
  return [[own, microservices], forTests.split(' ')]
}

async function secondsOf(step, work) {
  const startMs = performance.now()
  try {
    await work()
  } catch (error) {
    throw Object.assign(error, { message: `${step}: ${error.message}` })
  }
  return Math.round((performance.now() - startMs) / 1_000)
}

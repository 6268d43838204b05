// npm run mutation -- <folder of src/core, or . for its files> …: changes the code of a folder in small ways, one at a time, and counts the changes
// that its unit specs notice. Writes the scores to CONTRIBUTING.md, and prints the changes that no spec noticed.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Stryker } from '@stryker-mutator/core'
import { scoreOf, withScore } from './mutation-scores.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PAGE = new URL('../CONTRIBUTING.md', import.meta.url)

const folders = process.argv.slice(2)
process.chdir(ROOT)
if (folders.length === 0)
  throw new Error('name a folder of src/core, such as: npm run mutation -- topic, or . for the files in it')
for (const folder of folders) {
  if (!existsSync(`src/core/${folder}`)) throw new Error(`there is no folder src/core/${folder}`)
  await run(folder)
}

async function run(folder) {
  // Read by vitest.mutation.config.ts in the processes of the runner.
  process.env['MUTATION_FOLDER'] = folder
  const stryker = new Stryker({
    testRunner: 'vitest',
    plugins: ['@stryker-mutator/vitest-runner'],
    vitest: { configFile: 'vitest.mutation.config.ts', related: false },
    mutate: [folder === '.' ? 'src/core/*.ts' : `src/core/${folder}/**/*.ts`],
    coverageAnalysis: 'perTest',
    // A static mutant needs a run of all specs of its own.
    ignoreStatic: true,
    concurrency: Math.min(2, availableParallelism()),
    timeoutMS: 20_000,
    dryRunTimeoutMinutes: 30,
    reporters: ['clear-text', 'progress-append-only'],
    clearTextReporter: { logTests: false, reportTests: false, allowColor: false },
    ignorePatterns: ['dist', 'site', 'bench', 'sample-app', 'docs', 'etc'],
    tempDirName: '.stryker-tmp',
  })
  const score = scoreOf(await stryker.runMutationTest())
  console.log(`${folder}: ${score.killed} of ${score.total} noticed, ${score.percent} %`)
  writeFileSync(PAGE, withScore(readFileSync(PAGE, 'utf8'), folder, score))
}

// npm run conformance: checks the conformance manifest, and writes docs/conformance.md.
//   -- --check              only checks, also that the page is up to date
//   -- --results FILE       takes the tests from the JSON report of a whole run, in which they must have passed
import { readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createVitest } from 'vitest/node'
import { countsOf, EDITIONS, filesOf, pageOf, problemsOf, readManifest } from './conformance-manifest.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PAGE = join(ROOT, 'docs/conformance.md')
const { values: options } = parseArgs({
  options: { check: { type: 'boolean' }, results: { type: 'string' } },
})

const manifest = readManifest()
const collected = options.results === undefined ? await collect() : readResults(options.results)
const problems = problemsOf(manifest, collected)
const page = pageOf(manifest)
if (options.check !== true) writeFileSync(PAGE, page)
else if (readFileSync(PAGE, 'utf8') !== page)
  problems.push('docs/conformance.md is not up to date; run "npm run conformance" and commit it')

for (const problem of problems) console.error(problem)
for (const [edition, { name }] of Object.entries(EDITIONS)) {
  const { statements, tested, notApplicable, deviating } = countsOf(manifest[edition])
  console.log(
    `${name}: ${statements} statements, ${tested} tested, ${notApplicable} not applicable, ${deviating} deviating`,
  )
}
process.exitCode = problems.length > 0 ? 1 : 0

/** The tests of the files that the manifest names, without running them. */
async function collect() {
  const vitest = await createVitest('test', { root: ROOT, watch: false, typecheck: { enabled: false } })
  try {
    const { testModules, unhandledErrors } = await vitest.collect(filesOf(manifest))
    for (const error of [...unhandledErrors, ...testModules.flatMap(module => module.errors())])
      console.error(error)
    return testModules.flatMap(module =>
      [...module.children.allTests()].map(test => ({
        file: relative(ROOT, module.moduleId),
        title: test.fullName,
        state: test.options.mode === 'only' ? 'run' : test.options.mode,
      })),
    )
  } finally {
    await vitest.close()
  }
}

function readResults(file) {
  const { testResults } = JSON.parse(readFileSync(file, 'utf8'))
  return testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ ancestorTitles, title, status }) => ({
      file: relative(ROOT, name),
      title: [...ancestorTitles, title].filter(part => part !== '').join(' > '),
      state: status,
    })),
  )
}

import { defineConfig } from 'vitest/config'

/** Set by `npm run mutation`. */
const folder = process.env['MUTATION_FOLDER'] ?? ''
/** The matching rules of topics are shared by two implementations. */
const shared = folder === 'topic' ? ['test/contract/topic-matching.spec.ts'] : []
const own = folder === '.' ? 'test/unit/core/*.spec.ts' : `test/unit/core/${folder}/**/*.spec.ts`

export default defineConfig({
  test: {
    include: [own, ...shared],
    testTimeout: 20_000,
    // The code of core keeps no state in modules. Without a new environment for each spec, a run takes a fifth of the time.
    isolate: false,
  },
})

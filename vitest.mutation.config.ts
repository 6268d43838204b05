import { defineConfig } from 'vitest/config'

/** Set by `npm run mutation`. */
const folder = process.env['MUTATION_FOLDER'] ?? ''
/** Specs of the client are named after the same parts. The matching rules of topics are shared by two implementations. */
const shared = folder === 'topic' ? ['test/contract/topic-matching.spec.ts'] : []

export default defineConfig({
  test: {
    include: [`test/unit/core/${folder}/**/*.spec.ts`, `test/unit/client/${folder}/**/*.spec.ts`, ...shared],
    testTimeout: 20_000,
  },
})

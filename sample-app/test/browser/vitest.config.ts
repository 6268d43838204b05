import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.browser.ts'],
    testTimeout: 30_000,
    // The first start builds the library and the sample.
    hookTimeout: 300_000,
    bail: 1,
    reporters: ['verbose'],
  },
})

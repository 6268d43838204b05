import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.browser.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    bail: 1,
    reporters: ['verbose'],
  },
})

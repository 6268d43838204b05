// The compiled test, with test functions as globals and nothing else.
import { defineConfig } from 'vitest/config'

export default defineConfig({ test: { globals: true, include: ['dist/**/*.spec.js'], exclude: [] } })

/** The long form of two specs: 100,000 incoming messages over 200 lost connections, and 2,000,000 publishes over random faults. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const SPECS = ['test/e2e/order-over-cuts.spec.ts', 'test/integration/every-publish-settles.spec.ts']
const SIZES = { INBOUND_MESSAGES: '100000', INBOUND_CUTS: '200', SETTLE_PUBLISHES: '1000000' }

const vitest = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url))
const { status } = spawnSync(
  process.execPath,
  [vitest, 'run', ...SPECS, '--typecheck.enabled=false', '--reporter=verbose', '--maxWorkers=1'],
  { stdio: 'inherit', env: { ...SIZES, ...process.env } },
)
process.exitCode = status ?? 1

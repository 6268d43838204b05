import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { freePort } from '../support/free-port.js'
import { DocApp, type Service } from './doc-app.js'

const VITEST = fileURLToPath(new URL('../../node_modules/vitest/vitest.mjs', import.meta.url))
const PLAIN_CONFIG = fileURLToPath(new URL('plain-vitest.config.mjs', import.meta.url))

describe('the application of the README', () => {
  const app = new DocApp('README.md')
  let broker: EmbeddedBroker
  let service: Service
  let port: number

  beforeAll(async () => {
    app.write()
    await app.compile()
    broker = await EmbeddedBroker.start()
    port = await freePort()
    service = await app.start(broker.url, port)
  })

  afterAll(async () => {
    await service.stop()
    await broker.stop()
  })

  it('handles a message and publishes from the handler', async () => {
    await broker.deliver('devices/7/telemetry', { celsius: 9 })
    const alarm = await broker.nextMessage('devices/7/alarm')
    expect(JSON.parse(alarm.payload.toString())).toEqual({ celsius: 9 })
  })

  it('reports on its health endpoint that it is connected', async () => {
    const response = await fetch(`http://localhost:${port}/health`)
    expect(response.status).toBe(200)
    expect(await response.json()).toMatchObject({ state: 'up' })
  })

  it('ends with exit code 0 on SIGTERM', async () => {
    expect(await service.stop()).toBe(0)
  })
})

it('the test of the README passes in Vitest', { timeout: 120_000 }, async () => {
  const app = new DocApp('README.md', 'module')
  app.write()
  await app.compile()
  copyFileSync(PLAIN_CONFIG, join(app.folder, 'vitest.config.mjs'))
  const run = spawn(process.execPath, [VITEST, 'run', '--root', app.folder], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output: string[] = []
  run.stdout.on('data', chunk => output.push(String(chunk)))
  run.stderr.on('data', chunk => output.push(String(chunk)))
  const [code] = await once(run, 'exit')
  expect(code, output.join('')).toBe(0)
})

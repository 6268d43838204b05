import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { costsTable } from '../../bench/telemetry/costs.mjs'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { DocApp } from './doc-app.js'

const PAGE = 'docs/opentelemetry.md'
const page = readFileSync(fileURLToPath(new URL(`../../${PAGE}`, import.meta.url)), 'utf8')

describe(`the application of ${PAGE}`, () => {
  const app = new DocApp(PAGE)
  let broker: EmbeddedBroker
  let program: ChildProcess
  let port: number
  let output = ''

  beforeAll(async () => {
    app.write()
    await app.compile()
    broker = await EmbeddedBroker.start()
    port = await freePort()
    program = spawn(process.execPath, [app.compiled('src/main.ts')], {
      env: { ...process.env, MQTT_URL: broker.url, METRICS_PORT: String(port) },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    program.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
  })

  afterAll(async () => {
    program.kill('SIGTERM')
    if (program.exitCode === null) await once(program, 'exit')
    await broker.stop()
  })

  it('has no code without a path', () => {
    expect(app.fragments).toEqual([])
  })

  it('has the costs that the benchmark has measured', () => {
    expect(page).toContain(costsTable())
  })

  it('prints its spans', async () => {
    await eventually(() => output.includes("name: 'process rooms/+room/temperature'"))
    await eventually(() => output.includes("name: 'publish rooms/+room/temperature'"))
    expect(output).toContain('room 7: 21')
  })

  it('serves every metric and attribute that a query of the page names', async () => {
    await eventually(() => output.includes("name: 'process rooms/+room/temperature'"))
    await eventually(() => output.includes("name: 'publish rooms/+room/temperature'"))
    const scrape = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { connection: 'close' } })
    const text = await scrape.text()
    const names = [...page.matchAll(/(?:mqtt_client|messaging)_\w+|mqtt_(?:outcome|slot_state)/g)].map(
      ([name]) => name,
    )
    const served = new Set(names.filter(name => text.includes(name)))
    // Nothing is dropped here, and an age of the link needs more than one small message.
    expect([...new Set(names)].filter(name => !served.has(name))).toEqual(['mqtt_client_link_age_bucket'])
    expect(text).toContain('messaging_destination_template="rooms/+room/temperature"')
    expect(text).not.toContain('rooms/7')
  })
})

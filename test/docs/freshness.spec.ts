import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { DocApp } from './doc-app.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const page = readFileSync(join(ROOT, 'docs/freshness.md'), 'utf8')

interface Row {
  readonly link: string
  readonly load: string
  readonly transport: string
  readonly subject: string
  readonly p50Ms: number
  readonly p99Ms: number
  readonly linkUse: number
}

const { ages }: { ages: Row[] } = JSON.parse(readFileSync(join(ROOT, 'bench/results/staleness.json'), 'utf8'))
const overloaded = ages.filter(({ load, transport }) => load === '10x' && transport === 'tcp')

const seconds = (ms = Number.NaN) => `${(ms / 1_000).toFixed(1)} s`

describe('docs/freshness.md', () => {
  it.each([
    ['10KB', '10 KB/s'],
    ['50KB', '50 KB/s'],
    ['1MB', '1 MB/s'],
  ])('has the results of the last full benchmark: %s', (link, name) => {
    const of = (subject: string) => overloaded.find(row => row.link === link && row.subject === subject)
    const p99 = (subject: string) => seconds(of(subject)?.p99Ms)
    const ours = `${seconds(of('ours')?.p50Ms)} / ${p99('ours')}`
    expect(page).toContain(`| ${name} | ${ours} | ${p99('kernel')} | ${p99('mqtt')} | ${p99('paho')} |`)
  })

  it('says how much of the link is used', () => {
    const shown = overloaded.filter(({ link }) => ['10KB', '50KB', '1MB'].includes(link))
    expect(Math.min(...shown.map(({ linkUse }) => linkUse))).toBeGreaterThanOrEqual(0.998)
  })
})

describe('the code of docs/freshness.md', () => {
  const app = new DocApp('docs/freshness.md', 'module')
  let broker: EmbeddedBroker

  beforeAll(async () => {
    app.write()
    await app.compile()
    broker = await EmbeddedBroker.start()
  })
  afterAll(() => broker.stop())

  it('publishes under both policies', async () => {
    const { report } = await import(app.compiled('src/truck.ts'))
    const client = await MqttClient.connect({ url: broker.url })
    expect(await report(client, '7')).toEqual(['sent', 'acknowledged'])
    await client.close()
  })
})

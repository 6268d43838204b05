import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { DocApp, type Service } from './doc-app.js'

describe('the application of docs/health.md', () => {
  const app = new DocApp('docs/health.md')
  let brokerPort: number
  let service: Service
  let port: number

  beforeAll(async () => {
    app.write()
    await app.compile()
    brokerPort = await freePort()
    port = await freePort()
    service = await app.start(`mqtt://127.0.0.1:${brokerPort}`, port)
  })

  afterAll(() => service.stop())

  const statuses = (): Promise<number[]> =>
    Promise.all(
      ['startup', 'ready', 'live'].map(async probe => {
        const response = await fetch(`http://localhost:${port}/health/${probe}`, {
          headers: { connection: 'close' },
        })
        await response.text()
        return response.status
      }),
    )
  const become = (expected: readonly number[]): Promise<void> =>
    eventually(async () => String(await statuses()) === String(expected))

  it('responds to the three probes before, with and after the broker', async () => {
    expect(await statuses()).toEqual([503, 503, 200])
    const broker = await EmbeddedBroker.start({ port: brokerPort })
    await become([200, 200, 200])
    await broker.stop()
    await become([200, 503, 200])
  })
})

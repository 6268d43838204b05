import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { MqttClient } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { freePort } from '../support/free-port.js'
import { LonePackage } from '../support/lone-package.js'
import { DocApp } from './doc-app.js'

const PAGE = fileURLToPath(new URL('../../docs/getting-started.md', import.meta.url))

describe('the programs of docs/getting-started.md', () => {
  const app = new DocApp('docs/getting-started.md')
  let broker: EmbeddedBroker

  beforeAll(async () => {
    app.write()
    await app.compile()
    broker = await EmbeddedBroker.start()
  })
  afterAll(() => broker.stop())

  it('start a broker that a client can use', async () => {
    const port = await freePort()
    const program = app.program('broker.mjs', { BROKER_PORT: String(port) })
    await program.printed(`mqtt://127.0.0.1:${port}`)
    const client = await MqttClient.connect({ url: `mqtt://127.0.0.1:${port}` })
    expect(await client.publish('a', 1, { qos: 1 })).toMatchObject({ status: 'acknowledged' })
    await client.close()
    await program.terminate()
  })

  it('log the first message, respond to a request, and end on SIGTERM', async () => {
    const service = app.program('dist/src/main.js', { MQTT_URL: broker.url, PORT: '0', NO_COLOR: '1' })
    await service.printed('Nest application successfully started')
    await broker.deliver('rooms/kitchen/temperature', '21')
    await service.printed('kitchen: 21 °C')
    const client = await MqttClient.connect({ url: broker.url })
    expect(await client.request('rooms/kitchen/last', {})).toBe(21)
    await client.close()
    expect(await service.terminate()).toMatchObject({ code: 0 })
  })

  it('receive their own message without Nest', { timeout: 60_000 }, async () => {
    const block = docBlocks(PAGE).find(({ path }) => path === 'rooms.mjs')
    const alone = new LonePackage()
    const program = alone.start('rooms.mjs', block?.code ?? '', { env: { MQTT_URL: broker.url } })
    await program.printed('kitchen: 21 °C')
    await program.printed('acknowledged')
    expect(await program.terminate()).toMatchObject({ code: 0 })
    alone.remove()
  })
})

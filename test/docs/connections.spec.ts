import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { Authorities } from '../support/authorities.js'
import { LonePackage, type Program } from '../support/lone-package.js'
import { Mosquitto } from '../support/mosquitto.js'
import { httpProxy } from '../support/proxies.js'

const PAGE = fileURLToPath(new URL('../../docs/connections.md', import.meta.url))
const programs = docBlocks(PAGE).filter(({ language }) => language === 'js')

const files = new Authorities()
const socket = files.path('mosquitto.sock')
let alone: LonePackage
let broker: Mosquitto

beforeAll(async () => {
  alone = new LonePackage()
  broker = await Mosquitto.start({ config: [`listener 0 ${socket}`] })
}, 60_000)
afterAll(async () => {
  await broker?.stop()
  alone?.remove()
  files.remove()
})

function start(path: string, env: Readonly<Record<string, string>>): Program {
  const block = programs.find(program => program.path === path)
  if (block === undefined) throw new Error(`docs/connections.md has no program ${path}`)
  return alone.start(path, block.code, { env })
}

describe('the programs of docs/connections.md', () => {
  it('are complete files', () => {
    expect(programs.map(({ path }) => path)).toEqual(['proxied.mjs', 'local.mjs'])
  })

  it('publish through a proxy', async () => {
    const proxy = await httpProxy()
    const program = start('proxied.mjs', { MQTT_URL: broker.url, HTTPS_PROXY: `http://${proxy.host}` })
    expect(await program.ended).toMatchObject({ code: 0, output: expect.stringMatching(/^acknowledged$/m) })
    expect(proxy.requests).toHaveLength(1)
    await proxy.stop()
  })

  it('publish through a Unix socket', async () => {
    const program = start('local.mjs', { MQTT_SOCKET: socket })
    expect(await program.ended).toMatchObject({ code: 0, output: expect.stringMatching(/^acknowledged$/m) })
  })
})

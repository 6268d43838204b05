import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { MqttClient } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { freePort } from '../support/free-port.js'
import { LonePackage, type Program } from '../support/lone-package.js'

const PAGE = fileURLToPath(new URL('../../docs/client.md', import.meta.url))
const programs = docBlocks(PAGE).filter(({ language }) => language === 'ts' || language === 'js')

let alone: LonePackage
let broker: EmbeddedBroker

beforeAll(() => {
  alone = new LonePackage()
}, 60_000)
beforeEach(async () => {
  broker = await EmbeddedBroker.start()
})
afterEach(() => broker.stop())
afterAll(() => alone.remove())

function start(path: string, url = broker.url): Program {
  const block = programs.find(program => program.path === path)
  if (block === undefined) throw new Error(`docs/client.md has no program ${path}`)
  const { outputText } = ts.transpileModule(block.code, {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
  })
  return alone.start(path.replace(/\.mts$/, '-compiled.mjs'), outputText, {
    env: { MQTT_URL: url, PORT: '0' },
  })
}

describe('the programs of docs/client.md', () => {
  it('are complete files', () => {
    expect(programs.map(({ path }) => path)).toEqual([
      'publish.mjs',
      'publish.mts',
      'subscribe.mjs',
      'consumers.mjs',
      'device.mjs',
      'reconnect.mjs',
      'server.mjs',
    ])
  })

  it('publish, and exit by themselves', async () => {
    const ended = await start('publish.mjs').ended
    expect(ended).toEqual({ code: 0, output: '20.5 acknowledged\n20.9 acknowledged\n21.4 acknowledged\n' })
    expect(broker.published.map(({ topic }) => topic)).toEqual(Array(3).fill('measurements/room-7'))
  })

  it('close the client at the end of the block', async () => {
    expect(await start('publish.mts').ended).toEqual({ code: 0, output: 'acknowledged\n' })
  })

  it('subscribe until SIGTERM', async () => {
    const program = start('subscribe.mjs')
    await program.printed('listening')
    await broker.deliver('measurements/room-7', JSON.stringify({ celsius: 21 }))
    await program.printed('room-7 21')
    expect(await program.terminate()).toEqual({ code: 0, output: 'listening\nroom-7 21\nclosed\n' })
  })

  it('give each consumer the messages of its filter', async () => {
    const program = start('consumers.mjs')
    await program.printed('listening')
    await broker.deliver('rooms/7/temperature', '21')
    await broker.deliver('rooms/7/motion', 'true')
    await broker.deliver('rooms/8/motion', 'true')
    await broker.deliver('rooms/9/alarm', '"smoke"')
    for (const line of ['7 has 21 degrees', '2 motions', 'alarm in 9: smoke']) await program.printed(line)
    expect(await program.terminate()).toMatchObject({ code: 0, output: expect.stringMatching(/closed\n$/) })
  })

  it('respond to requests with a value, an error and a stream', async () => {
    const program = start('device.mjs')
    await program.printed('ready')
    const client = await MqttClient.connect({ url: broker.url })
    expect(await client.request('devices/7/status', {})).toEqual({ battery: 0.8 })
    expect(await client.request('devices/7/fan', { speed: 3 })).toBe('ok')
    await expect(client.request('devices/7/fan', { speed: 4 })).rejects.toMatchObject({
      code: 'REQUEST_FAILED',
      message: 'the speed must be at most 3, but is 4',
    })
    const samples: unknown[] = []
    for await (const sample of client.requestStream('devices/7/samples', { count: 2 })) samples.push(sample)
    expect(samples).toEqual([
      { number: 1, celsius: 20.5 },
      { number: 2, celsius: 20.5 },
    ])
    await client.close()
    expect(await program.terminate()).toMatchObject({ code: 0 })
  })

  it('start without a broker, and publish once it is available', async () => {
    const port = await freePort()
    const program = start('reconnect.mjs', `mqtt://127.0.0.1:${port}`)
    await program.printed('retrying: ')
    const late = await EmbeddedBroker.start({ port })
    const { code, output } = await program.ended
    await late.stop()
    expect(code).toBe(0)
    expect(output).toMatch(/connected\nacknowledged\nclosing\nclosed\n$/)
  })

  it('share one connection with a web server', async () => {
    const program = start('server.mjs')
    await program.printed('port ')
    const url = `http://127.0.0.1:${/port (\d+)/.exec(program.output)?.[1]}`
    const headers = { connection: 'close' }
    await broker.deliver('measurements/room-7', JSON.stringify({ celsius: 21 }))
    expect(await (await fetch(url, { headers })).json()).toEqual({ 'room-7': { celsius: 21 } })
    expect(await (await fetch(`${url}/health`, { headers })).json()).toEqual({ state: 'up', reasons: [] })
    const posted = await fetch(`${url}/room-7`, { method: 'POST', headers })
    expect({ status: posted.status, text: await posted.text() }).toEqual({
      status: 202,
      text: 'acknowledged',
    })
    expect(broker.published.at(-1)?.topic).toBe('commands/room-7')
    expect(await program.terminate()).toMatchObject({ code: 0, output: expect.stringMatching(/closed\n$/) })
  })
})

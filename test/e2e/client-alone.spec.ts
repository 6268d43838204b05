import { execFileSync } from 'node:child_process'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { LonePackage } from '../support/lone-package.js'

/** Node before 24 does not know `await using`. */
function node24(): string {
  const command = ['exec', '--yes', '--package=node@24', '--', 'node', '--print', 'process.execPath']
  return execFileSync('npm', command, { encoding: 'utf8' }).trim()
}

let broker: EmbeddedBroker
let alone: LonePackage

beforeAll(async () => {
  broker = await EmbeddedBroker.start()
  alone = new LonePackage()
}, 60_000)

afterAll(async () => {
  alone.remove()
  await broker.stop()
})

const WORK = `
  const received = client.messages('rooms/+room')
  await client.subscribe('rooms/#', () => {}).whenGranted()
  const outcome = await client.publish('rooms/7', { celsius: 21 }, { qos: 1 })
  for await (const { payload, params } of received) {
    console.log(JSON.stringify({ status: outcome.status, payload, params }))
    break
  }
`
const EXPECTED = {
  code: 0,
  output: '{"status":"acknowledged","payload":{"celsius":21},"params":{"room":"7"}}\n',
}

const AWAIT_USING = `
import { MqttClient } from 'nestjs-mqtt/client'
{
  await using client = await MqttClient.connect({ url: process.argv[2] })
  ${WORK}
}
`

describe('nestjs-mqtt/client, with nothing else installed', () => {
  it('installs neither Nest nor RxJS', () => {
    const { packages } = alone
    expect(packages).toEqual(expect.arrayContaining(['nestjs-mqtt', 'mqtt', 'mqtt-packet', 'valibot']))
    expect(packages.filter(name => /^@nestjs|^rxjs$|^reflect-metadata$|^aedes$/.test(name))).toEqual([])
  })

  it('works in an ES module, and the process exits by itself after close()', async () => {
    const code = `
      import { MqttClient } from 'nestjs-mqtt/client'
      const client = await MqttClient.connect({ url: process.argv[2] })
      ${WORK}
      await client.close()`
    expect(await alone.run('program.mjs', code, [broker.url])).toEqual(EXPECTED)
  })

  it('works in a CommonJS script, and the process exits by itself after close()', async () => {
    const code = `
      const { MqttClient } = require('nestjs-mqtt/client')
      async function main() {
        const client = await MqttClient.connect({ url: process.argv[2] })
        ${WORK}
        await client.close()
      }
      main()`
    expect(await alone.run('program.cjs', code, [broker.url])).toEqual(EXPECTED)
  })

  it('exits by itself after await using, compiled for Node 20', async () => {
    const { outputText } = ts.transpileModule(AWAIT_USING, {
      compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
    })
    expect(outputText).not.toContain('await using')
    expect(await alone.run('compiled.mjs', outputText, [broker.url])).toEqual(EXPECTED)
  })

  it('exits by itself after await using, uncompiled on Node 24', { timeout: 180_000 }, async () => {
    const program = alone.start('using.mjs', AWAIT_USING, { args: [broker.url], execPath: node24() })
    expect(await program.ended).toEqual(EXPECTED)
  })

  it('exits by itself if the first attempt fails', async () => {
    const code = `
      import { isMqttError, MqttClient } from 'nestjs-mqtt/client'
      await MqttClient.connect({ url: 'mqtt://127.0.0.1:1' }).catch(error =>
        console.log(isMqttError(error, 'CONNECT_FAILED')),
      )`
    expect(await alone.run('failing.mjs', code)).toEqual({ code: 0, output: 'true\n' })
  })

  it('loads the main entry point only with Nest', async () => {
    const ended = await alone.run('nest.mjs', `import 'nestjs-mqtt'`)
    expect(ended.code).toBe(1)
    expect(ended.output).toContain('@nestjs/')
  })
})

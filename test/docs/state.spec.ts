import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { MqttClient } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { LonePackage, type Program } from '../support/lone-package.js'
import { Mosquitto } from '../support/mosquitto.js'

const PAGE = fileURLToPath(new URL('../../docs/state.md', import.meta.url))
const programs = docBlocks(PAGE).filter(({ language }) => language === 'js')

let alone: LonePackage
let broker: Mosquitto
let client: MqttClient

beforeAll(() => {
  alone = new LonePackage()
}, 60_000)
beforeEach(async () => {
  broker = await Mosquitto.start()
  client = await MqttClient.connect({ url: broker.url })
})
afterEach(async () => {
  await client.close()
  await broker.stop()
})
afterAll(() => alone.remove())

function start(path: string): Program {
  const block = programs.find(program => program.path === path)
  if (block === undefined) throw new Error(`docs/state.md has no program ${path}`)
  return alone.start(path, block.code, { env: { MQTT_URL: broker.url } })
}

describe('the programs of docs/state.md', () => {
  it('are complete files', () => {
    expect(programs.map(({ path }) => path)).toEqual(['device.mjs', 'dashboard.mjs'])
  })

  it('announce a device until SIGTERM', async () => {
    const states: unknown[] = []
    const topic = 'devices/device-7/presence'
    await client.subscribe(topic, ({ payload }) => void states.push(payload)).whenGranted()
    const device = start('device.mjs')
    await device.printed('online')
    expect(await device.terminate()).toEqual({ code: 0, output: 'online\n' })
    await eventually(() => states.length === 2)
    expect(states).toEqual([{ state: 'online' }, { state: 'offline' }])
  })

  it('show the devices, and their changes', async () => {
    const retain = (payload: unknown) =>
      client.publish('devices/7/presence', payload, { qos: 1, retain: true })
    await retain({ state: 'online' })
    const dashboard = start('dashboard.mjs')
    await dashboard.printed('1 devices')
    await retain({ state: 'offline' })
    await dashboard.printed('offline')
    await retain(Buffer.alloc(0))
    await dashboard.printed('cleared')
    expect(await dashboard.terminate()).toEqual({
      code: 0,
      output:
        'devices/7/presence online\n1 devices\ndevices/7/presence online\ndevices/7/presence offline\ndevices/7/presence cleared\n',
    })
  })
})

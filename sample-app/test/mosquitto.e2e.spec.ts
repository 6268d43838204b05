import { once } from 'node:events'
import { connect } from 'node:net'
import { connectAsync, type MqttClient } from 'mqtt'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.js'
import { Mosquitto } from '../../test/support/mosquitto.js'
import { Sample } from './sample.js'

const ALARMS = 40
const Alarms = v.array(v.looseObject({ alarmId: v.string(), truckId: v.string(), handledBy: v.string() }))
const Trucks = v.array(v.looseObject({ celsius: v.optional(v.number()) }))

let sample: Sample
let client: MqttClient

beforeAll(async () => {
  sample = await Sample.start({ TRUCKS: '4' }, ['--mosquitto'])
  await eventually(() => sample.output().includes('operations-2 listens on'))
  client = await connectAsync(sample.brokerUrl, { protocolVersion: 5 })
}, 120_000)

afterAll(async () => {
  await client?.endAsync(true)
  sample?.kill()
})

it('two instances share the alarms on MQTT 5, and both know all of them', async () => {
  for (let number = 1; number <= ALARMS; number += 1) {
    const alarm = { alarmId: `a-${number}`, atMs: Date.now(), kind: 'door-open', celsius: -18 }
    await client.publishAsync('trucks/visitor/alarms', JSON.stringify(alarm), { qos: 1 })
  }
  const recorded = async () => {
    const alarms = v.parse(Alarms, await sample.json('/alarms'))
    return alarms.filter(({ truckId }) => truckId === 'visitor')
  }
  await eventually(async () => (await recorded()).length === ALARMS)
  const handlers = new Set((await recorded()).map(({ handledBy }) => handledBy))
  expect([...handlers].toSorted()).toEqual(['operations-1', 'operations-2'])
  expect(await sample.json('/demo')).toMatchObject({ protocolVersion: 5, isEmbedded: false })
})

it('ends all of its processes on SIGINT', async () => {
  expect(await sample.interrupt()).toEqual([0, null])
  // The broker ends after the process that uses it.
  await eventually(async () => !(await isListening(sample.brokerUrl)))
})

it('runs with its trucks on a broker of your own, which it leaves running', async () => {
  const broker = await Mosquitto.start()
  sample = await Sample.start({ MQTT_URL: broker.url, TRUCKS: '4' })
  const trucks = async () => v.parse(Trucks, await sample.json('/trucks'))
  await eventually(async () => (await trucks()).filter(({ celsius }) => celsius !== undefined).length === 4)
  expect(await sample.json('/demo')).toMatchObject({ isEmbedded: false })
  const response = await sample.post('/trucks/truck-4/set-point', { celsius: -25 })
  expect([response.status, await response.json()]).toEqual([200, { setPointCelsius: -25 }])
  expect(sample.output()).toContain(`${new URL(broker.url).host} (MQTT 5)`)
  expect(await sample.interrupt()).toEqual([0, null])
  expect(await isListening(broker.url)).toBe(true)
  await broker.stop()
})

async function isListening(url: string): Promise<boolean> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  const isOpen = await once(socket, 'connect').then(
    () => true,
    () => false,
  )
  socket.destroy()
  return isOpen
}

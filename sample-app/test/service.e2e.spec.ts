import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectAsync, type MqttClient } from 'mqtt'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.js'
import { Sample } from './sample.js'

const Trucks = v.array(
  v.looseObject({ truckId: v.string(), isOnline: v.boolean(), ageMs: v.optional(v.number()) }),
)

const DATA_FOLDER = mkdtempSync(join(tmpdir(), 'cold-chain-data-'))
let sample: Sample
let client: MqttClient

beforeAll(async () => {
  sample = await Sample.start({ TRUCKS: '5', DATA_FOLDER })
  client = await connectAsync(sample.brokerUrl, { protocolVersion: 4 })
})

afterAll(async () => {
  await client?.endAsync(true)
  sample?.kill()
  rmSync(DATA_FOLDER, { recursive: true, force: true })
})

const trucks = async () => v.parse(Trucks, await sample.json('/trucks'))

it('shows every truck with its position, temperature, door, set point and presence', async () => {
  await eventually(async () => (await trucks()).filter(({ ageMs }) => ageMs !== undefined).length === 5)
  expect(await sample.json('/trucks/truck-5')).toEqual({
    truckId: 'truck-5',
    isOnline: true,
    door: expect.stringMatching(/^(open|closed)$/),
    setPointCelsius: -18,
    celsius: expect.any(Number),
    latitude: expect.any(Number),
    longitude: expect.any(Number),
    ageMs: expect.any(Number),
  })
})

it('serves the page, and everything that the page loads', async () => {
  for (const path of [
    '/',
    '/app.js',
    '/charts.js',
    '/style.css',
    '/uplot/uPlot.esm.js',
    '/uplot/uPlot.min.css',
  ]) {
    const response = await fetch(`${sample.url}${path}`)
    expect([path, response.status]).toEqual([path, 200])
  }
})

it('is healthy, and says so to each probe', async () => {
  for (const path of ['/health', '/health/startup', '/health/live'])
    expect(await sample.json(path)).toMatchObject({ status: 'ok', info: { mqtt: { state: 'up' } } })
})

it('serves metrics for Prometheus', async () => {
  const text = await (await fetch(`${sample.url}/metrics`)).text()
  expect(text).toMatch(/^mqtt_client_deliveries_total\{.*trucks\/\+truckId\/telemetry.*\} \d+/m)
})

it('serves an AsyncAPI document of its topics', async () => {
  const Document = v.object({ operations: v.record(v.string(), v.unknown()) })
  const { operations } = v.parse(Document, await sample.json('/asyncapi-json'))
  expect(Object.keys(operations).toSorted()).toEqual([
    'AlarmsController.onAlarm',
    'AlarmsController.onDeadAlarm',
    'AlarmsController.onRecorded',
    'TelemetryController.onTelemetry',
    'send.operations.alarm-log',
    'send.trucks.truckId.commands.set-point',
  ])
})

it('sends a command to a truck, and responds with its response', async () => {
  const response = await sample.post('/trucks/truck-5/set-point', { celsius: -25 })
  expect([response.status, await response.json()]).toEqual([200, { setPointCelsius: -25 }])
  await eventually(async () =>
    JSON.stringify(await sample.json('/trucks/truck-5')).includes('"setPointCelsius":-25'),
  )
})

it('refuses a command that no truck could follow, and a truck that it does not know', async () => {
  expect((await sample.post('/trucks/truck-5/set-point', { celsius: 'cold' })).status).toBe(422)
  expect((await sample.post('/trucks/nobody/set-point', { celsius: -25 })).status).toBe(404)
})

it('records an alarm once, although it arrives twice', async () => {
  const alarm = JSON.stringify({ alarmId: 'a-1', atMs: Date.now(), kind: 'door-open', celsius: -18 })
  await client.publishAsync('trucks/visitor/alarms', alarm, { qos: 1 })
  await client.publishAsync('trucks/visitor/alarms', alarm, { qos: 1 })
  const mine = async () => {
    const all = v.parse(v.array(v.looseObject({ truckId: v.string() })), await sample.json('/alarms'))
    return all.filter(({ truckId }) => truckId === 'visitor')
  }
  await eventually(async () => (await mine()).length > 0)
  expect(await mine()).toMatchObject([{ alarmId: 'a-1', handledBy: 'operations-1' }])
})

it('moves an alarm that it cannot read to the dead letters', async () => {
  const letters: string[] = []
  client.on('message', (topic, payload) => {
    if (topic === 'operations/dead-alarms') letters.push(payload.toString())
  })
  await client.subscribeAsync('operations/dead-alarms', { qos: 1 })
  await client.publishAsync('trucks/visitor/alarms', '{"alarmId":7}', { qos: 1 })
  await eventually(() => letters.length === 1)
  expect(letters[0]).toContain('alarmId')
  // The service logs its own copy of the letter, which may arrive after ours.
  await eventually(() => sample.output().includes('dead letter 1 has'))
})

it('ends by itself on SIGINT, without a warning', async () => {
  const before = sample.output()
  expect(await sample.interrupt()).toEqual([0, null])
  expect(sample.output().slice(before.length)).toBe('')
})

it('still has its alarms when it is started again', async () => {
  sample = await Sample.start({ TRUCKS: '0', DATA_FOLDER })
  const alarms = v.parse(v.array(v.looseObject({ alarmId: v.string() })), await sample.json('/alarms'))
  expect(alarms.filter(({ alarmId }) => alarmId === 'a-1')).toMatchObject([
    { truckId: 'visitor', kind: 'door-open', celsius: -18, handledBy: 'operations-1' },
  ])
  expect(await sample.interrupt()).toEqual([0, null])
})

import 'reflect-metadata'
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { INestApplication } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { MicroserviceOptions } from '@nestjs/microservices'
import type { MqttClient as PlainClient } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { MqttModule } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { alarm, calibration, energy, limit, telemetry } from '../first-day/contracts.js'
import * as builtIn from '../first-day/with-built-in-transport.js'
import { ColdChain, coldChain } from '../first-day/with-nestjs-mqtt.js'
import { eventually } from '../support/eventually.js'
import { CollectingLogger } from '../support/nest-app.js'

let broker: EmbeddedBroker
let app: INestApplication
let device: MqttClient
let logger: CollectingLogger

async function ready(path = 'ready'): Promise<number> {
  const response = await fetch(`${await app.getUrl()}/health/${path}`, { headers: { connection: 'close' } })
  await response.text()
  return response.status
}

describe('one application with everything of the first day', () => {
  beforeEach(async () => {
    broker = await EmbeddedBroker.start()
    // The session of an earlier version of the service, with a subscription that no handler has now.
    await using earlier = await MqttClient.connect({ url: broker.url, clientId: 'cold-chain', clean: false })
    await earlier.subscribe('legacy/#', () => {}, { qos: 1 }).whenGranted()
    device = await MqttClient.connect({ url: broker.url, reconnect: { delayMs: [10] } })
    await device.publish(limit.at({ deviceId: 'freezer' }), { celsius: -18 })
    logger = new CollectingLogger()
    await earlier.close()
    app = await NestFactory.create(coldChain(broker.url), { logger, abortOnError: false })
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
    await app.init()
    await app.startAllMicroservices()
    await app.listen(0)
  })

  afterEach(async () => {
    await device.close()
    await app.close()
    await broker.stop()
  })

  const service = () => app.get(ColdChain)

  it('raises an alarm above the retained limit of a device, or above the default', async () => {
    const alarms: unknown[] = []
    await device
      .subscribe(alarm, ({ params, payload }) => alarms.push([params.deviceId, payload]))
      .whenGranted()
    await broker.deliver(telemetry.at({ deviceId: 'freezer' }).topic, { celsius: -10 })
    await broker.deliver(telemetry.at({ deviceId: 'fridge' }).topic, { celsius: 7 })
    await broker.deliver(telemetry.at({ deviceId: 'fridge' }).topic, { celsius: 9 })
    await eventually(() => alarms.length === 2)
    expect(alarms).toEqual([
      ['freezer', { celsius: -10 }],
      ['fridge', { celsius: 9 }],
    ])
  })

  it('sends an invalid payload to the dead letter topic with the path, and without the value', async () => {
    await broker.deliver(telemetry.at({ deviceId: 'fridge' }).topic, { celsius: 'secret' })
    const letter = await broker.nextMessage('dead/telemetry')
    const { reason } = JSON.parse(letter.payload.toString())
    expect(reason).toContain('celsius')
    expect(reason).not.toContain('secret')
    expect(logger.ofMqtt.some(line => line.includes('celsius'))).toBe(true)
  })

  it('rejects an invalid payload of the device with its path, before it is sent', async () => {
    const topic = telemetry.at({ deviceId: 'fridge' })
    // @ts-expect-error a text is no temperature
    const publishing = device.publish(topic, { celsius: 'warm' })
    await expect(publishing).rejects.toMatchObject({
      code: 'PAYLOAD_INVALID',
      issues: [{ path: 'celsius' }],
    })
  })

  it('responds to a request with the typed response of the contract', async () => {
    const { offset } = await device.request(calibration.at({ deviceId: 'fridge' }), { celsius: 2 })
    expect(offset).toBe(-2)
  })

  it('stores readings in batches', async () => {
    await Promise.all(
      Array.from({ length: 12 }, (_, index) =>
        broker.deliver(energy.at({ meterId: String(index) }).topic, { kWh: index }),
      ),
    )
    expect(service().rows).toEqual(Array.from({ length: 12 }, (_, index) => [String(index), index]))
  })

  it('receives messages of a subscription that it no longer has', async () => {
    await broker.deliver('legacy/1', 'old')
    expect(service().unmatched).toEqual(['legacy/1'])
  })

  it('follows the connection, its session, its health and its presence', async () => {
    const states: unknown[] = []
    device.subscribe('services/cold-chain', ({ payload }) => states.push(payload))
    expect([await ready(), await ready('live')]).toEqual([200, 200])
    await eventually(() => states.includes('up'))
    const { port } = new URL(broker.url)
    await broker.stop()
    expect([await ready(), await ready('live')]).toEqual([503, 200])
    broker = await EmbeddedBroker.start({ port: Number(port) })
    await eventually(() => service().connection.length === 4)
    expect(service().connection.toSorted()).toEqual([
      'connected',
      'connected',
      expect.stringMatching(/^disconnected: CONNECTION_/),
      'session lost',
    ])
    await device.whenConnected()
    await app.close()
    await eventually(() => states.at(-1) === 'down')
  })
})

describe('the same application on the built-in transport', () => {
  beforeEach(async () => {
    broker = await EmbeddedBroker.start()
    device = await MqttClient.connect({ url: broker.url })
    app = await NestFactory.create(builtIn.coldChain(broker.url), { logger: new CollectingLogger() })
    const server = app.connectMicroservice<MicroserviceOptions>(builtIn.optionsOf(broker.url))
    await app.startAllMicroservices()
    app.get(builtIn.Connection).watch(server.unwrap<PlainClient>())
    await app.listen(0)
  })

  afterEach(async () => {
    await device.close()
    await app.close()
    await broker.stop()
  })

  it('raises an alarm, stores readings, and reports its health', async () => {
    const alarms: unknown[] = []
    await device.subscribe('devices/+/alarm', ({ payload }) => alarms.push(payload)).whenGranted()
    await device.publish('devices/fridge/telemetry', { celsius: 9 }, { qos: 1 })
    for (let index = 0; index < 12; index += 1)
      await device.publish(`meters/${index}/energy`, { kWh: index }, { qos: 1 })
    await eventually(() => alarms.length === 1 && app.get(builtIn.EnergyBatch).rows.length === 12)
    expect(app.get(builtIn.EnergyBatch).rows.at(-1)).toEqual(['11', 11])
    expect([await ready(), await ready('live')]).toEqual([200, 200])
  })
})

it('the application takes fewer own lines than on the built-in transport and on nest-mqtt', () => {
  const script = fileURLToPath(new URL('../../scripts/lines.mjs', import.meta.url))
  const rows = execFileSync(process.execPath, [script], { encoding: 'utf8' }).matchAll(
    /^\| (.*?) \| (\d+) \|/gm,
  )
  const [ours, ...others] = [...rows].map(([, , lines]) => Number(lines))
  expect(others).toHaveLength(2)
  expect(Math.min(...others)).toBeGreaterThan(ours ?? Number.POSITIVE_INFINITY)
})

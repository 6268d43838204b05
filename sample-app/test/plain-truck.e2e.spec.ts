import { EmbeddedBroker, FaultLink } from 'nestjs-mqtt/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.js'
import { Cargo } from '../src/truck/cargo.js'
import { PlainTruck } from '../src/truck/plain-truck.js'

let broker: EmbeddedBroker
let link: FaultLink

beforeAll(async () => {
  broker = await EmbeddedBroker.start()
  link = await FaultLink.start({ port: Number(new URL(broker.url).port) })
})

afterAll(async () => {
  await link.stop()
  await broker.stop()
})

it('prints no warning while thousands of readings wait for a slow link', async () => {
  const warnings: string[] = []
  const note = ({ message }: Error) => warnings.push(message)
  process.on('warning', note)
  const cargo = new Cargo(-20)
  const truck = new PlainTruck({ truckId: 'truck-3', url: link.url, cargo })
  await eventually(() => truck.isConnected)
  link.throttle(1_000)
  // The first ones fill the buffers of the operating system.
  for (let number = 1; number <= 10_000; number += 1)
    truck.publishReading({ number, atMs: Date.now(), ...cargo.measure() })
  expect(truck.readings.counts.pending).toBeGreaterThan(1_000)
  await new Promise(resolve => setImmediate(resolve))
  await truck.close()
  process.off('warning', note)
  expect(warnings).toEqual([])
})

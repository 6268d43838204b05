import 'reflect-metadata'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Controller } from '@nestjs/common'
import { MessagePattern, Payload } from '@nestjs/microservices'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isMqttError, type MqttModuleOptions, type MqttService } from '../../src/index.js'
import { FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'
import { SeededRandom } from '../support/seeded-random.js'

const REQUESTS = 10_000
const AT_ONCE = 50
const BETWEEN_CUTS = 500
const CUTS = REQUESTS / BETWEEN_CUTS - 1
const SEED = 20_261_121

@Controller()
class EchoController {
  @MessagePattern('echo/+')
  async echo(@Payload() value: unknown): Promise<unknown> {
    await nextTurn()
    return value
  }
}

interface Settled {
  readonly index: number
  readonly responses: readonly unknown[]
  /** The code of its error. */
  readonly code: string | undefined
}

async function ask(mqtt: MqttService, index: number): Promise<Settled> {
  const responses: unknown[] = []
  try {
    for await (const response of mqtt.requestStream(`echo/${index % 7}`, { index }, { qos: 1 }))
      responses.push(response)
    return { index, responses, code: undefined }
  } catch (error) {
    if (!isMqttError(error)) throw error
    return { index, responses, code: error.code }
  }
}

function askAll(mqtt: MqttService, settled: Settled[]): Promise<unknown> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < REQUESTS) {
      const index = next
      next += 1
      await mqtt.whenConnected()
      settled.push(await ask(mqtt, index))
    }
  }
  return Promise.all(Array.from({ length: AT_ONCE }, worker))
}

let broker: Mosquitto
beforeAll(async () => {
  broker = await Mosquitto.start({ config: ['max_queued_messages 0', 'max_inflight_messages 0'] })
})
afterAll(() => broker.stop())

const RECONNECT = { reconnect: { delayMs: [5] } }
const ASKING: readonly [string, MqttModuleOptions][] = [
  ['a session of its own, on MQTT 5', { protocolVersion: 5 }],
  ['a kept session, on MQTT 5', { protocolVersion: 5, clean: false, clientId: 'asking' }],
  ['a session of its own, on MQTT 3.1.1', { protocolVersion: 4 }],
]

it.each(ASKING)(
  '10,000 requests on a link that is cut every 500: %s',
  {
    timeout: 40_000,
  },
  async (_name, options) => {
    const random = new SeededRandom(SEED)
    const link = await FaultLink.start({ port: broker.port })
    const responder = await startMicroservice({ url: broker.url }, { controllers: [EchoController] })
    const { app, mqtt } = await startMicroservice({ ...options, ...RECONNECT, url: link.url }, {})
    const settled: Settled[] = []
    const all = askAll(mqtt, settled)
    for (let cut = 1; cut <= CUTS; cut += 1) {
      const moment = cut * BETWEEN_CUTS - random.below(BETWEEN_CUTS / 2)
      await eventually(() => settled.length >= moment)
      for (let turns = random.below(6); turns > 0; turns -= 1) await nextTurn()
      link.cut()
    }
    await all
    expect(mqtt.stats().connection.losses).toBe(CUTS)
    expect(settled.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: REQUESTS }, (_, index) => index),
    )
    const responded = settled.filter(({ code }) => code === undefined)
    const failed = settled.filter(({ code }) => code !== undefined)
    expect(responded.filter(({ index, responses }) => !isOnly(responses, index))).toEqual([])
    expect(failed.filter(({ code }) => code !== 'CONNECTION_LOST')).toEqual([])
    expect(
      failed.filter(({ index, responses }) => responses.length > 0 && !isOnly(responses, index)),
    ).toEqual([])
    expect(failed.length).toBeGreaterThan(0)
    expect(failed.length).toBeLessThanOrEqual(CUTS * AT_ONCE)
    await eventually(() => mqtt.stats().outbound.inFlight === 0)
    expect(mqtt.stats().requests.open).toBe(0)
    await app.close()
    await responder.app.close()
    await link.stop()
  },
)

function isOnly(responses: readonly unknown[], index: number): boolean {
  const [response] = responses
  const isOwn =
    typeof response === 'object' && response !== null && 'index' in response && response.index === index
  return responses.length === 1 && isOwn
}

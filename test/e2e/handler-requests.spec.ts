import 'reflect-metadata'
import { Controller, Inject } from '@nestjs/common'
import { EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import { connectAsync } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { handle, isMqttError, MqttService } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

const got: number[] = []
const failed: unknown[] = []

@Controller()
class RequestingController {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  @EventPattern<string>('events/+')
  async event(@Payload() value: number): Promise<void> {
    try {
      got.push(await this.mqtt.request<number>('double', value, { timeoutMs: 20_000 }))
    } catch (error) {
      failed.push(error)
    }
  }

  @EventPattern<string>('certain-events/+')
  async certain(@Payload() value: number): Promise<void> {
    try {
      got.push(await this.mqtt.request<number>('certain-double', value, { timeoutMs: 20_000, qos: 1 }))
    } catch (error) {
      failed.push(error)
    }
  }

  @MessagePattern<string>('certain-double', handle({ qos: 1 }))
  certainDouble(@Payload() value: number): number {
    return 2 * value
  }

  @MessagePattern<string>('double')
  double(@Payload() value: number): number {
    return 2 * value
  }
}

const CASES = ([4, 5] as const).flatMap(protocolVersion =>
  ([0, 1] as const).flatMap(qos => [16, 40, 400].map(count => ({ protocolVersion, qos, count }))),
)

describe('handlers that request a handler on their own connection, on mosquitto', () => {
  let broker: Mosquitto
  beforeAll(async () => {
    broker = await Mosquitto.start()
  })
  afterAll(() => broker.stop())

  it.each(CASES)(
    'all receive their responses: $count events at QoS $qos, MQTT $protocolVersion',
    async ({ protocolVersion, qos, count }) => {
      got.length = 0
      failed.length = 0
      const { app, mqtt } = await startMicroservice(
        { url: broker.url, protocolVersion },
        { controllers: [RequestingController] },
      )
      const other = await connectAsync(broker.url)
      for (let n = 0; n < count; n += 1) other.publish(`events/${n}`, JSON.stringify(n), { qos })
      await eventually(() => got.length + failed.length === count)
      expect(failed).toEqual([])
      expect([...got].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, n) => 2 * n))
      expect(mqtt.stats().inbound.dropped).toBe(0)
      await other.endAsync()
      await app.close()
    },
    30_000,
  )

  it.each(
    ([4, 5] as const).flatMap(protocolVersion =>
      ['events', 'certain-events'].flatMap(events =>
        [16, 40, 400].map(count => ({ protocolVersion, events, count })),
      ),
    ),
  )(
    'get their responses at QoS 1, or fail as REQUEST_BLOCKED: $count $events, MQTT $protocolVersion',
    async ({ protocolVersion, events, count }) => {
      got.length = 0
      failed.length = 0
      const { app } = await startMicroservice(
        { url: broker.url, protocolVersion, requests: { responseQos: 1 } },
        { controllers: [RequestingController] },
      )
      const other = await connectAsync(broker.url)
      for (let n = 0; n < count; n += 1) other.publish(`${events}/${n}`, JSON.stringify(n), { qos: 1 })
      await eventually(() => got.length + failed.length === count)
      expect(failed.filter(error => !isMqttError(error, 'REQUEST_BLOCKED'))).toEqual([])
      await other.endAsync()
      await app.close()
    },
    60_000,
  )
})

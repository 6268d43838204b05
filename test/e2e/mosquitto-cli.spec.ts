import 'reflect-metadata'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { Controller, Inject } from '@nestjs/common'
import { EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fillTopic, MqttService, TopicParam } from '../../src/index.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

@Controller()
class ColdChainController {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  @EventPattern<string>('trucks/+truckId/temperature')
  async onTemperature(@Payload() celsius: number, @TopicParam('truckId') truckId: string): Promise<void> {
    if (celsius > 5)
      await this.mqtt.publish(fillTopic('trucks/+truckId/alarm', { truckId }), { celsius }, { qos: 1 })
  }

  @MessagePattern('trucks/+truckId/limit')
  limit(): { celsius: number } {
    return { celsius: 5 }
  }
}

let broker: Mosquitto
beforeAll(async () => {
  broker = await Mosquitto.start()
})
afterAll(() => broker.stop())

const args = (version: string) => ['-h', '127.0.0.1', '-p', String(broker.port), '-V', version]

/**
 * mosquitto_sub, from the moment on at which the broker has granted its subscriptions: a retained message on the
 * second one tells.
 */
async function subscriber(version: string, topic: string) {
  await publish(version, 'ready', 'yes', ['-r'])
  const child = spawn('mosquitto_sub', [
    ...args(version),
    '-t',
    topic,
    '-t',
    'ready',
    '-q',
    '1',
    '-C',
    '2',
    '-v',
  ])
  const lines: string[] = []
  const closed = once(child, 'close')
  const reader = createInterface({ input: child.stdout })
  reader.on('line', line => lines.push(line))
  await once(reader, 'line')
  const message = async (): Promise<string> => {
    await closed
    return lines.at(-1) ?? ''
  }
  return { message }
}

async function publish(version: string, topic: string, payload: string, more: string[] = []): Promise<void> {
  const child = spawn('mosquitto_pub', [...args(version), '-t', topic, '-m', payload, '-q', '1', ...more], {
    stdio: 'ignore',
  })
  const [code]: unknown[] = await once(child, 'exit')
  expect(code).toBe(0)
}

describe.each([
  ['mqttv5', 5 as const],
  ['mqttv311', 4 as const],
])('mosquitto_pub and mosquitto_sub with %s', (version, protocolVersion) => {
  it('a publish reaches the handler, and the alarm reaches the subscriber', async () => {
    const { app, mqtt } = await startMicroservice(
      { url: broker.url, protocolVersion },
      { controllers: [ColdChainController] },
    )
    const alarm = await subscriber(version, 'trucks/+/alarm')
    await publish(version, 'trucks/7/temperature', '4.5')
    await publish(version, 'trucks/7/temperature', '8.5')
    expect(await alarm.message()).toContain('trucks/7/alarm {"celsius":8.5}')
    expect(mqtt.stats()).toMatchObject({
      inbound: { received: 2, handled: 2, failed: 0 },
      outbound: { acknowledged: 1 },
    })
    await app.close()
  })
})

it('mosquitto_rr gets the response of a @MessagePattern handler, on MQTT 5', async () => {
  const { app } = await startMicroservice({ url: broker.url }, { controllers: [ColdChainController] })
  const child = spawn('mosquitto_rr', [
    ...args('mqttv5'),
    '-t',
    'trucks/7/limit',
    '-e',
    'responses/1',
    '-m',
    'null',
    '-q',
    '1',
  ])
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(child, 'close')
  expect(Buffer.concat(chunks).toString().trim()).toBe('{"celsius":5}')
  await app.close()
})

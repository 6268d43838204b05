import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { EventPattern, MessagePattern, Payload, Transport } from '@nestjs/microservices'
import { expect, it } from 'vitest'
import { handle, type MqttModuleOptions } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { startMicroservice } from '../support/nest-app.js'
import { json } from '../support/subscriber-on-peer.js'

const running: unknown[] = []
const held = { gate: new Gate() }

@Controller()
class MixedController {
  @EventPattern('event')
  async onEvent(@Payload() value: unknown): Promise<void> {
    running.push(value)
    await held.gate.pass()
  }

  @MessagePattern('request')
  async onRequest(@Payload() value: unknown): Promise<unknown> {
    running.push(value)
    await held.gate.pass()
    return value
  }

  @MessagePattern('ordered', Transport.MQTT, handle({ order: 'topic', qos: 1 }))
  async onOrdered(@Payload() value: unknown): Promise<unknown> {
    running.push(value)
    await held.gate.pass()
    return value
  }
}

async function mixedApp(options: MqttModuleOptions = {}) {
  running.length = 0
  held.gate = new Gate()
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    { createStream: peer.createStream, protocolVersion: 5, keepalive: 0, drainTimeoutMs: 10, ...options },
    { controllers: [MixedController] },
  )
  const connection = await peer.accept()
  const asked = new Map<string, number>()
  for (let filter = 0; filter < 3; filter += 1)
    for (const { topic, qos } of (await connection.grant()).subscriptions) asked.set(topic, qos)
  return { connection, asked, ...(await starting) }
}

const ask = (topic: string, index: number) =>
  json(topic, index, { properties: { responseTopic: 'responses', correlationData: Buffer.from([index]) } })

it('requests are delivered at QoS 0 and events at QoS 1, unless the handler sets another QoS', async () => {
  const { app, asked } = await mixedApp()
  expect(Object.fromEntries(asked)).toEqual({ event: 1, request: 0, ordered: 1 })
  await app.close()
})

it('requests on one topic run concurrently, events on one topic one at a time', async () => {
  const { app, connection } = await mixedApp({ inbound: { concurrency: 100 } })
  for (let index = 0; index < 3; index += 1) {
    connection.send(json('event', index))
    connection.send(ask('ordered', index))
  }
  for (let index = 0; index < 20; index += 1) connection.send(ask('request', index))
  await eventually(() => running.length === 22)
  held.gate.open()
  await eventually(() => publishesOf(connection).length === 23)
  expect(running).toHaveLength(26)
  await app.close()
})

it('the topic of responses is subscribed at requests.responseQos', async () => {
  const { app, connection, mqtt } = await mixedApp({ requests: { responseQos: 1, timeoutMs: 60_000 } })
  const asked = Promise.allSettled([mqtt.request('a', 1), mqtt.request('a', 1, { protocol: 'nest' })])
  expect((await connection.grant()).subscriptions[0]?.qos).toBe(1)
  expect((await connection.find('subscribe')).subscriptions[0]?.qos).toBe(1)
  await app.close()
  await asked
})

import { Controller, type INestMicroservice } from '@nestjs/common'
import { EventPattern, Payload } from '@nestjs/microservices'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { CuttableLink } from '../support/cuttable-link.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

const EXPIRY_SECONDS = 3_600

let broker: Mosquitto
let publisher: MqttClient
let handled: { readonly by: string; readonly number: number }[]
let apps: INestMicroservice[]

beforeEach(async () => {
  broker = await Mosquitto.start()
  publisher = await MqttClient.connect({ url: broker.url })
  handled = []
  apps = []
})
afterEach(async () => {
  await Promise.all(apps.map(app => app.close()))
  await publisher.close()
  await broker.stop()
})

interface MemberOptions {
  readonly gate?: Gate
  readonly expirySeconds?: number
  readonly reconnectMs?: number
}

/** A service of the group, with a persistent session and a Client Identifier of its own. */
async function startMember(name: string, options: MemberOptions = {}) {
  const { gate, expirySeconds = EXPIRY_SECONDS, reconnectMs = 60_000 } = options
  let isKilled = false

  @Controller()
  class ReadingsController {
    @EventPattern<string>('devices/+/reading')
    async onReading(@Payload() number: number): Promise<void> {
      await gate?.pass()
      if (!isKilled) handled.push({ by: name, number })
    }
  }

  const link = new CuttableLink(broker.port)
  const { app, logger } = await startMicroservice(
    {
      createStream: link.createStream,
      protocolVersion: 5,
      clientId: name,
      clean: false,
      properties: { sessionExpiryInterval: expirySeconds },
      sharedGroup: 'services',
      reconnect: { delayMs: [reconnectMs] },
      drainTimeoutMs: 2_000,
    },
    { controllers: [ReadingsController] },
  )
  apps.push(app)
  /** Acts like `kill -9`: what its handlers do from now on is ignored, and it sends nothing. */
  const kill = (): void => {
    isKilled = true
    link.cut()
    gate?.open()
  }
  return { app, logger, kill }
}

/** Publishes these numbers at QoS 1, and expects that the broker acknowledges each of them. */
async function publish(from: number, to: number): Promise<void> {
  for (let number = from; number < to; number += 1) {
    const outcome = await publisher.publish(`devices/${number % 10}/reading`, number, { qos: 1 })
    expect(outcome).toMatchObject({ status: 'acknowledged' })
  }
}

const numbersBelow = (count: number) => Array.from({ length: count }, (_, number) => number)
const numbersOf = (name: string) => handled.filter(({ by }) => by === name).map(({ number }) => number)
const distinct = () => [...new Set(handled.map(({ number }) => number))].sort((a, b) => a - b)

it('a shared group handles every acknowledged message while one service is killed and returns, and another is added', async () => {
  const gate = new Gate()
  const first = await startMember('first', { gate })
  await startMember('second')
  await publish(0, 60)
  await gate.reached()
  first.kill()
  await publish(60, 80)
  await startMember('third')
  await publish(80, 120)
  expect(numbersOf('first')).toEqual([])
  await startMember('first')
  await publish(120, 140)
  await eventually(() => distinct().length === 140)
  expect(distinct()).toEqual(numbersBelow(140))
  expect(handled).toHaveLength(140)
  for (const name of ['first', 'second', 'third']) expect(numbersOf(name)).not.toEqual([])
})

it('a service that drains and returns with its Client Identifier receives what the broker stored for it meanwhile', async () => {
  const first = await startMember('first')
  await startMember('second')
  await publish(0, 20)
  await first.app.close()
  await publish(20, 60)
  await eventually(() => distinct().length === 40)
  const stored = numbersBelow(60).filter(number => !distinct().includes(number))
  await startMember('first')
  await eventually(() => distinct().length === 60)
  expect(stored).toHaveLength(20)
  expect(numbersOf('first').slice(-20)).toEqual(stored)
})

it('a service leaves the group without a loss if it resumes its session once with an expiry of 0', async () => {
  const first = await startMember('first')
  await startMember('second')
  await first.app.close()
  await publish(0, 40)
  const leaving = await startMember('first', { expirySeconds: 0 })
  await eventually(() => distinct().length === 40)
  await leaving.app.close()
  await publish(40, 60)
  await eventually(() => distinct().length === 60)
  expect(numbersOf('second').slice(-20)).toEqual(numbersBelow(60).slice(40))
  expect(handled).toHaveLength(60)
})

it('mosquitto acknowledges what it drops for an absent member whose queue is full', async () => {
  await broker.stop()
  broker = await Mosquitto.start({ config: ['max_queued_messages 10'] })
  await publisher.close()
  publisher = await MqttClient.connect({ url: broker.url })
  const first = await startMember('first')
  await startMember('second')
  await first.app.close()
  await publish(0, 80)
  await startMember('first')
  await publish(80, 82)
  await eventually(() => distinct().includes(80) && distinct().includes(81))
  const ofFirst = numbersOf('first').filter(number => number < 80)
  expect(ofFirst.length).toBeLessThan(40)
  expect(numbersOf('second').filter(number => number < 80)).toHaveLength(40)
})

it('two services with one Client Identifier disconnect each other, and the log says so', async () => {
  const reconnectMs = 20
  await startMember('same', { reconnectMs })
  // Nest has one logger, the one of the latest application.
  const { logger } = await startMember('same', { reconnectMs })
  const warning =
    'warn [Mqtt] 3 consecutive connections ended early: is the Client Identifier "same" in use by another client?'
  await eventually(() => logger.ofMqtt.filter(line => line === warning).length === 2)
})

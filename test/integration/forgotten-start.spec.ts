import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern } from '@nestjs/microservices'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { MqttModule } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { appModule, CollectingLogger } from '../support/nest-app.js'

const GRACE_MS = 10_000

@Controller()
class EventController {
  @EventPattern<string>('in')
  on(): void {}
}

let broker: EmbeddedBroker
beforeEach(async () => {
  broker = await EmbeddedBroker.start()
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
})
afterEach(async () => {
  vi.useRealTimers()
  await broker.stop()
})

async function warningsOf(isStarted: boolean): Promise<string[]> {
  const logger = new CollectingLogger()
  const app = await NestFactory.create(appModule({ url: broker.url }, { controllers: [EventController] }), {
    logger,
  })
  app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
  await app.init()
  if (isStarted) await app.startAllMicroservices()
  vi.advanceTimersByTime(GRACE_MS)
  vi.useRealTimers()
  await app.close()
  return logger.ofMqtt.filter(line => line.startsWith('warn'))
}

describe('an application that connects the microservice', () => {
  it('is warned after 10 s if it has not started its microservices', async () => {
    expect(await warningsOf(false)).toEqual([
      'warn [MqttModule] the handlers of this connection do not run: connectMicroservice() was called, but not app.startAllMicroservices()',
    ])
  })

  it('is not warned if it has started them', async () => {
    expect(await warningsOf(true)).toEqual([])
  })
})

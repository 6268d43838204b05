import 'reflect-metadata'
import { Controller, type INestApplication, type PipeTransform } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, Payload } from '@nestjs/microservices'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { MqttModule } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { appModule, CollectingLogger } from '../support/nest-app.js'

const seen: unknown[] = []

@Controller()
class EventController {
  @EventPattern<string>('in')
  on(@Payload() value: unknown): void {
    seen.push(value)
  }
}

class MarkPipe implements PipeTransform {
  transform(value: unknown): unknown {
    return { marked: value }
  }
}
class AllowGuard {
  canActivate(): boolean {
    return true
  }
}

let broker: EmbeddedBroker
beforeEach(async () => {
  seen.length = 0
  broker = await EmbeddedBroker.start()
})
afterEach(() => broker.stop())

async function start(configure: (app: INestApplication, connect: (options?: object) => void) => void) {
  const logger = new CollectingLogger()
  const app = await NestFactory.create(appModule({ url: broker.url }, { controllers: [EventController] }), {
    logger,
  })
  configure(app, options =>
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true, ...options }),
  )
  await app.init()
  await app.startAllMicroservices()
  await broker.publish('in', '1', { qos: 1 })
  await eventually(() => seen.length === 1)
  await app.close()
  return logger.ofMqtt.filter(line => line.startsWith('warn'))
}

it('global pipes before connectMicroservice() apply, without a warning', async () => {
  const warnings = await start((app, connect) => {
    app.useGlobalPipes(new MarkPipe())
    connect()
  })
  expect(seen).toEqual([{ marked: 1 }])
  expect(warnings).toEqual([])
})

it('global pipes and guards after connectMicroservice() do not apply, and a warning names them and the order', async () => {
  const warnings = await start((app, connect) => {
    connect()
    app.useGlobalPipes(new MarkPipe())
    app.useGlobalGuards(new AllowGuard())
  })
  expect(seen).toEqual([1])
  expect(warnings).toEqual([
    expect.stringMatching(
      /without app\.useGlobalPipes\(MarkPipe\), app\.useGlobalGuards\(AllowGuard\), .* Use this order: .*; app\.connectMicroservice\(MqttModule\.microservice\(\), \{ inheritAppConfig: true \}\)/,
    ),
  ])
})

it('global pipes after connectMicroservice() with deferInitialization apply, without a warning', async () => {
  const warnings = await start((app, connect) => {
    connect({ deferInitialization: true })
    app.useGlobalPipes(new MarkPipe())
  })
  expect(seen).toEqual([{ marked: 1 }])
  expect(warnings).toEqual([])
})

import 'reflect-metadata'
import { Controller, type Type } from '@nestjs/common'
import { EventPattern } from '@nestjs/microservices'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TopicParam } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { startMicroservice } from '../support/nest-app.js'

let broker: EmbeddedBroker
beforeAll(async () => {
  broker = await EmbeddedBroker.start()
})
afterAll(() => broker.stop())

const start = (controller: Type, variables: Record<string, string> = {}) =>
  startMicroservice({ url: broker.url, variables }, { controllers: [controller] })

describe('a @TopicParam without a wildcard of that name in its pattern', () => {
  it('fails the start with an error that names the method and the available wildcards', async () => {
    @Controller()
    class Telemetry {
      @EventPattern<string>('devices/+deviceId/+kind')
      on(@TopicParam('devceId') _id: string): void {}
    }
    await expect(start(Telemetry)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message:
        'Telemetry.on: @TopicParam(\'devceId\') is not a named wildcard of "devices/+deviceId/+kind"; use one of "deviceId", "kind"',
    })
  })

  it('fails the start if no pattern has a named wildcard, with an error that says how to write one', async () => {
    @Controller()
    class Telemetry {
      @EventPattern<string>('devices/+/telemetry')
      on(@TopicParam('id') _id: string): void {}
    }
    await expect(start(Telemetry)).rejects.toThrow('add a named wildcard to the pattern, such as "+id"')
  })
})

it('a @TopicParam that is in one of several patterns, or in a variable, is accepted', async () => {
  @Controller()
  class Telemetry {
    @EventPattern<string[]>(['a/+id', 'b/+other', `\${level}/c`])
    on(@TopicParam('id') _id: string, @TopicParam('filled') _filled: string): void {}
  }
  const { app } = await start(Telemetry, { level: '+filled' })
  await app.close()
})

it('a level with a colon is matched literally, and a log line says what to write instead', async () => {
  @Controller()
  class Telemetry {
    @EventPattern<string>('devices/:id/telemetry')
    on(): void {}
  }
  const { app, logger } = await start(Telemetry)
  await app.close()
  expect(logger.ofMqtt.filter(line => line.startsWith('warn'))).toEqual([
    'warn [Mqtt] the pattern "devices/:id/telemetry" matches ":id" literally; write "+id" for a named wildcard',
  ])
})

import { BadRequestException, Catch, Controller, Get, ParseIntPipe, Query, UseFilters } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, MessagePattern, Payload, RpcException } from '@nestjs/microservices'
import { throwError } from 'rxjs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deadLetter, handle, MqttModule, MqttService } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { appModule, CollectingLogger } from '../support/nest-app.js'

const refuse = (error: unknown) => ({
  transform: (): never => {
    throw error
  },
})
const ISSUES = ['temperature must be a number', 'at should not be empty']
const zodError = Object.assign(new Error('[]'), {
  issues: [{ path: ['readings', 0, 'at'], message: "Invalid enum value. Expected 'a', received 'secret'" }],
})
const valiError = Object.assign(new Error('x'), {
  issues: [{ path: [{ key: 'at' }], message: 'Invalid type: Expected number but received "secret"' }],
})

@Catch(BadRequestException)
class OwnFilter {
  catch() {
    return throwError(() => new RpcException('mine').getError())
  }
}

@Controller()
class ReasonsController {
  @MessagePattern('validated')
  validated(@Payload(refuse(new BadRequestException(ISSUES))) _reading: unknown): void {}

  @MessagePattern('zod')
  zod(@Payload(refuse(zodError)) _reading: unknown): void {}

  @MessagePattern('valibot')
  valibot(@Payload(refuse(valiError)) _reading: unknown): void {}

  @MessagePattern('integer')
  integer(@Payload(ParseIntPipe) _value: number): void {}

  @MessagePattern('bug')
  bug(): never {
    throw new TypeError('password of the database')
  }

  @MessagePattern('filtered')
  @UseFilters(OwnFilter)
  filtered(): never {
    throw new BadRequestException('not this')
  }

  @EventPattern<string>('event', handle({ onFailure: deadLetter('dead') }))
  event(@Payload(refuse(new BadRequestException(ISSUES))) _reading: unknown): void {}

  @Get('http')
  http(@Query('value', ParseIntPipe) value: number): number {
    return value
  }
}

describe('why a message failed', () => {
  const logger = new CollectingLogger()
  let broker: EmbeddedBroker
  let app: Awaited<ReturnType<typeof NestFactory.create>>

  beforeAll(async () => {
    broker = await EmbeddedBroker.start()
    const module = appModule({ url: broker.url, drainTimeoutMs: 200 }, { controllers: [ReasonsController] })
    app = await NestFactory.create(module, { logger })
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
    await app.init()
    await app.startAllMicroservices()
    await app.listen(0)
  })

  afterAll(async () => {
    await app.close()
    await broker.stop()
  })

  const failureOf = async (topic: string): Promise<unknown> => {
    const error: unknown = await app
      .get(MqttService)
      .request(topic, 'text')
      .catch((reason: unknown) => reason)
    return typeof error === 'object' && error !== null && 'response' in error ? error.response : error
  }

  it.each([
    ['validated', { message: `Validation failed: ${ISSUES.join('; ')}`, issues: ISSUES, statusCode: 400 }],
    ['zod', { message: "Validation failed: readings.0.at: Invalid enum value. Expected 'a'" }],
    ['valibot', { message: 'Validation failed: at: Invalid type: Expected number' }],
    ['integer', { message: 'Validation failed (numeric string is expected)', statusCode: 400 }],
    ['bug', { message: 'Internal server error' }],
  ])('is sent to the requester without values: %s', async (topic, told) => {
    const failure = await failureOf(topic)
    expect(failure).toMatchObject({ status: 'error', ...told })
    expect(JSON.stringify(failure)).not.toMatch(/secret|password/)
  })

  it('is the result of an exception filter of the application, if there is one', async () => {
    expect(JSON.stringify(await failureOf('filtered'))).toContain('mine')
  })

  it('is logged, even for errors that are sent to no requester', async () => {
    await failureOf('bug')
    const line = 'the handler of "bug" failed for a message on "bug": password of the database'
    await eventually(() => logger.ofMqtt.some(text => text.includes(line)))
  })

  it('is the reason of a dead letter', async () => {
    const letters: unknown[] = []
    const mqtt = app.get(MqttService)
    await mqtt.subscribe('dead', ({ payload }) => letters.push(payload)).whenGranted()
    await mqtt.publish('event', 1, { qos: 1 })
    await eventually(() => letters.length === 1)
    expect(letters[0]).toMatchObject({ reason: `Validation failed: ${ISSUES.join('; ')}` })
  })

  it('does not change errors over HTTP', async () => {
    const response = await fetch(`${await app.getUrl()}/http?value=x`)
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ statusCode: 400, error: 'Bad Request' })
  })
})

import {
  Body,
  Controller,
  type INestApplication,
  Post,
  StandardSchemaValidationPipe,
  ValidationPipe,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import { IsNumber, IsString } from 'class-validator'
import { from } from 'rxjs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { deadLetter, handle, MqttModule, MqttService } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { appModule, CollectingLogger } from '../support/nest-app.js'

class Reading {
  celsius!: number
  site!: string
}
IsNumber()(Reading.prototype, 'celsius')
IsString()(Reading.prototype, 'site')

const Limited = z.object({ celsius: z.number().max(100) })
const Dated = z.object({ at: z.iso.datetime().transform(text => new Date(text)) })
const RETRIED = { retries: { attempts: 2, delayMs: [0] }, onFailure: deadLetter('dead') }
const handled: unknown[] = []

@Controller()
class ReadingsController {
  @Post('class')
  postClass(@Body() reading: Reading): Reading {
    return reading
  }

  @Post('schema')
  postSchema(@Body({ schema: Limited }) reading: z.infer<typeof Limited>): unknown {
    return reading
  }

  @EventPattern<string>('class/event', handle({ onFailure: deadLetter('dead') }))
  classEvent(@Payload() reading: Reading): void {
    handled.push(reading)
  }

  @MessagePattern<string>('class/request')
  classRequest(@Payload() reading: Reading): number {
    return reading.celsius
  }

  @EventPattern<string>('schema/event', handle({ onFailure: deadLetter('dead') }))
  schemaEvent(@Payload({ schema: Limited }) reading: z.infer<typeof Limited>): void {
    handled.push(reading)
  }

  @MessagePattern<string>('schema/request')
  schemaRequest(@Payload({ schema: Limited }) reading: z.infer<typeof Limited>): number {
    return reading.celsius
  }

  @EventPattern<string>('handle/event', handle({ schema: Dated, ...RETRIED }))
  handleEvent(@Payload() dated: unknown): void {
    handled.push(dated)
  }

  @MessagePattern<string>('handle/request', handle({ schema: z.number(), response: z.number().max(99) }))
  handleRequest(@Payload() value: unknown): number {
    return Number(value) ** 2
  }

  @MessagePattern<string>('handle/values', handle({ schema: z.number(), valuesInReasons: true }))
  handleValues(): void {}

  @MessagePattern<string>('handle/stream', handle({ response: z.number() }))
  handleStream(@Payload() values: unknown[]) {
    return from(values)
  }
}

/** What the compiler of an application emits for its decorators. */
for (const method of ['postClass', 'classEvent', 'classRequest'])
  Reflect.defineMetadata('design:paramtypes', [Reading], ReadingsController.prototype, method)

const NOT_A_NUMBER = 'celsius must be a number conforming to the specified constraints'
const WRONG_CLASS = { celsius: 'secret', site: 'a' }
const TOO_BIG = 'celsius: Too big: expected number to be <=100'

describe('an invalid payload in an application with HTTP and MQTT', () => {
  const logger = new CollectingLogger()
  let broker: EmbeddedBroker
  let app: INestApplication
  let mqtt: MqttService
  const letters: unknown[] = []

  beforeAll(async () => {
    broker = await EmbeddedBroker.start()
    const parts = { controllers: [ReadingsController] }
    app = await NestFactory.create(appModule({ url: broker.url }, parts), { logger })
    app.useGlobalPipes(new ValidationPipe({ transform: true }), new StandardSchemaValidationPipe())
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
    await app.init()
    await app.startAllMicroservices()
    await app.listen(0)
    mqtt = app.get(MqttService)
    await mqtt.subscribe('dead', ({ payload }) => letters.push(payload)).whenGranted()
  })

  afterAll(async () => {
    await app.close()
    await broker.stop()
  })

  const post = async (path: string, body: unknown) => {
    const headers = { 'content-type': 'application/json' }
    const url = `${await app.getUrl()}/${path}`
    const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })
    return { status: response.status, body: await response.json() }
  }
  const failureOf = (topic: string, payload: unknown): Promise<unknown> =>
    mqtt.request(topic, payload).catch((reason: unknown) => reason)
  const letterOf = async (topic: string, payload: unknown): Promise<unknown> => {
    const count = letters.length
    await mqtt.publish(topic, payload, { qos: 1 })
    await eventually(() => letters.length > count)
    return letters.at(-1)
  }
  const expectLogged = (text: string) =>
    eventually(() => logger.ofMqtt.some(line => line.startsWith('error') && line.includes(text)))

  it('is a 400 over HTTP, and the reason over MQTT, from one global ValidationPipe', async () => {
    const http = await post('class', WRONG_CLASS)
    expect(http).toMatchObject({ status: 400, body: { statusCode: 400, message: [NOT_A_NUMBER] } })
    const reason = `Validation failed: ${NOT_A_NUMBER}`
    expect(await failureOf('class/request', WRONG_CLASS)).toMatchObject({
      code: 'REQUEST_FAILED',
      message: reason,
      response: { statusCode: 400, issues: [NOT_A_NUMBER] },
    })
    expect(await letterOf('class/event', WRONG_CLASS)).toMatchObject({ topic: 'class/event', reason })
    await expectLogged(`the handler of "class/event" failed for a message on "class/event": ${reason}`)
    expect(logger.ofMqtt.join('\n')).not.toContain('secret')
  })

  it('is a 400 over HTTP, and the reason over MQTT, from one global StandardSchemaValidationPipe', async () => {
    const http = await post('schema', { celsius: 101 })
    expect(http).toMatchObject({ status: 400, body: { statusCode: 400, message: [TOO_BIG] } })
    const reason = `Validation failed: ${TOO_BIG}`
    expect(await failureOf('schema/request', { celsius: 101 })).toMatchObject({
      code: 'REQUEST_FAILED',
      message: reason,
      response: { statusCode: 400, issues: [TOO_BIG] },
    })
    expect(await letterOf('schema/event', { celsius: 101 })).toMatchObject({ topic: 'schema/event', reason })
    await expectLogged(`the handler of "schema/event" failed for a message on "schema/event": ${reason}`)
  })

  it('does not change valid messages of both pipes', async () => {
    expect((await post('class', { celsius: 1, site: 'a' })).status).toBe(201)
    expect(await mqtt.request('class/request', { celsius: 1, site: 'a' })).toBe(1)
    expect(await mqtt.request('schema/request', { celsius: 2 })).toBe(2)
  })

  it('fails before the handler of handle({ schema }), is not retried, and becomes a dead letter', async () => {
    const before = handled.length
    const letter = await letterOf('handle/event', { at: 'secret' })
    const reason = 'the payload on "handle/event" is not valid: at: Invalid ISO datetime'
    expect(letter).toMatchObject({ topic: 'handle/event', reason, attempts: 1 })
    expect(handled).toHaveLength(before)
    await expectLogged(reason)
  })

  it('reaches the handler of handle({ schema }) as the output of the schema', async () => {
    const count = handled.length
    await mqtt.publish('handle/event', { at: '2026-01-02T03:04:05Z' }, { qos: 1 })
    await eventually(() => handled.length > count)
    expect(handled.at(-1)).toEqual({ at: new Date('2026-01-02T03:04:05Z') })
  })

  it('is sent to the requester of handle({ schema }) as a reason, with the value only if asked', async () => {
    expect(await failureOf('handle/request', 'three')).toMatchObject({
      code: 'REQUEST_FAILED',
      message: 'Validation failed: Invalid input: expected number',
      response: { status: 'error', issues: ['Invalid input: expected number'] },
    })
    expect(await failureOf('handle/values', 'three')).toMatchObject({
      message: "Validation failed: Invalid input: expected number (received 'three')",
    })
  })

  it('is replaced by its reason if it is the response of a handler with handle({ response })', async () => {
    expect(await mqtt.request('handle/request', 9)).toBe(81)
    expect(await failureOf('handle/request', 10)).toMatchObject({
      code: 'REQUEST_FAILED',
      message: 'Validation failed: Too big: expected number to be <=99',
    })
    const seen: unknown[] = []
    const stream = async () => {
      for await (const value of mqtt.requestStream('handle/stream', [1, 2, 'three'])) seen.push(value)
    }
    await expect(stream()).rejects.toMatchObject({
      code: 'REQUEST_FAILED',
      message: 'Validation failed: Invalid input: expected number',
    })
    expect(seen).toEqual([1, 2])
  })
})

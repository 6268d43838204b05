import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { Ctx, EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { MqttClientProxy, type MqttContext } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { type Asker, askerOf, builtInClient, heardFrom } from '../support/askers.js'
import { eventually } from '../support/eventually.js'
import { startMicroservice } from '../support/nest-app.js'

/** What looks like a variable is text in an object. */
const TEXT = '\u0024{x}'
const ROUTE = `{"cmd":"sum","of":{"a":1,"b":"${TEXT}"}}`
const story: unknown[] = []

@Controller()
class SumController {
  @MessagePattern({ of: { b: TEXT, a: 1 }, cmd: 'sum' })
  sum(@Payload() values: number[], @Ctx() context: MqttContext): unknown {
    return { sum: values.reduce((total, value) => total + value, 0), topic: context.getTopic() }
  }

  @EventPattern<number>(1)
  onNumber(@Payload() value: unknown, @Ctx() context: MqttContext): void {
    story.push([value, context.getPattern(), context.params])
  }

  @EventPattern<object>({ cmd: 'a/b' })
  onSlash(@Payload() value: unknown): void {
    story.push(value)
  }
}

let broker: EmbeddedBroker
beforeAll(async () => {
  broker = await EmbeddedBroker.start()
})
afterAll(() => broker.stop())
beforeEach(() => {
  story.length = 0
})

describe('a handler with an object or a number for a pattern', () => {
  let app: { close(): Promise<unknown> }
  let asker: Asker
  beforeEach(async () => {
    const started = await startMicroservice(
      { url: broker.url, envelope: 'all', variables: { x: 'filled' } },
      { controllers: [SumController] },
    )
    app = started.app
  })
  afterEach(async () => {
    await asker.close()
    await app.close()
  })

  it('replies to a request in the envelope on the JSON of its pattern followed by /reply', async () => {
    asker = await builtInClient(broker.url, 4)
    expect(await asker.ask(ROUTE, [1, 2])).toEqual({
      values: [{ sum: 3, topic: ROUTE }],
      error: undefined,
    })
  })

  it('receives events whose envelope has the pattern as an object or a number', async () => {
    asker = await builtInClient(broker.url, 4)
    await broker.publish('1', JSON.stringify({ pattern: 1, data: 'one' }))
    await broker.publish('{"cmd":"a/b"}', JSON.stringify({ pattern: { cmd: 'a/b' }, data: 'two' }))
    await broker.publish('{"cmd":"a/b"}', JSON.stringify({ pattern: { cmd: 'other' }, data: 'three' }))
    await eventually(() => story.length === 3)
    expect(story).toEqual([['one', '1', {}], 'two', { pattern: { cmd: 'other' }, data: 'three' }])
  })

  it.each(['nest', 'nestjs-mqtt'] as const)(
    'receives requests of MqttClientProxy with the same pattern, peer %s',
    async peer => {
      const client = new MqttClientProxy({ url: broker.url, peer })
      asker = askerOf(client)
      const heard = await heardFrom(client.send({ cmd: 'sum', of: { a: 1, b: TEXT } }, [4, 5]))
      expect(heard).toEqual({ values: [{ sum: 9, topic: ROUTE }], error: undefined })
      await heardFrom(client.emit(1, 'told'))
      await eventually(() => story.length === 1)
      expect(story).toEqual([['told', '1', {}]])
    },
  )
})

const tooDeep = { a: { a: { a: { a: { a: { a: { a: 1 } } } } } } }
const tooWide = Object.fromEntries(Array.from({ length: 21 }, (_, index) => [`k${index}`, index]))

describe('a pattern that cannot be a topic is refused when the application starts', () => {
  it.each([
    ['a wildcard in a value', { cmd: 'a/+/b' }, /must not contain "\+", "#"/],
    ['a plus within a value', { cmd: 'a+b' }, /\{"cmd":"a\+b"\} is not a valid Topic Name/],
    ['a RegExp', /^devices/, /\/\^devices\/ cannot be a topic: it is a RegExp/],
    ['a RegExp in an object', { cmd: /x/ }, /it is a RegExp/],
    ['a function in an object', { cmd: () => 1 }, /it contains a function/],
    ['undefined in an object', { cmd: undefined }, /it contains undefined/],
    ['more levels than Nest tells apart', tooDeep, /nested more than 5 levels deep/],
    ['more keys than Nest tells apart', tooWide, /more than 20 keys/],
  ])('%s', async (_what, pattern, message) => {
    @Controller()
    class WrongController {
      on(): void {}
    }
    const method = Object.getOwnPropertyDescriptor(WrongController.prototype, 'on') ?? {}
    Reflect.apply(EventPattern, undefined, [pattern])(WrongController.prototype, 'on', method)
    await expect(
      startMicroservice({ url: broker.url }, { controllers: [WrongController] }),
    ).rejects.toMatchObject({ code: 'INVALID_TOPIC_FILTER', message: expect.stringMatching(message) })
  })

  it.each([/x/, Symbol('x'), { cmd: 'a/#' }])('MqttClientProxy refuses %s as well', async pattern => {
    const client = new MqttClientProxy({ url: broker.url })
    for (const heard of [client.send(pattern, 1), client.emit(pattern, 1)])
      expect(await heardFrom(heard)).toMatchObject({ error: { code: 'INVALID_TOPIC_NAME' } })
    await client.close()
  })
})

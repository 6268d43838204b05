import 'reflect-metadata'
import { Controller, type Type } from '@nestjs/common'
import { EventPattern, MessagePattern } from '@nestjs/microservices'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient, type MqttError } from '../../src/client/index.js'
import {
  defineTopic,
  type HandlerOptions,
  MqttClientProxy,
  OnMqttEvent,
  OnMqttRequest,
  OnMqttUnmatched,
} from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { startMicroservice } from '../support/nest-app.js'

const telemetry = defineTopic('devices/+deviceId/telemetry/+kind')
const live = defineTopic('live')
const ADDRESS = telemetry.at({ deviceId: '7', kind: 'raw' })

let client: MqttClient
beforeEach(() => {
  client = new MqttClient({ url: 'mqtt://localhost:1' })
})
afterEach(() => client.close())

/** Calls a method as JavaScript can, and returns its error. */
async function failureOf(target: object, method: string, ...args: unknown[]): Promise<MqttError> {
  const work: unknown = Reflect.get(target, method)
  if (typeof work !== 'function') throw new Error(`no method ${method}`)
  try {
    await Reflect.apply(work, target, args)
  } catch (error) {
    return error as MqttError
  }
  throw new Error(`${method} accepted its arguments`)
}

describe.each(['publish', 'tryPublish', 'request', 'requestStream'])('%s', method => {
  it('with a contract in place of a topic says what to pass', async () => {
    expect(await failureOf(client, method, telemetry, 1)).toMatchObject({
      code: 'INVALID_TOPIC_NAME',
      message:
        'the contract of "devices/+deviceId/telemetry/+kind" is not a topic; pass one topic of it: contract.at({ deviceId, kind })',
    })
    expect((await failureOf(client, method, live, 1)).message).toBe(
      'the contract of "live" is not a topic; pass one topic of it: contract.at()',
    )
  })

  it.each([
    [undefined, 'undefined'],
    [null, 'null'],
    [7, '7'],
    [['a', 'b'], 'a list of length 2'],
    [() => 'a', 'a function'],
    [{ topic: 'a' }, 'an object'],
    [{ contract: telemetry }, 'an object'],
    [{ topic: 7, contract: telemetry }, 'an object'],
  ])('with %j in place of a topic names the value', async (value, given) => {
    expect(await failureOf(client, method, value, 1)).toMatchObject({
      code: 'INVALID_TOPIC_NAME',
      message: `the topic must be a string or one topic of a contract, but is ${given}`,
    })
  })

  it('with options that are not an object names the call and the topic', async () => {
    expect(await failureOf(client, method, 'a/b', 1, 'qos')).toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(
        new RegExp(`^${method === 'requestStream' ? 'request' : method} to "a/b": the options must be`),
      ),
    })
  })
})

describe.each(['subscribe', 'respond', 'messages', 'retained'])('%s', method => {
  it.each([
    [undefined, 'undefined'],
    [null, 'null'],
    [7, '7'],
    [['a', 'b'], 'a list of length 2'],
    [telemetry.at, 'a function'],
    [{ topic: 'a' }, 'an object'],
    [{ pattern: 'a' }, 'an object'],
  ])('with %j in place of a pattern names the value', async (value, given) => {
    expect(await failureOf(client, method, value, () => {})).toMatchObject({
      code: 'INVALID_TOPIC_FILTER',
      message: `the pattern must be a string, a contract or one topic of a contract, but is ${given}`,
    })
  })
})

it.each([
  ['subscribe', { qos: 1 }, 'an object'],
  ['subscribe', undefined, 'undefined'],
  ['respond', 'square', '"square"'],
])('%s with %j in place of a handler says how to write the call', async (method, value, given) => {
  expect(await failureOf(client, method, 'a/b', value)).toMatchObject({
    code: 'INVALID_OPTION',
    message: `handler of "a/b": the handler must be a function, but is ${given}; write ${method}(pattern, handler, options)`,
  })
})

/** Options that only JavaScript can pass. */
const wrong = (options: object): HandlerOptions => options

describe('a decorator with an unknown option', () => {
  it('names the class, the method and the decorator', () => {
    expect(() => {
      class Handlers {
        @OnMqttEvent('a', wrong({ onFail: 'ack' }))
        on(): void {}
      }
      return Handlers
    }).toThrow('Handlers.on: @OnMqttEvent: unknown option "onFail"')
    expect(() => {
      class Handlers {
        @OnMqttRequest('a', wrong({ timeout: 5 }))
        square(): void {}
      }
      return Handlers
    }).toThrow('Handlers.square: @OnMqttRequest: unknown option "timeout"; did you mean "timeoutMs"?')
    expect(() => {
      class Handlers {
        @OnMqttUnmatched(wrong({ concurrency: 0 }))
        rest(): void {}
      }
      return Handlers
    }).toThrow('Handlers.rest: @OnMqttUnmatched: "concurrency" must be an integer from 1 to 65535, but is 0')
  })
})

describe('an application with a wrong decorator of Nest', () => {
  let broker: EmbeddedBroker
  beforeEach(async () => {
    broker = await EmbeddedBroker.start()
  })
  afterEach(() => broker.stop())

  const start = (controller: Type) => startMicroservice({ url: broker.url }, { controllers: [controller] })

  it('does not start, and names the class and the method: wrong options', async () => {
    @Controller()
    class Telemetry {
      @MessagePattern<string>('a/b', { qos: 3 })
      on(): void {}
    }
    await expect(start(Telemetry)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: 'Telemetry.on: handler of "a/b": "qos" must be one of 0, 1, 2, but is 3',
    })
  })

  it('does not start, and names the class and the method: a pattern that is not valid', async () => {
    @Controller()
    class Telemetry {
      @EventPattern<string[]>(['a', 'a/#/b'])
      on(): void {}
    }
    await expect(start(Telemetry)).rejects.toMatchObject({
      code: 'INVALID_TOPIC_FILTER',
      message: expect.stringMatching(/^Telemetry\.on: "a\/#\/b" is not a valid Topic Filter/),
    })
  })

  it.each([
    ['a contract', telemetry],
    ['one topic of a contract', ADDRESS],
  ])('does not start with %s as the pattern, and says which decorator to use', async (_what, pattern) => {
    @Controller()
    class Telemetry {
      @EventPattern<object>(pattern)
      on(): void {}
    }
    await expect(start(Telemetry)).rejects.toMatchObject({
      code: 'INVALID_TOPIC_FILTER',
      message:
        'Telemetry.on: the contract of "devices/+deviceId/telemetry/+kind" cannot be a pattern; pass the contract itself to @OnMqttEvent or @OnMqttRequest',
    })
  })
})

it.each([telemetry, ADDRESS])('send() and emit() with a contract say what to pass', async pattern => {
  const proxy = new MqttClientProxy({ url: 'mqtt://localhost:1', connect: 'background' })
  const failure = new Promise(resolve => proxy.emit(pattern, 1).subscribe({ error: resolve }))
  expect(await failure).toMatchObject({
    code: 'INVALID_TOPIC_NAME',
    message:
      'the contract of "devices/+deviceId/telemetry/+kind" cannot be a pattern; pass its topic to send() and emit(): contract.at({ deviceId, kind }).topic',
  })
  await proxy.close()
})

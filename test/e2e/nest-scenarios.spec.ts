import 'reflect-metadata'
import { Controller, Get, Module, type OnModuleDestroy, Param, RequestTimeoutException } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import {
  type ClientProxy,
  ClientProxyFactory,
  Ctx,
  EventPattern,
  MessagePattern,
  type MqttContext,
  MqttRecordBuilder,
  Payload,
  Transport,
} from '@nestjs/microservices'
import { connectAsync, type IPublishPacket } from 'mqtt'
import { catchError, from, lastValueFrom, map, type Observable, of, toArray } from 'rxjs'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { isMqttError, MqttClientProxy } from '../../src/index.js'
import { startBuiltIn } from '../support/askers.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

/** Nest sums of lists, in the ways in which a handler may give a value. */
const sumOf = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

const notified: unknown[] = []

@Controller()
class ScenarioController {
  @MessagePattern({ cmd: 'sum' })
  sum(@Payload() values: number[]): number {
    return sumOf(values)
  }

  @MessagePattern({ cmd: 'sum', mode: 'async' })
  async sumLater(@Payload() values: number[]): Promise<number> {
    return sumOf(values)
  }

  @MessagePattern({ cmd: 'sum', mode: 'observable' })
  sumObserved(@Payload() values: number[]): Observable<number> {
    return of(sumOf(values))
  }

  @MessagePattern({ mode: 'stream', cmd: 'each' })
  each(@Payload() values: number[]): Observable<number> {
    return from(values)
  }

  @MessagePattern(4711)
  byNumber(@Payload() values: number[]): number {
    return sumOf(values)
  }

  @MessagePattern({ cmd: 'record' })
  record(@Payload() data: unknown, @Ctx() context: MqttContext): unknown {
    const { qos, properties } = context.getPacket()
    return { data, qos, trace: properties?.userProperties?.trace }
  }

  @EventPattern<object>({ event: 'notification' }, { qos: 1 })
  onNotification(@Payload() data: unknown, @Ctx() context: MqttContext): void {
    const { qos, retain, properties } = context.getPacket()
    notified.push({ data, qos, retain, trace: properties?.userProperties?.trace })
  }
}

type Running = { close(): Promise<unknown> }
const VERSION = 5

let broker: Mosquitto
beforeAll(async () => {
  broker = await Mosquitto.start()
})
afterAll(() => broker.stop())

const onOurs = async (): Promise<Running> => {
  const options = { url: broker.url, protocolVersion: VERSION, envelope: 'all' } as const
  const { app } = await startMicroservice(options, { controllers: [ScenarioController] })
  return app
}
const onBuiltIn = (): Promise<Running> => startBuiltIn(broker.url, VERSION, [ScenarioController])

type Client = Pick<ClientProxy, 'send' | 'emit' | 'close'>
const ourClient = (): Client =>
  new MqttClientProxy({ url: broker.url, protocolVersion: VERSION, peer: 'nest' })
const builtInClient = (): Client =>
  ClientProxyFactory.create({
    transport: Transport.MQTT,
    options: { url: broker.url, protocolVersion: VERSION },
  })

/** The retained message of a topic, which is cleared for the next test. */
async function takeRetained(topic: string): Promise<IPublishPacket> {
  const client = await connectAsync(broker.url)
  const message = new Promise<IPublishPacket>(resolve => {
    client.on('message', (_topic, _payload, packet) => resolve(packet))
  })
  await client.subscribeAsync(topic, { qos: 1 })
  const packet = await message
  await client.publishAsync(topic, '', { retain: true, qos: 1 })
  await client.endAsync()
  return packet
}

describe.each([
  { asker: 'MqttClientProxy', newClient: ourClient, responder: 'this transport', start: onOurs },
  { asker: 'MqttClientProxy', newClient: ourClient, responder: 'the built-in transport', start: onBuiltIn },
  { asker: 'the built-in client', newClient: builtInClient, responder: 'this transport', start: onOurs },
  {
    asker: 'the built-in client',
    newClient: builtInClient,
    responder: 'the built-in transport',
    start: onBuiltIn,
  },
])('$asker with $responder', ({ newClient, start }) => {
  let app: Running
  let client: Client
  beforeAll(async () => {
    app = await start()
    client = newClient()
  })
  afterAll(async () => {
    await client.close()
    await app.close()
  })
  beforeEach(() => {
    notified.length = 0
  })

  const ask = (pattern: unknown, data: unknown): Promise<unknown[]> =>
    lastValueFrom(client.send<unknown>(pattern, data).pipe(toArray()))

  it.each([
    ['a value', { cmd: 'sum' }],
    ['a promise', { mode: 'async', cmd: 'sum' }],
    ['an Observable', { cmd: 'sum', mode: 'observable' }],
    ['a value, by a number', 4711],
    ['a value, by the text of the pattern', '{"cmd":"sum"}'],
  ])('a sum is returned as %s', async (_what, pattern) => {
    expect(await ask(pattern, [1, 2, 3, 4, 5])).toEqual([15])
  })

  it('a stream is returned value by value', async () => {
    expect(await ask({ cmd: 'each', mode: 'stream' }, [1, 2, 3])).toEqual([1, 2, 3])
  })

  it('concurrent requests on one pattern each receive their own response', async () => {
    const lists = Array.from({ length: 10 }, (_, index) => Array.from({ length: 10 }, (_, n) => n + index))
    const pattern = { cmd: 'sum' }
    const sums = await Promise.all(
      lists.map(list =>
        lastValueFrom(client.send<number>(pattern, list).pipe(map(sum => sum === sumOf(list)))),
      ),
    )
    expect(sums).toEqual(lists.map(() => true))
  })

  it('a record of a request arrives with its QoS and its User Properties', async () => {
    const record = new MqttRecordBuilder({ value: 1 })
      .setQoS(1)
      .setProperties({ userProperties: { trace: 'a1' } })
      .build()
    expect(await ask({ cmd: 'record' }, record)).toEqual([
      // The subscription of the built-in transport asks for QoS 0.
      { data: { value: 1 }, qos: expect.any(Number), trace: 'a1' },
    ])
  })

  it('a notification arrives, with the QoS, retain and User Properties of its record', async () => {
    await lastValueFrom(client.emit({ event: 'notification' }, { plain: true }), { defaultValue: undefined })
    await eventually(() => notified.length === 1)
    const record = new MqttRecordBuilder({ value: 2 })
      .setQoS(1)
      .setRetain(true)
      .setProperties({ userProperties: { trace: 'b2' } })
      .build()
    await lastValueFrom(client.emit({ event: 'notification' }, record), { defaultValue: undefined })
    await eventually(() => notified.length === 2)
    expect(notified).toEqual([
      { data: { plain: true }, qos: 0, retain: false, trace: undefined },
      // To an existing subscription the broker does not mark it as retained.
      { data: { value: 2 }, qos: 1, retain: expect.any(Boolean), trace: 'b2' },
    ])
    expect(await takeRetained('{"event":"notification"}')).toMatchObject({ qos: 1, retain: true })
  })
})

describe.each([
  ['in the envelope', { peer: 'nest' }, { envelope: 'all' }],
  ['in the User Properties', {}, {}],
] as const)('metadata of setOnDispatchHook %s', (_where, clientOptions, serverOptions) => {
  const seen: unknown[] = []

  @Controller()
  class MetadataController {
    @MessagePattern({ cmd: 'who' })
    who(@Payload() data: unknown, @Ctx() context: { getMetadata(): unknown }): unknown {
      return { data, metadata: context.getMetadata() }
    }

    @EventPattern<string>('told')
    onTold(@Payload() data: unknown, @Ctx() context: { getMetadata(): unknown }): void {
      seen.push({ data, metadata: context.getMetadata() })
    }
  }

  it('reaches getMetadata() of the context, for requests and events', async () => {
    const { app } = await startMicroservice(
      { url: broker.url, protocolVersion: VERSION, ...serverOptions },
      { controllers: [MetadataController] },
    )
    const client = new MqttClientProxy({ url: broker.url, protocolVersion: VERSION, ...clientOptions })
    client.setOnDispatchHook(packet => {
      packet.metadata = { ...packet.metadata, 'x-request-id': 'r1' }
    })
    const expected = { data: 1, metadata: { 'x-request-id': 'r1' } }
    expect(await lastValueFrom(client.send({ cmd: 'who' }, 1))).toEqual(expected)
    await lastValueFrom(client.emit('told', 1), { defaultValue: undefined })
    await eventually(() => seen.length === 1)
    expect(seen).toEqual([expected])
    await client.close()
    await app.close()
  })
})

describe.each([
  {
    asker: 'MqttClientProxy',
    newClient: (url: string): Client => new MqttClientProxy({ url, peer: 'nest' }),
  },
  {
    asker: 'the built-in client',
    newClient: (url: string): Client =>
      ClientProxyFactory.create({ transport: Transport.MQTT, options: { url } }),
  },
])('an HTTP controller that returns send() of $asker without a broker', ({ newClient }) => {
  /** As Nest's guides map it; the cause is where this package keeps the error of the socket. */
  const isOffline = (error: unknown): boolean =>
    hasCode(error, 'ECONNREFUSED') ||
    (isMqttError(error, 'CONNECT_FAILED') && hasCode(error.cause, 'ECONNREFUSED'))

  @Controller()
  class DisconnectedController implements OnModuleDestroy {
    private client: Client | undefined

    @Get('plain/:port')
    plain(@Param('port') port: string): Observable<unknown> {
      this.client = newClient(`mqtt://127.0.0.1:${port}`)
      return this.client.send({ cmd: 'none' }, [1, 2, 3])
    }

    @Get('mapped/:port')
    mapped(@Param('port') port: string): Observable<unknown> {
      return this.plain(port).pipe(
        catchError((error: unknown) => {
          throw isOffline(error) ? new RequestTimeoutException('no broker') : error
        }),
      )
    }

    async onModuleDestroy(): Promise<void> {
      await this.client?.close()
    }
  }

  it.each([
    ['plain', 500],
    ['mapped', 408],
  ])('responds to %s with %i', async (path, status) => {
    @Module({ controllers: [DisconnectedController] })
    class HttpModule {}
    const app = await NestFactory.create(HttpModule, { logger: false })
    await app.listen(0, '127.0.0.1')
    const response = await fetch(`${await app.getUrl()}/${path}/${await freePort()}`)
    expect(response.status).toBe(status)
    await response.text()
    await app.close()
  })
})

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}

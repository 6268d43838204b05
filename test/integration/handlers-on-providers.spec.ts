import 'reflect-metadata'
import {
  Controller,
  Inject,
  Injectable,
  Module,
  ParseIntPipe,
  Scope,
  UseFilters,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { Ctx, EventPattern, Payload } from '@nestjs/microservices'
import { type Observable, of } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type MqttContext,
  MqttModule,
  MqttPacket,
  MqttService,
  MqttTopic,
  OnMqttEvent,
  OnMqttRequest,
  type PublishPacket,
  TopicParam,
  UserProperty,
} from '../../src/index.js'
import { EmbeddedBroker, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { type AppParts, CollectingLogger, startMicroservice } from '../support/nest-app.js'
import { calls, NoteFilter, NoteInterceptor, PlusOnePipe, TopicGuard } from '../support/noted-calls.js'
import { message } from '../support/session-on-peer.js'

let broker: EmbeddedBroker
const closing: (() => Promise<unknown>)[] = []

beforeEach(async () => {
  calls.length = 0
  broker = await EmbeddedBroker.start()
})
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
  await broker.stop()
})

async function start(parts: AppParts) {
  const started = await startMicroservice({ url: broker.url }, parts)
  closing.push(() => started.app.close())
  return started
}

@Injectable()
@UseGuards(TopicGuard)
class Doors {
  readonly opened: string[] = []

  @OnMqttEvent('doors/+door', { qos: 1 })
  @UseInterceptors(NoteInterceptor)
  @UseFilters(NoteFilter)
  onDoor(@Payload(PlusOnePipe) value: number, @TopicParam('door') door: string): void {
    this.opened.push(door)
    calls.push(['door', value])
  }

  @OnMqttRequest('doors/count')
  count(): number {
    return this.opened.length
  }

  @OnMqttRequest('doors/list')
  list(): Observable<string> {
    return of(...this.opened)
  }
}

describe('a handler on a provider', () => {
  it('runs with the guards, interceptors and pipes of its class, method and parameters', async () => {
    await start({ providers: [Doors] })
    await broker.deliver('doors/front', 1)
    expect(calls).toEqual(['guard of Doors', 'before', ['door', 2], 'after'])
  })

  it('fails if a guard refuses the message', async () => {
    const { mqtt } = await start({ providers: [Doors] })
    await broker.deliver('doors/forbidden', 1)
    expect(calls).toEqual(['guard of Doors', 'filter Forbidden resource doors/forbidden'])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
  })

  it('has its errors passed to its exception filter', async () => {
    await start({ providers: [Doors] })
    await broker.deliver('doors/front', { not: 'a number' })
    expect(calls).toContain('filter a number is needed doors/front')
  })

  it('uses the same instance as the rest of the application, and responds to requests and streams', async () => {
    const { app, mqtt } = await start({ providers: [Doors] })
    await broker.deliver('doors/front', 1)
    await broker.deliver('doors/back', 1)
    expect(app.get(Doors).opened).toEqual(['front', 'back'])
    expect(await mqtt.request('doors/count', null)).toBe(2)
    const streamed: unknown[] = []
    for await (const door of mqtt.requestStream('doors/list', null)) streamed.push(door)
    expect(streamed).toEqual(['front', 'back'])
  })

  it('runs once if the class is also a controller', async () => {
    @Controller()
    class Both {
      @OnMqttEvent('both')
      on(): void {
        calls.push('both')
      }
    }
    await start({ controllers: [Both], providers: [Both] })
    await broker.deliver('both', 1)
    expect(calls).toEqual(['both'])
  })

  it('may be inherited', async () => {
    class Base {
      @OnMqttEvent('inherited/+id')
      on(@TopicParam('id') id: string): void {
        calls.push([this.constructor.name, id])
      }
    }
    @Injectable()
    class Derived extends Base {}
    await start({ providers: [Derived] })
    await broker.deliver('inherited/7', 1)
    expect(calls).toEqual([['Derived', '7']])
  })

  it('may have @EventPattern instead', async () => {
    @Injectable()
    class Plain {
      @EventPattern<string>('plain')
      on(): void {
        calls.push('plain')
      }
    }
    await start({ providers: [Plain] })
    await broker.deliver('plain', 1)
    expect(calls).toEqual(['plain'])
  })

  it('may be request-scoped, with a new instance for each message', async () => {
    @Injectable()
    class Dependency {
      readonly id = Symbol('dependency')
    }
    @Injectable({ scope: Scope.REQUEST })
    class PerMessage {
      constructor(@Inject(Dependency) private readonly dependency: Dependency) {}

      @OnMqttEvent('scoped')
      on(@Payload() payload: unknown): void {
        calls.push([this, this.dependency, payload])
      }
    }
    const { app } = await start({ providers: [PerMessage, Dependency] })
    await broker.deliver('scoped', 1)
    await broker.deliver('scoped', 2)
    const [[first, dependency, one] = [], [second, same, two] = []] = calls as unknown[][]
    expect([one, two]).toEqual([1, 2])
    expect(first).toBeInstanceOf(PerMessage)
    expect(second).not.toBe(first)
    expect([dependency, same]).toEqual([app.get(Dependency), app.get(Dependency)])
  })
})

describe('the global pipes of a hybrid application', () => {
  it.each([
    [true, 2],
    [false, 1],
  ])('with inheritAppConfig: %s, apply as they do to controllers', async (inheritAppConfig, expected) => {
    @Controller()
    class OnController {
      @OnMqttEvent('global')
      on(@Payload() value: number): void {
        calls.push(value)
      }
    }
    @Injectable()
    class OnProvider {
      @OnMqttEvent('global')
      on(@Payload() value: number): void {
        calls.push(value)
      }
    }
    @Module({
      imports: [MqttModule.forRoot({ url: broker.url })],
      controllers: [OnController],
      providers: [OnProvider],
    })
    class AppModule {}
    const app = await NestFactory.create(AppModule, { logger: new CollectingLogger(), abortOnError: false })
    closing.push(() => app.close())
    app.useGlobalPipes(new PlusOnePipe())
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig })
    await app.init()
    await app.startAllMicroservices()
    await broker.deliver('global', 1)
    expect(calls).toEqual([expected, expected])
  })
})

describe('the start fails with an error that says what to do', () => {
  it('if a handler is on a transient provider', async () => {
    @Injectable({ scope: Scope.TRANSIENT })
    class Transient {
      @OnMqttEvent('a')
      on(): void {}
    }
    await expect(start({ providers: [Transient] })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message:
        'Transient.on: a provider with Scope.TRANSIENT has an instance for each of its consumers, so it cannot have MQTT handlers; remove its scope, or move the handler to another class',
    })
  })

  it.each([
    ['useClass', (type: new () => object) => ({ provide: 'custom', useClass: type })],
    ['useFactory', (type: new () => object) => ({ provide: 'custom', useFactory: () => new type() })],
    ['useValue', (type: new () => object) => ({ provide: 'custom', useValue: new type() })],
  ])('if a handler is on a provider with %s, where guards would not apply', async (_kind, provider) => {
    @Injectable()
    class Custom {
      @OnMqttEvent('a')
      on(): void {}
    }
    await expect(start({ providers: [provider(Custom)] })).rejects.toThrow(
      'list the class itself, as in providers: [Custom]',
    )
  })

  it('if a @TopicParam on a provider is not in the pattern', async () => {
    @Injectable()
    class Misspelled {
      @OnMqttEvent('a/+id')
      on(@TopicParam('ib') _id: string): void {}
    }
    await expect(start({ providers: [Misspelled] })).rejects.toThrow(
      `Misspelled.on: @TopicParam('ib') is not a named wildcard of "a/+id"; use one of "id"`,
    )
  })

  it('if a handler is for a connection that the application does not have', async () => {
    @Injectable()
    class Elsewhere {
      @OnMqttEvent('a', { connection: 'edge' })
      on(): void {}
    }
    await expect(start({ providers: [Elsewhere] })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message:
        'Elsewhere.on: @OnMqttEvent is for the connection "edge", which the application does not have; add MqttModule.forRoot({ name: \'edge\', url }) to the imports of your root module, or use one of these options in the decorator: none',
    })
  })
})

it('a class with handlers that several modules provide is reported with one warning', async () => {
  @Injectable()
  class Twice {
    @OnMqttEvent('twice')
    first(): void {}

    @OnMqttEvent('twice')
    second(): void {}
  }
  @Module({ providers: [Twice] })
  class Feature {}
  @Module({ imports: [MqttModule.forRoot({ url: broker.url }), Feature], providers: [Twice] })
  class AppModule {}
  const logger = new CollectingLogger()
  const app = await NestFactory.createMicroservice(AppModule, { ...MqttModule.microservice(), logger })
  closing.push(() => app.close())
  await app.listen()
  expect(logger.ofMqtt.filter(line => line.startsWith('warn'))).toEqual([
    'warn [MqttModule] Twice has MQTT handlers and is listed in the providers of several modules. Each module has its own instance, and each instance handles every message. List it in one module, and export it from there',
  ])
})

it('a handler with a connection runs for the messages of this connection only', async () => {
  const other = await EmbeddedBroker.start()
  closing.push(() => other.stop())
  @Injectable()
  class Handlers {
    @OnMqttEvent('a')
    onDefault(@Payload() payload: unknown): void {
      calls.push(['default', payload])
    }

    @OnMqttEvent('a', { connection: 'edge' })
    onEdge(@Payload() payload: unknown): void {
      calls.push(['edge', payload])
    }
  }
  @Module({
    imports: [MqttModule.forRoot({ url: broker.url }), MqttModule.forRoot({ url: other.url, name: 'edge' })],
    providers: [Handlers],
  })
  class AppModule {}
  const app = await NestFactory.create(AppModule, { logger: new CollectingLogger() })
  closing.unshift(() => app.close())
  app.connectMicroservice(MqttModule.microservice())
  app.connectMicroservice(MqttModule.microservice('edge'))
  await app.init()
  await app.startAllMicroservices()
  await broker.deliver('a', 1)
  await other.deliver('a', 2)
  expect(calls).toEqual([
    ['default', 1],
    ['edge', 2],
  ])
})

describe('parameter decorators', () => {
  it('pass topic, packet, User Properties and wildcards, through pipes', async () => {
    @Injectable()
    class Parameters {
      @OnMqttEvent(['meters/+meter/reading', 'counters/+meter'])
      on(
        @TopicParam('meter', ParseIntPipe) meter: number,
        @MqttTopic() topic: string,
        @MqttTopic({ transform: (value: string) => value.length }) length: number,
        @MqttPacket() packet: PublishPacket,
        @UserProperty('trace') trace: string | undefined,
        @UserProperty('tenant', ParseIntPipe) tenant: number,
        @UserProperty('toString') missing: string | undefined,
        @Ctx() context: MqttContext,
      ): void {
        calls.push({ meter, topic, length, packet, trace, tenant, missing, of: context.pattern })
      }
    }
    const peer = new ScriptedPeer()
    const starting = startMicroservice(
      { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 10, keepalive: 0 },
      { providers: [Parameters] },
    )
    const connection = await peer.accept()
    await connection.grant()
    await connection.grant()
    const { app, mqtt } = await starting
    closing.push(() => app.close())
    const userProperties = { trace: ['first', 'second'], tenant: '12' }
    const packet = message('meters/7/reading', { payload: '1', properties: { userProperties } })
    connection.send(packet)
    await eventually(() => mqtt.stats().inbound.handled === 1)
    expect(calls).toEqual([
      {
        meter: 7,
        topic: 'meters/7/reading',
        length: 16,
        packet: expect.objectContaining({ cmd: 'publish', topic: 'meters/7/reading' }),
        trace: 'first',
        tenant: 12,
        missing: undefined,
        of: 'meters/+meter/reading',
      },
    ])
  })
})

it('MqttService can be injected into a provider with handlers', async () => {
  @Injectable()
  class Relay {
    constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

    @OnMqttEvent('in/+id')
    async on(@Payload() payload: unknown, @TopicParam('id') id: string): Promise<void> {
      await this.mqtt.publish(`out/${id}`, payload)
    }
  }
  await start({ providers: [Relay] })
  await broker.deliver('in/7', 1)
  expect((await broker.nextMessage('out/7')).payload.toString()).toBe('1')
})

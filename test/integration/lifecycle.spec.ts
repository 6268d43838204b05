import 'reflect-metadata'
import { type IncomingMessage, request } from 'node:http'
import { json } from 'node:stream/consumers'
import { setImmediate as nextTurn } from 'node:timers/promises'
import {
  type BeforeApplicationShutdown,
  Controller,
  Get,
  Inject,
  Injectable,
  Module,
  type OnModuleDestroy,
  type OnModuleInit,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import {
  type AsyncMicroserviceOptions,
  EventPattern,
  MessagePattern,
  type MicroserviceOptions,
  Payload,
} from '@nestjs/microservices'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  handle,
  InjectMqtt,
  MqttModule,
  MqttService,
  type MqttTransport,
  mqttTransportId,
  mqttTransportToken,
  type PublishOutcome,
} from '../../src/index.js'
import { EmbeddedBroker, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { appModule, CollectingLogger, startMicroservice } from '../support/nest-app.js'

const story: unknown[] = []
let gate: Gate
let broker: EmbeddedBroker

@Injectable()
class Database implements OnModuleInit, OnModuleDestroy {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  async onModuleInit(): Promise<void> {
    story.push(['init', this.mqtt.state.status, (await this.mqtt.publish('online', 1)).status])
  }

  async onModuleDestroy(): Promise<void> {
    story.push(['destroy', (await this.mqtt.publish('offline', 1, { qos: 1 })).status])
  }
}

@Controller()
class SlowController {
  @EventPattern('slow', handle({ qos: 1 }))
  async onSlow(@Payload() value: unknown): Promise<void> {
    await gate.pass()
    story.push(['handled', value])
  }
}

@Controller()
class EchoController {
  @MessagePattern('echo')
  echo(@Payload() value: unknown): unknown {
    return value
  }
}

@Controller()
class HttpController {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  @Get()
  async publish(): Promise<unknown> {
    await gate.pass()
    const sent = await this.mqtt.publish('out', 1)
    const acknowledged = await this.mqtt.publish('out', 2, { qos: 1 })
    return [sent.status, acknowledged.status, await this.mqtt.request('echo', 'echo')]
  }
}

/** Tells when the destroy hooks of all modules have run. */
@Injectable()
class AfterDestroy implements BeforeApplicationShutdown {
  beforeApplicationShutdown(): void {
    story.push('destroyed')
  }
}

type Hybrid = Awaited<ReturnType<typeof NestFactory.create>>

/** On a connection that ends with the response, or the server would wait for the next request on it. */
async function get(url: string): Promise<unknown> {
  const response = await new Promise<IncomingMessage>((resolve, reject) =>
    request(url, { agent: false }, resolve).on('error', reject).end(),
  )
  return json(response)
}

const PARTS = { controllers: [SlowController], providers: [Database] }

beforeEach(async () => {
  story.length = 0
  gate = new Gate()
  broker = await EmbeddedBroker.start()
})
afterEach(() => broker.stop())

const hybrid = async (configure: (app: Hybrid) => void = () => {}) => {
  const logger = new CollectingLogger()
  const app = await NestFactory.create(appModule({ url: broker.url }, PARTS), { logger, abortOnError: false })
  configure(app)
  await app.init()
  await app.startAllMicroservices()
  return { app, logger, mqtt: app.get(MqttService) }
}

describe('a pure microservice', () => {
  it('is connected in the init hooks; close() waits for handlers, and the destroy hooks can still publish', async () => {
    const { app, mqtt } = await startMicroservice({ url: broker.url }, PARTS)
    await mqtt.publish('slow', 1, { qos: 1 })
    await gate.reached()
    const closed = app.close()
    story.push('closing')
    gate.open()
    await closed
    expect(story).toEqual([
      ['init', 'connected', 'sent'],
      'closing',
      ['handled', 1],
      ['destroy', 'acknowledged'],
    ])
    expect(mqtt.state.status).toBe('closed')
    await eventually(() => broker.connectedClients === 0)
  })

  it('does not start if the broker is not available, with an error that says where and why', async () => {
    const { url } = broker
    await broker.stop()
    await expect(startMicroservice({ url }, PARTS)).rejects.toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringMatching(
        /could not connect to mqtt:\/\/127\.0\.0\.1:\d+: connect ECONNREFUSED 127\.0\.0\.1:\d+/,
      ),
    })
    broker = await EmbeddedBroker.start()
  })

  it('starts in the background, and connects and subscribes once the broker is available', async () => {
    const { url } = broker
    await broker.stop()
    const { app, mqtt } = await startMicroservice(
      { url, connect: 'background', reconnect: { delayMs: [1] } },
      { controllers: [SlowController] },
    )
    expect(await mqtt.publish('slow', 1)).toEqual({ status: 'dropped', reason: 'offline' })
    broker = await EmbeddedBroker.start({ port: Number(new URL(url).port) })
    await eventually(() => mqtt.stats().subscriptions.granted === 1)
    gate.open()
    await mqtt.publish('slow', 'at last', { qos: 1 })
    await eventually(() => story.length === 1)
    expect(story).toEqual([['handled', 'at last']])
    await app.close()
  })

  it('does not start if the broker refuses a subscription, with an error that names it', async () => {
    await broker.stop()
    broker = await EmbeddedBroker.start({ allowSubscribe: filter => filter !== 'slow' })
    await expect(startMicroservice({ url: broker.url }, PARTS)).rejects.toMatchObject({
      code: 'SUBSCRIBE_REFUSED',
      message: expect.stringContaining('"slow"'),
    })
    await eventually(() => broker.connectedClients === 0)
  })

  it('does not start if the broker refuses the credentials, with an error that does not show them', async () => {
    await broker.stop()
    broker = await EmbeddedBroker.start({ allowConnect: () => false })
    const failure = await startMicroservice(
      { url: broker.url, username: 'truck', password: 'hunter2' },
      PARTS,
    ).catch((error: unknown) => error)
    expect(failure).toMatchObject({
      code: 'CONNECT_REFUSED',
      message: expect.stringContaining('0x05 Not authorized'),
    })
    expect(String(failure)).not.toContain('hunter2')
  })
})

describe('a hybrid application', () => {
  it('drains before its own resources are destroyed, with enableDrain', async () => {
    const { app, mqtt } = await hybrid(app => {
      app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
      MqttModule.enableDrain(app, [])
    })
    await mqtt.publish('slow', 1, { qos: 1 })
    await gate.reached()
    const closed = app.close()
    for (let turn = 0; turn < 100; turn += 1) await nextTurn()
    expect(story).toEqual([['init', 'connected', 'sent']])
    gate.open()
    await closed
    expect(story).toEqual([
      ['init', 'connected', 'sent'],
      ['handled', 1],
      ['destroy', 'acknowledged'],
    ])
    await eventually(() => broker.connectedClients === 0)
  })

  it.each([
    ['with enableDrain', (app: Hybrid) => MqttModule.enableDrain(app, [])],
    ['without enableDrain', () => {}],
  ])('lets an HTTP handler publish and send requests during the shutdown, %s', async (_how, configure) => {
    const responder = await startMicroservice({ url: broker.url }, { controllers: [EchoController] })
    const parts = { controllers: [SlowController, HttpController], providers: [AfterDestroy] }
    const app = await NestFactory.create(appModule({ url: broker.url }, parts), { logger: false })
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
    configure(app)
    await app.startAllMicroservices()
    await app.listen(0, '127.0.0.1')
    const mqtt = app.get(MqttService)
    const response = get(await app.getUrl())
    await gate.reached()
    const closed = app.close()
    await eventually(() => story.includes('destroyed'))
    gate.open()
    expect(await response).toEqual(['sent', 'acknowledged', 'echo'])
    await closed
    expect(mqtt.state.status).toBe('closed')
    await responder.app.close()
  })

  it('closes even if an HTTP handler waits for a publish that the broker never acknowledges', async () => {
    const peer = new ScriptedPeer()
    const options = { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 100 } as const
    const app = await NestFactory.create(appModule(options, { controllers: [HttpController] }), {
      logger: false,
    })
    const listening = app.listen(0, '127.0.0.1')
    const connection = await peer.accept()
    await listening
    const response = get(await app.getUrl())
    gate.open()
    while ((await connection.find('publish')).qos !== 1);
    await app.close()
    expect(await response).toMatchObject({ statusCode: 500 })
  })

  it('closes before it listens, twice, and after a failed start', async () => {
    const notStarted = await NestFactory.create(appModule({ url: broker.url }, PARTS), { logger: false })
    notStarted.connectMicroservice(MqttModule.microservice())
    await notStarted.close()
    await notStarted.close()
    const { app } = await hybrid(app => app.connectMicroservice(MqttModule.microservice()))
    await Promise.all([app.close(), app.close()])
    await app.close()
    await broker.stop()
    const failed = await NestFactory.create(appModule({ url: broker.url }, PARTS), {
      logger: false,
      abortOnError: false,
    })
    await expect(failed.init()).rejects.toMatchObject({ code: 'CONNECT_FAILED' })
    await failed.close()
    await failed.close()
  })

  it('closes once on a signal, and removes its listeners', async () => {
    const before = process.listenerCount('SIGUSR2')
    const { app, mqtt } = await hybrid(app => {
      app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
      MqttModule.enableDrain(app, ['SIGUSR2'])
    })
    process.kill(process.pid, 'SIGUSR2')
    process.kill(process.pid, 'SIGUSR2')
    await eventually(() => mqtt.state.status === 'closed')
    await app.close()
    expect(story.filter(entry => Array.isArray(entry) && entry[0] === 'destroy')).toHaveLength(1)
    expect(process.listenerCount('SIGUSR2')).toBe(before)
  })

  it('warns if the process is still running 10 s after it has closed on a signal', async () => {
    const { app, mqtt, logger } = await hybrid(app => {
      app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
      MqttModule.enableDrain(app, ['SIGUSR2'])
    })
    const timer = vi.spyOn(globalThis, 'setTimeout')
    process.kill(process.pid, 'SIGUSR2')
    await eventually(() => mqtt.state.status === 'closed')
    await app.close()
    await eventually(() => timer.mock.calls.some(([, ms]) => ms === 10_000))
    const warnings = () => logger.lines.filter(line => line.includes('the process is still running'))
    expect(warnings()).toEqual([])
    const called = timer.mock.calls.findIndex(([, ms]) => ms === 10_000)
    expect(timer.mock.results[called]?.value).toSatisfy((made: NodeJS.Timeout) => !made.hasRef())
    timer.mock.calls[called]?.[0]()
    expect(warnings()).toEqual([expect.stringContaining('a timer, a connection or a server is still open')])
    clearTimeout(timer.mock.results[called]?.value)
    timer.mockRestore()
  })

  it('logs a warning if it has handlers that are not started', async () => {
    const { app, logger } = await hybrid()
    expect(logger.ofMqtt.filter(line => line.startsWith('warn'))).toEqual([
      expect.stringMatching(/SlowController\.onSlow.*app\.connectMicroservice\(MqttModule\.microservice\(\)/),
    ])
    await app.close()
  })
})

describe('a preview', () => {
  it.each([
    ['of a hybrid application', { preview: true, snapshot: true }],
    ['without the graph', { preview: true }],
  ])('%s accepts the microservice and does not connect', async (_what, options) => {
    const app = await NestFactory.create(appModule({ url: broker.url }, PARTS), {
      ...options,
      logger: false,
      abortOnError: false,
    })
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
    MqttModule.enableDrain(app, [])
    await app.init()
    await app.close()
    expect(broker.connectedClients).toBe(0)
    expect(story).toEqual([])
  })

  it('of a pure microservice is created and does not connect', async () => {
    const app = await NestFactory.createMicroservice<AsyncMicroserviceOptions>(
      appModule({ url: broker.url }, PARTS),
      { ...MqttModule.microservice(), preview: true, logger: false, abortOnError: false },
    )
    await app.init()
    await app.close()
    expect(broker.connectedClients).toBe(0)
  })

  it('snapshot: true alone starts the application as usual', async () => {
    const app = await NestFactory.create(appModule({ url: broker.url }, PARTS), {
      snapshot: true,
      logger: false,
    })
    app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
    await app.init()
    await app.startAllMicroservices()
    expect(app.get(MqttService).state.status).toBe('connected')
    await app.close()
  })
})

describe('an application that only publishes', () => {
  it('needs no transport, and logs no warning', async () => {
    const logger = new CollectingLogger()
    const app = await NestFactory.createApplicationContext(
      appModule({ url: broker.url }, { providers: [Database] }),
      {
        logger,
      },
    )
    await app.close()
    expect(story).toEqual([
      ['init', 'connected', 'sent'],
      ['destroy', 'acknowledged'],
    ])
    expect(logger.ofMqtt.filter(line => line.startsWith('warn'))).toEqual([])
  })
})

describe('several connections', () => {
  it('each have their own service, transport and handlers', async () => {
    const other = await EmbeddedBroker.start()

    @Controller()
    class EdgeController {
      constructor(@InjectMqtt('edge') private readonly edge: MqttService) {}

      @EventPattern('in', mqttTransportId('edge'))
      async onEdge(@Payload() value: unknown): Promise<void> {
        story.push(['edge', value])
        const outcome: PublishOutcome = await this.edge.publish('out', value, { qos: 1 })
        story.push(outcome.status)
      }

      @EventPattern('in', mqttTransportId())
      onCloud(@Payload() value: unknown): void {
        story.push(['cloud', value])
      }
    }

    @Module({
      imports: [
        MqttModule.forRoot({ url: broker.url }),
        MqttModule.forRootAsync({ name: 'edge', useFactory: () => ({ url: other.url }) }),
      ],
      controllers: [EdgeController],
    })
    class AppModule {}

    const app = await NestFactory.create(AppModule, { logger: false })
    app.connectMicroservice<MicroserviceOptions>({ strategy: app.get<MqttTransport>(mqttTransportToken()) })
    app.connectMicroservice(MqttModule.microservice('edge'))
    await app.startAllMicroservices()
    await broker.publish('in', '1', { qos: 1 })
    await eventually(() => story.length === 1)
    await other.publish('in', '2', { qos: 1 })
    await eventually(() => story.length === 3)
    expect(story).toEqual([['cloud', 1], ['edge', 2], 'acknowledged'])
    await app.close()
    await other.stop()
  })
})

it('two connections with the same name, or without one, are refused when the application starts', async () => {
  const options = { url: broker.url }

  @Module({ imports: [MqttModule.forRoot(options)] })
  class FeatureModule {}

  @Module({ imports: [FeatureModule, MqttModule.forRoot(options)] })
  class AppModule {}

  const app = await NestFactory.createApplicationContext(
    { module: class {}, imports: [AppModule] },
    { logger: false, abortOnError: false },
  ).catch((error: unknown) => error)
  expect(app).toMatchObject({ code: 'INVALID_OPTION', message: expect.stringContaining('imported 2 times') })
})

describe('options', () => {
  it('are validated before the application is created', async () => {
    const module = appModule({ url: 'http://nowhere', connectTimeoutMs: -1 }, {})
    await expect(
      NestFactory.createApplicationContext(module, { logger: false, abortOnError: false }),
    ).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(
        /"url".*"connectTimeoutMs" must be an integer from 1 to 3600000, but is -1/,
      ),
    })
  })

  it.each(['a/#/b', { cmd: 'a/+' }])(
    'an invalid Topic Filter as a pattern is refused when the application is created: %j',
    async pattern => {
      @Controller()
      class WrongController {
        @EventPattern(pattern)
        on(): void {}
      }
      await expect(
        startMicroservice({ url: broker.url }, { controllers: [WrongController] }),
      ).rejects.toMatchObject({
        code: 'INVALID_TOPIC_FILTER',
      })
    },
  )
})

it('status$, the status of Nest and on() report the same states', async () => {
  const { app, mqtt } = await startMicroservice({ url: broker.url }, PARTS)
  const seen: string[] = []
  const ofNest: string[] = []
  const ofOn: string[] = []
  mqtt.status$.subscribe(state => seen.push(state.status))
  app.status.subscribe(status => ofNest.push(String(status)))
  app.on('state', (state: { status: string }) => ofOn.push(state.status))
  await app.close()
  expect(seen).toEqual(['connected', 'closing', 'closed'])
  expect(ofNest).toEqual(seen)
  expect(ofOn).toEqual(['closing', 'closed'])
})

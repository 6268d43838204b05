import { Controller, Get, type INestApplication, Inject, Module, type Type } from '@nestjs/common'
import { ModuleRef, NestFactory } from '@nestjs/core'
import { EventPattern } from '@nestjs/microservices'
import { HealthCheck, HealthCheckService, HealthIndicatorService, TerminusModule } from '@nestjs/terminus'
import { afterEach, describe, expect, it } from 'vitest'
import { MqttHealthIndicator } from '../../src/health/index.js'
import { MqttModule, type MqttModuleOptions, MqttService, mqttServiceToken } from '../../src/index.js'
import { EmbeddedBroker, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'

@Controller('health')
class HealthController {
  constructor(
    @Inject(HealthCheckService) private readonly health: HealthCheckService,
    @Inject(MqttHealthIndicator) private readonly mqtt: MqttHealthIndicator,
  ) {}

  @Get('startup')
  @HealthCheck()
  startup() {
    return this.health.check([() => this.mqtt.startup()])
  }

  @Get('ready')
  @HealthCheck()
  ready() {
    return this.health.check([() => this.mqtt.readiness()])
  }

  @Get('live')
  @HealthCheck()
  live() {
    return this.health.check([() => this.mqtt.liveness()])
  }

  @Get('edge')
  @HealthCheck()
  edge() {
    return this.health.check([
      () => this.mqtt.readiness({ connection: 'edge' }),
      () => this.mqtt.readiness({ connection: 'edge', key: 'the edge' }),
    ])
  }
}

const open: { close(): Promise<void> }[] = []

afterEach(async () => {
  for (const resource of open.splice(0).reverse()) await resource.close()
})

async function startBroker(): Promise<EmbeddedBroker> {
  const broker = await EmbeddedBroker.start()
  open.push({ close: () => broker.stop() })
  return broker
}

interface HealthResponse {
  readonly httpStatus: number
  readonly status: string
  readonly details: Record<string, Record<string, unknown>>
}

/** A hybrid application with the endpoints, and a function that calls one of them. */
async function startApp(options: MqttModuleOptions, controllers: Type[] = [], edgeUrl?: string) {
  const edge =
    edgeUrl === undefined ? [] : [MqttModule.forRoot({ name: 'edge', url: edgeUrl, drainTimeoutMs: 200 })]
  @Module({
    imports: [
      MqttModule.forRoot({ connect: 'background', drainTimeoutMs: 200, ...options }),
      ...edge,
      TerminusModule.forRoot({ logger: false }),
    ],
    controllers: [HealthController, ...controllers],
    providers: [MqttHealthIndicator],
  })
  class AppModule {}
  const app: INestApplication = await NestFactory.create(AppModule, { logger: false, abortOnError: false })
  app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
  await app.startAllMicroservices()
  await app.listen(0, '127.0.0.1')
  open.push(app)
  const url = await app.getUrl()
  const ask = async (path: string): Promise<HealthResponse> => {
    const response = await fetch(`${url}/health/${path}`, { headers: { connection: 'close' } })
    const body: Omit<HealthResponse, 'httpStatus'> = JSON.parse(await response.text())
    return { httpStatus: response.status, status: body.status, details: body.details }
  }
  return { app, ask, mqtt: app.get(MqttService) }
}

describe('MqttHealthIndicator with terminus', () => {
  it('is down at startup and readiness, and alive, until the first connection has been made', async () => {
    const peer = new ScriptedPeer()
    const { ask, mqtt } = await startApp({ createStream: peer.createStream, reconnect: { delayMs: [1] } })
    for (const path of ['startup', 'ready'])
      expect(await ask(path)).toMatchObject({
        httpStatus: 503,
        status: 'error',
        details: { mqtt: { status: 'down', state: 'down', connection: 'connecting' } },
      })
    expect(await ask('live')).toMatchObject({
      httpStatus: 200,
      status: 'ok',
      details: { mqtt: { status: 'up', state: 'down', reasons: ['the connection is connecting'] } },
    })
    expect(mqtt.health.hasStarted).toBe(false)
  })

  it('is up everywhere with a connection and its subscriptions', async () => {
    const broker = await startBroker()
    const { ask, mqtt } = await startApp({ url: broker.url })
    await eventually(() => mqtt.health.hasStarted)
    for (const path of ['startup', 'ready', 'live'])
      expect(await ask(path)).toEqual({
        httpStatus: 200,
        status: 'ok',
        details: {
          mqtt: {
            status: 'up',
            state: 'up',
            connection: 'connected',
            reasons: [],
            refusedSubscriptions: [],
            unansweredSubscriptions: [],
            droppedInLastMinute: { inbound: 0, outbound: 0 },
          },
        },
      })
  })

  it('stays started and alive after the broker is gone, and is not ready, with the cause', async () => {
    const broker = await startBroker()
    const { ask, mqtt } = await startApp({ url: broker.url, reconnect: { delayMs: [60_000] } })
    await eventually(() => mqtt.health.hasStarted)
    await broker.stop()
    await eventually(() => mqtt.state.status === 'waiting')
    expect(await ask('startup')).toMatchObject({
      httpStatus: 200,
      details: { mqtt: { status: 'up', state: 'down' } },
    })
    expect(await ask('live')).toMatchObject({ httpStatus: 200, details: { mqtt: { status: 'up' } } })
    const { httpStatus, details } = await ask('ready')
    expect(httpStatus).toBe(503)
    expect(details['mqtt']).toMatchObject({
      status: 'down',
      connection: 'waiting',
      reasons: [expect.stringMatching(/^the connection is waiting: the broker/)],
    })
  })

  it('is not started while the broker has not responded to a subscription', async () => {
    @Controller()
    class Devices {
      @EventPattern<string>('devices/#')
      onDevice(): void {}
    }
    const peer = new ScriptedPeer()
    const { ask, mqtt } = await startApp({ createStream: peer.createStream, protocolVersion: 5 }, [Devices])
    const connection = await peer.accept()
    const subscribe = await connection.find('subscribe')
    const notStarted = 'the broker has not granted every subscription since the start'
    for (const path of ['startup', 'ready'])
      expect(await ask(path)).toMatchObject({
        httpStatus: 503,
        details: { mqtt: { status: 'down', state: 'up', reasons: [notStarted] } },
      })
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [1] })
    await eventually(() => mqtt.stats().subscriptions.granted === 1)
    for (const path of ['startup', 'ready']) expect((await ask(path)).httpStatus).toBe(200)
  })

  it('is degraded with drops in the last minute, and the endpoint responds with 200', async () => {
    const broker = await startBroker()
    const { ask, mqtt } = await startApp({ url: broker.url, reconnect: { delayMs: [1] } })
    await eventually(() => mqtt.health.hasStarted)
    await broker.cut()
    expect(await mqtt.publish('a', 1)).toMatchObject({ status: 'dropped', reason: 'offline' })
    await mqtt.whenConnected()
    expect(await ask('ready')).toMatchObject({
      httpStatus: 200,
      status: 'degraded',
      details: {
        mqtt: {
          status: 'degraded',
          reasons: ['publishes dropped in the last minute: 1'],
          droppedInLastMinute: { inbound: 0, outbound: 1 },
        },
      },
    })
  })

  it('is not ready as soon as the client drains', async () => {
    const broker = await startBroker()
    const { ask, mqtt } = await startApp({ url: broker.url, drainTimeoutMs: 2_000 })
    await eventually(() => mqtt.health.hasStarted)
    const gate = new Gate()
    const subscription = mqtt.subscribe('a', () => gate.pass())
    await subscription.whenGranted()
    const delivered = broker.deliver('a', 1)
    await gate.reached()
    void mqtt.drain()
    expect(await ask('ready')).toMatchObject({
      httpStatus: 503,
      details: { mqtt: { status: 'down', reasons: ['the application is closing the connection'] } },
    })
    expect((await ask('live')).httpStatus).toBe(200)
    gate.open()
    await delivered
  })

  it('lists at most 100 refused filters, each shortened, and their number in the reason', async () => {
    const peer = new ScriptedPeer()
    const { ask, mqtt } = await startApp({
      createStream: peer.createStream,
      protocolVersion: 5,
      refusedSubscription: 'warn',
    })
    const connection = await peer.accept()
    const filters = Array.from({ length: 150 }, (_, index) => `${index}/${'x'.repeat(1_000)}`)
    for (const filter of filters) mqtt.subscribe(filter, () => {})
    const codes = filters.map(() => 0x87)
    for (let sent = 0; sent < filters.length; )
      sent += (await connection.grant(...codes)).subscriptions.length
    await eventually(() => mqtt.health.refusedSubscriptions.length === filters.length)
    expect((await ask('ready')).details['mqtt']).toMatchObject({
      state: 'degraded',
      reasons: [
        expect.stringMatching(/^the broker refuses subscriptions \(150\): 0\/x+…, 1\/x+…, 2\/x+…, …$/),
      ],
      refusedSubscriptions: filters.slice(0, 100).map(filter => `${filter.slice(0, 500)}…`),
    })
  })

  it('checks a connection by its name', async () => {
    const broker = await startBroker()
    const { app, ask } = await startApp({ url: broker.url }, [], broker.url)
    const edge = app.get<MqttService>(mqttServiceToken('edge'))
    await edge.whenConnected()
    expect(Object.keys((await ask('edge')).details)).toEqual(['mqtt:edge', 'the edge'])
  })

  it('reports up with the reasons if terminus has no status "degraded"', async () => {
    class OldIndicators extends HealthIndicatorService {
      override check(key: string) {
        const session = super.check(key)
        Object.defineProperty(session, 'degraded', { value: undefined })
        return session
      }
    }
    const broker = await startBroker()
    const { app, mqtt } = await startApp({ url: broker.url, reconnect: { delayMs: [1] } })
    await eventually(() => mqtt.health.hasStarted)
    await broker.cut()
    await mqtt.publish('a', 1)
    await mqtt.whenConnected()
    const indicator = new MqttHealthIndicator(new OldIndicators(), app.get(ModuleRef))
    expect(indicator.readiness()).toMatchObject({
      mqtt: { status: 'up', state: 'degraded', reasons: ['publishes dropped in the last minute: 1'] },
    })
  })
})

import 'reflect-metadata'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { Controller, Inject, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { type AsyncMicroserviceOptions, Ctx, EventPattern } from '@nestjs/microservices'
import { createObserveModule } from '@nestjs/observe'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClientProxy, type MqttContext, MqttModule, MqttService } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'

const TOPICS = 1_000

/** What the agent of @nestjs/observe sends to its service. */
class Collector {
  readonly bodies: unknown[] = []
  private constructor(private readonly server: Server) {
    server.on('request', async (request: IncomingMessage, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      const bytes = Buffer.concat(chunks)
      const isGzip = request.headers['content-encoding'] === 'gzip'
      this.bodies.push(JSON.parse((isGzip ? gunzipSync(bytes) : bytes).toString()))
      response.writeHead(200, { 'content-type': 'application/json', connection: 'close' }).end('{}')
    })
  }

  static async start(): Promise<Collector> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Collector(server)
  }

  get url(): string {
    // Seam: a server that listens on a port has an address of this form.
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  /** Every text in what was sent that starts like this. */
  textsWith(start: string): string[] {
    const texts: string[] = []
    const visit = (value: unknown): void => {
      if (typeof value === 'string' && value.startsWith(start)) texts.push(value)
      else if (typeof value === 'object' && value !== null) Object.values(value).forEach(visit)
    }
    visit(this.bodies)
    return texts
  }

  stop(): void {
    this.server.close()
  }
}

const metadata: unknown[] = []

@Controller()
class Meters {
  constructor(@Inject(MqttClientProxy) private readonly proxy: MqttClientProxy) {}

  @EventPattern('meters/+meterId/reading')
  onReading(_reading: number): void {}

  @EventPattern('commands/+meterId')
  onCommand(_command: unknown): unknown {
    return this.proxy.emit('alarms/7', 1)
  }

  @EventPattern('alarms/+meterId')
  onAlarm(@Ctx() context: MqttContext): void {
    metadata.push(context.getMetadata())
  }
}

let broker: Mosquitto
let collector: Collector

beforeEach(async () => {
  broker = await Mosquitto.start()
  collector = await Collector.start()
})
afterEach(async () => {
  collector.stop()
  await broker.stop()
})

describe('@nestjs/observe', () => {
  it(`has one operation for ${TOPICS} topics of a pattern, and its trace id travels in the metadata`, async () => {
    const { ObserveInstrument, ObserveModule } = createObserveModule()
    @Module({
      imports: [
        ObserveModule.forRoot({
          appKey: 'key',
          appSecret: 'secret',
          serviceId: 'meters',
          endpoint: collector.url,
          flushInterval: 100,
          runtimeMetrics: false,
          tracesSampleRate: 1,
        }),
        MqttModule.forRoot({ url: broker.url, protocolVersion: 5 }),
      ],
      controllers: [Meters],
    })
    class AppModule {}
    const app = await NestFactory.createMicroservice<AsyncMicroserviceOptions>(AppModule, {
      ...MqttModule.microservice(),
      ...(ObserveInstrument === undefined ? {} : { instrument: ObserveInstrument }),
      logger: ['error'],
    })
    await app.listen()
    const mqtt = app.get(MqttService)
    for (let meter = 0; meter < TOPICS; meter += 1)
      await mqtt.publish(`meters/${meter}/reading`, meter, { qos: 1 })
    await mqtt.publish('commands/7', 1, { qos: 1 })
    await eventually(() => metadata.length === 1)
    await eventually(() => collector.textsWith('meters/').length >= TOPICS)
    await app.close()
    const operations = collector.textsWith('meters/')
    expect(new Set(operations)).toEqual(new Set(['meters/+meterId/reading']))
    expect(operations).toHaveLength(TOPICS)
    expect(metadata).toEqual([{ 'x-request-id': expect.any(String) }])
  })
})

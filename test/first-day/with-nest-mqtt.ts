import {
  Controller,
  Get,
  Inject,
  Injectable,
  Logger,
  Module,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
  ServiceUnavailableException,
} from '@nestjs/common'
import type { MqttClient } from 'mqtt'
import { MqttModule, MqttService, Params, Payload, Subscribe } from 'nest-mqtt'
import * as v from 'valibot'

// What this application cannot do: acknowledge after the handler or its batch, retry, wait for the outcome of a publish,
// find out about a lost session, validate before it publishes, use guards, pipes, interceptors or filters.

const Celsius = v.object({ celsius: v.number() })
const KilowattHours = v.object({ kWh: v.number() })
const DEFAULT_LIMIT = 8
const BATCH = 10
const BATCH_WAIT_MS = 50
const PRESENCE = 'services/cold-chain'

/** Token of the client of `nest-mqtt`. */
const CLIENT = 'MQTT_CLIENT_INSTANCE'

@Injectable()
export class Connection implements OnApplicationBootstrap, OnModuleDestroy {
  readonly events: string[] = []
  readonly unmatched: string[] = []

  constructor(@Inject(CLIENT) private readonly mqtt: MqttClient) {}

  get isConnected(): boolean {
    return this.mqtt.connected
  }

  onApplicationBootstrap(): void {
    const known = [/^devices\/[^/]+\/(telemetry|limit|calibration)$/, /^meters\/[^/]+\/energy$/]
    this.mqtt.on('connect', () => {
      this.events.push('connected')
      this.announce('up')
    })
    this.mqtt.on('close', () => this.events.push('disconnected'))
    this.mqtt.on('message', topic => {
      if (!known.some(pattern => pattern.test(topic))) this.unmatched.push(topic)
    })
    if (this.mqtt.connected) this.announce('up')
  }

  async onModuleDestroy(): Promise<void> {
    await this.mqtt.publishAsync(PRESENCE, JSON.stringify('down'), { qos: 1, retain: true })
    await this.mqtt.endAsync()
  }

  private announce(state: string): void {
    this.mqtt.publish(PRESENCE, JSON.stringify(state), { qos: 1, retain: true }, error => {
      if (error) this.events.push(`presence failed: ${error.message}`)
    })
  }
}

@Injectable()
export class EnergyBatch implements OnModuleDestroy {
  readonly rows: (readonly [meterId: string, kWh: number])[] = []
  private waiting: (readonly [meterId: string, kWh: number])[] = []
  private timer: NodeJS.Timeout | undefined

  add(meterId: string, kWh: number): void {
    this.waiting.push([meterId, kWh])
    if (this.waiting.length >= BATCH) this.flush()
    else this.timer ??= setTimeout(() => this.flush(), BATCH_WAIT_MS)
  }

  onModuleDestroy(): void {
    this.flush()
  }

  private flush(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.rows.push(...this.waiting)
    this.waiting = []
  }
}

@Injectable()
export class ColdChain {
  private readonly logger = new Logger(ColdChain.name)
  private readonly limits = new Map<string, number>()

  constructor(
    @Inject(MqttService) private readonly mqtt: MqttService,
    @Inject(EnergyBatch) private readonly batch: EnergyBatch,
  ) {}

  @Subscribe('devices/+/telemetry')
  async onTelemetry(@Payload() payload: unknown, @Params() [deviceId = '']: string[]): Promise<void> {
    const reading = this.valid(Celsius, payload)
    if (reading === undefined || reading.celsius <= (this.limits.get(deviceId) ?? DEFAULT_LIMIT)) return
    await this.mqtt.publish(`devices/${deviceId}/alarm`, reading, { qos: 1 })
  }

  @Subscribe('devices/+/limit')
  onLimit(@Payload() payload: unknown, @Params() [deviceId = '']: string[]): void {
    const limit = this.valid(Celsius, payload)
    if (limit === undefined) this.limits.delete(deviceId)
    else this.limits.set(deviceId, limit.celsius)
  }

  /** There are no requests: the device sends the topic of its response in the payload. */
  @Subscribe('devices/+/calibration')
  async calibrate(@Payload() payload: unknown): Promise<void> {
    const request = this.valid(
      v.object({ celsius: v.number(), replyTo: v.string(), id: v.string() }),
      payload,
    )
    if (request === undefined) return
    await this.mqtt.publish(request.replyTo, { id: request.id, offset: -request.celsius })
  }

  @Subscribe('meters/+/energy')
  onEnergy(@Payload() payload: unknown, @Params() [meterId = '']: string[]): void {
    const reading = this.valid(KilowattHours, payload)
    if (reading !== undefined) this.batch.add(meterId, reading.kWh)
  }

  private valid<S extends v.GenericSchema>(schema: S, payload: unknown): v.InferOutput<S> | undefined {
    const { success, output, issues } = v.safeParse(schema, payload)
    if (success) return output
    this.logger.warn(issues.map(issue => `${v.getDotPath(issue) ?? 'payload'}: ${issue.message}`).join(', '))
    return undefined
  }
}

@Controller('health')
class HealthController {
  constructor(@Inject(Connection) private readonly connection: Connection) {}

  @Get('ready')
  ready(): { status: string } {
    if (!this.connection.isConnected) throw new ServiceUnavailableException({ status: 'error' })
    return { status: 'ok' }
  }

  @Get('live')
  live(): { status: string } {
    return { status: 'ok' }
  }
}

export function coldChain(host: string, port: number) {
  @Module({
    imports: [
      MqttModule.forRoot({
        host,
        port,
        clientId: 'cold-chain',
        clean: false,
        reconnectPeriod: 10,
        will: { topic: PRESENCE, payload: Buffer.from('"down"'), qos: 1, retain: true },
      }),
    ],
    controllers: [HealthController],
    providers: [Connection, EnergyBatch, ColdChain],
  })
  class AppModule {}
  return AppModule
}

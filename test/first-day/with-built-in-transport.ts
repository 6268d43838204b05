import {
  Controller,
  Get,
  Inject,
  Injectable,
  Module,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
  type PipeTransform,
  ServiceUnavailableException,
} from '@nestjs/common'
import {
  type ClientProxy,
  ClientsModule,
  Ctx,
  EventPattern,
  MessagePattern,
  type MqttContext,
  type MqttOptions,
  MqttRecordBuilder,
  Payload,
  RpcException,
  Transport,
} from '@nestjs/microservices'
import type { MqttClient } from 'mqtt'
import { firstValueFrom } from 'rxjs'
import * as v from 'valibot'

// What this application cannot do: acknowledge after the handler or its batch, retry, wait for the outcome of a publish,
// find out about a lost session, validate before it publishes, tell a response of another process from its own.

const Celsius = v.object({ celsius: v.number() })
const KilowattHours = v.object({ kWh: v.number() })
const DEFAULT_LIMIT = 8
const BATCH = 10
const BATCH_WAIT_MS = 50
const PRESENCE = 'services/cold-chain'

export const optionsOf = (url: string): MqttOptions => ({
  transport: Transport.MQTT,
  options: {
    url,
    clientId: 'cold-chain',
    clean: false,
    reconnectPeriod: 10,
    subscribeOptions: { qos: 1 },
    will: { topic: PRESENCE, payload: '"down"', qos: 1, retain: true },
  },
})

class SchemaPipe<S extends v.GenericSchema> implements PipeTransform {
  constructor(private readonly schema: S) {}

  transform(value: unknown): v.InferOutput<S> {
    const { success, output, issues } = v.safeParse(this.schema, value)
    if (success) return output
    throw new RpcException(
      issues.map(issue => `${v.getDotPath(issue) ?? 'payload'}: ${issue.message}`).join(', '),
    )
  }
}

const levelOf = (context: MqttContext, level: number): string => context.getTopic().split('/')[level] ?? ''

@Injectable()
class Limits {
  private readonly values = new Map<string, number>()

  set(deviceId: string, celsius: number | undefined): void {
    if (celsius === undefined) this.values.delete(deviceId)
    else this.values.set(deviceId, celsius)
  }

  get(deviceId: string): number {
    return this.values.get(deviceId) ?? DEFAULT_LIMIT
  }
}

@Injectable()
export class Connection implements OnApplicationBootstrap, OnModuleDestroy {
  readonly events: string[] = []
  readonly unmatched: string[] = []
  isConnected = false

  constructor(@Inject('MQTT') private readonly client: ClientProxy) {}

  async onApplicationBootstrap(): Promise<void> {
    this.client.status.subscribe(status => {
      this.isConnected = status === 'connected'
      this.events.push(status)
    })
    await this.client.connect()
    const mqtt = this.client.unwrap<MqttClient>()
    mqtt.on('connect', () => this.announce(mqtt, 'up'))
    this.announce(mqtt, 'up')
  }

  /** The server of the built-in transport has a client of its own. */
  watch(server: MqttClient): void {
    const known = [/^devices\/[^/]+\/(telemetry|limit|calibration)$/, /^meters\/[^/]+\/energy$/]
    server.on('message', topic => {
      if (!known.some(pattern => pattern.test(topic))) this.unmatched.push(topic)
    })
  }

  async onModuleDestroy(): Promise<void> {
    const mqtt = this.client.unwrap<MqttClient>()
    await mqtt.publishAsync(PRESENCE, JSON.stringify('down'), { qos: 1, retain: true })
    await this.client.close()
  }

  private announce(mqtt: MqttClient, state: string): void {
    mqtt.publish(PRESENCE, JSON.stringify(state), { qos: 1, retain: true }, error => {
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

@Controller()
class ColdChainController {
  constructor(
    @Inject('MQTT') private readonly client: ClientProxy,
    @Inject(Limits) private readonly limits: Limits,
    @Inject(EnergyBatch) private readonly batch: EnergyBatch,
  ) {}

  @EventPattern<string>('devices/+/telemetry')
  async onTelemetry(
    @Payload(new SchemaPipe(Celsius)) { celsius }: v.InferOutput<typeof Celsius>,
    @Ctx() context: MqttContext,
  ): Promise<void> {
    const deviceId = levelOf(context, 1)
    if (celsius <= this.limits.get(deviceId)) return
    const alarm = new MqttRecordBuilder({ celsius }).setQoS(1).build()
    await firstValueFrom(this.client.emit(`devices/${deviceId}/alarm`, alarm), { defaultValue: undefined })
  }

  @EventPattern<string>('devices/+/limit')
  onLimit(@Payload() payload: unknown, @Ctx() context: MqttContext): void {
    const { success, output } = v.safeParse(Celsius, payload)
    this.limits.set(levelOf(context, 1), success ? output.celsius : undefined)
  }

  @MessagePattern<string>('devices/+/calibration')
  calibrate(@Payload(new SchemaPipe(Celsius)) { celsius }: v.InferOutput<typeof Celsius>): {
    offset: number
  } {
    return { offset: -celsius }
  }

  @EventPattern<string>('meters/+/energy')
  onEnergy(
    @Payload(new SchemaPipe(KilowattHours)) { kWh }: v.InferOutput<typeof KilowattHours>,
    @Ctx() context: MqttContext,
  ): void {
    this.batch.add(levelOf(context, 1), kWh)
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

export function coldChain(url: string) {
  const { options } = optionsOf(url)
  @Module({
    imports: [
      ClientsModule.register([
        { name: 'MQTT', transport: Transport.MQTT, options: { ...options, clientId: 'cold-chain-client' } },
      ]),
    ],
    controllers: [ColdChainController, HealthController],
    providers: [Limits, Connection, EnergyBatch],
  })
  class AppModule {}
  return AppModule
}

import { Controller, Get, Inject, Injectable, Module } from '@nestjs/common'
import { Payload } from '@nestjs/microservices'
import { HealthCheckService, TerminusModule } from '@nestjs/terminus'
import { MqttHealthIndicator } from '../../src/health/index.js'
import {
  deadLetter,
  MqttBatch,
  type MqttError,
  type MqttMessage,
  MqttModule,
  MqttService,
  MqttTopic,
  OnMqttConnect,
  OnMqttDisconnect,
  OnMqttEvent,
  OnMqttRequest,
  OnMqttSessionLost,
  OnMqttUnmatched,
  TopicParam,
  type TopicPayload,
} from '../../src/index.js'
import { alarm, calibration, energy, limit, telemetry } from './contracts.js'

const DEFAULT_LIMIT = 8

@Injectable()
export class ColdChain {
  readonly rows: (readonly [meterId: string | undefined, kWh: number | undefined])[] = []
  readonly unmatched: string[] = []
  readonly connection: string[] = []
  private readonly limits

  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {
    this.limits = mqtt.retained(limit)
  }

  @OnMqttEvent(telemetry, {
    retries: { attempts: 2, delayMs: [10] },
    onFailure: deadLetter('dead/telemetry'),
  })
  async onTelemetry(
    @Payload() { celsius }: TopicPayload<typeof telemetry>,
    @TopicParam(telemetry, 'deviceId') deviceId: string,
  ) {
    const highest = this.limits.get(limit.at({ deviceId }).topic)?.celsius ?? DEFAULT_LIMIT
    if (celsius > highest) await this.mqtt.publish(alarm.at({ deviceId }), { celsius })
  }

  @OnMqttRequest(calibration)
  calibrate(@Payload() { celsius }: TopicPayload<typeof calibration>) {
    return { offset: -celsius }
  }

  @OnMqttEvent(energy, { batch: { maxMessages: 10, maxWaitMs: 50 } })
  onEnergy(
    @Payload() readings: TopicPayload<typeof energy>[],
    @MqttBatch() messages: readonly MqttMessage[],
  ) {
    this.rows.push(...messages.map(({ params }, index) => [params['meterId'], readings[index]?.kWh] as const))
  }

  @OnMqttUnmatched({ codec: 'bytes' })
  onUnmatched(@MqttTopic() topic: string) {
    this.unmatched.push(topic)
  }

  @OnMqttConnect()
  onConnect() {
    this.connection.push('connected')
  }

  @OnMqttDisconnect()
  onDisconnect(cause: MqttError | undefined) {
    this.connection.push(`disconnected: ${cause?.code}`)
  }

  @OnMqttSessionLost()
  onSessionLost() {
    this.connection.push('session lost')
  }
}

@Controller('health')
class HealthController {
  constructor(
    @Inject(HealthCheckService) private readonly health: HealthCheckService,
    @Inject(MqttHealthIndicator) private readonly mqtt: MqttHealthIndicator,
  ) {}

  @Get('ready')
  ready() {
    return this.health.check([() => this.mqtt.readiness()])
  }

  @Get('live')
  live() {
    return this.health.check([() => this.mqtt.liveness()])
  }
}

export function coldChain(url: string) {
  @Module({
    imports: [
      MqttModule.forRoot({
        url,
        clientId: 'cold-chain',
        clean: false,
        presence: { topic: 'services/cold-chain', online: 'up', offline: 'down' },
        reconnect: { delayMs: [10] },
      }),
      TerminusModule,
    ],
    controllers: [HealthController],
    providers: [ColdChain, MqttHealthIndicator],
  })
  class AppModule {}
  return AppModule
}

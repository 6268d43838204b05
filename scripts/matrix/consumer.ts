import { Controller, Get, Module, ParseIntPipe } from '@nestjs/common'
import { EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import type { HealthCheckService } from '@nestjs/terminus'
import {
  deadLetter,
  handle,
  InjectMqtt,
  type MqttClientProxy,
  MqttModule,
  type MqttService,
  TopicParam,
} from 'nestjs-mqtt'
import { MqttHealthIndicator } from 'nestjs-mqtt/health'
import { EmbeddedBroker, FaultLink, ScriptedPeer } from 'nestjs-mqtt/testing'

@Controller('health')
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly mqtt: MqttHealthIndicator,
  ) {}

  @Get()
  ready() {
    return this.health.check([() => this.mqtt.readiness({ connection: 'edge' })])
  }
}

@Controller()
export class DevicesController {
  constructor(
    private readonly mqtt: MqttService,
    @InjectMqtt('edge') readonly edge: MqttService,
    readonly client: MqttClientProxy,
  ) {}

  @EventPattern<string>('devices/+deviceId/telemetry', handle({ qos: 1, onFailure: deadLetter('dead') }))
  async onTelemetry(
    @Payload() reading: { celsius: number },
    @TopicParam('deviceId', ParseIntPipe) deviceId: number,
  ) {
    const outcome = await this.mqtt.publish(`devices/${deviceId}/config`, reading, { qos: 1 })
    if (outcome.status === 'dropped') console.log(outcome.reason)
  }

  @MessagePattern('devices/+deviceId/last')
  last(@TopicParam('deviceId') deviceId: string) {
    return deviceId
  }
}

@Module({
  imports: [MqttModule.forRoot({ url: 'mqtt://localhost:1883' })],
  controllers: [DevicesController, HealthController],
  providers: [MqttHealthIndicator],
})
export class AppModule {}

export async function testing(): Promise<string[]> {
  const broker = await EmbeddedBroker.start()
  const link = await FaultLink.start({ port: Number(new URL(broker.url).port) })
  const peer = new ScriptedPeer()
  await broker.cut()
  return [broker.url, link.url, String(peer.dials)]
}

import { Controller, Module, ParseIntPipe } from '@nestjs/common'
import { EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import {
  deadLetter,
  handle,
  InjectMqtt,
  type MqttClientProxy,
  MqttModule,
  type MqttService,
  TopicParam,
} from 'nestjs-mqtt'
import { EmbeddedBroker, FaultLink, ScriptedPeer } from 'nestjs-mqtt/testing'

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
  controllers: [DevicesController],
})
export class AppModule {}

export async function testing(): Promise<string[]> {
  const broker = await EmbeddedBroker.start()
  const link = await FaultLink.start({ port: Number(new URL(broker.url).port) })
  const peer = new ScriptedPeer()
  await broker.cut()
  return [broker.url, link.url, String(peer.dials)]
}

import { Controller, Get, type INestApplication, Injectable, Module, ParseIntPipe } from '@nestjs/common'
import { Ctx, EventPattern, MessagePattern, Payload } from '@nestjs/microservices'
import type { HealthCheckService } from '@nestjs/terminus'
import {
  type ConnectedSession,
  deadLetter,
  defineTopic,
  handle,
  InjectMqtt,
  MqttBatch,
  type MqttClientProxy,
  type MqttContext,
  type MqttError,
  type MqttMessage,
  MqttModule,
  MqttPacket,
  type MqttService,
  MqttTopic,
  OnMqttConnect,
  OnMqttDisconnect,
  OnMqttEvent,
  OnMqttRequest,
  OnMqttSessionLost,
  OnMqttUnmatched,
  type PublishPacket,
  type StandardSchema,
  TopicParam,
  type TopicPayload,
  UserProperty,
} from 'nestjs-mqtt'
import { type AsyncApiDocument, AsyncApiModule, createAsyncApiDocument } from 'nestjs-mqtt/asyncapi'
import { MqttHealthIndicator } from 'nestjs-mqtt/health'
import { contextOf, MqttInstrumentation, type MqttInstrumentationOptions } from 'nestjs-mqtt/opentelemetry'
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

declare const reading: StandardSchema<{ celsius: number }>
declare const accepted: StandardSchema<{ accepted: boolean }>
const telemetry = defineTopic('devices/+deviceId/telemetry', { schema: reading, qos: 1 })
const reboot = defineTopic('devices/+deviceId/reboot', { response: accepted })

@Injectable()
export class DevicesService {
  @OnMqttEvent(telemetry, { concurrency: 4 })
  async onTelemetry(
    @Payload() { celsius }: TopicPayload<typeof telemetry>,
    @TopicParam(telemetry, 'deviceId', ParseIntPipe) deviceId: number,
    @MqttTopic() topic: string,
    @MqttPacket() packet: PublishPacket,
    @UserProperty('trace') trace: string | undefined,
    @Ctx() context: MqttContext,
  ) {
    console.log(celsius, deviceId, topic, packet.qos, trace, context.pattern)
  }

  // @ts-expect-error the payload has another type
  @OnMqttEvent(telemetry)
  wrongPayload(@Payload() _reading: { fahrenheit: number }) {}

  // @ts-expect-error the pattern has no wildcard with this name
  wrongName(@TopicParam(telemetry, 'device') _device: string) {}

  @OnMqttEvent(telemetry, { batch: { maxMessages: 100 } })
  onBatch(@Payload() readings: { celsius: number }[], @MqttBatch() messages: readonly MqttMessage[]) {
    console.log(readings.length, messages.length)
  }

  @OnMqttRequest(reboot, { connection: 'edge' })
  async reboot() {
    return { accepted: true }
  }

  // @ts-expect-error the response has another type
  @OnMqttRequest(reboot)
  wrongResponse() {
    return 'accepted'
  }

  @OnMqttUnmatched({ codec: 'bytes' })
  onUnmatched(@Payload() payload: Buffer, @MqttTopic() topic: string) {
    console.log(topic, payload.length)
  }

  @OnMqttConnect()
  onConnect(session: ConnectedSession) {
    console.log(session.broker)
  }

  @OnMqttDisconnect()
  onDisconnect(cause: MqttError | undefined) {
    console.log(cause?.code)
  }

  @OnMqttSessionLost({ connection: 'edge' })
  onSessionLost() {}
}

@Module({
  imports: [MqttModule.forRoot({ url: 'mqtt://localhost:1883' })],
  controllers: [DevicesController, HealthController],
  providers: [MqttHealthIndicator, DevicesService],
})
export class AppModule {}

const Reading: StandardSchema<{ celsius: number }> = {
  '~standard': { version: 1, vendor: 'own', validate: value => ({ value: { celsius: Number(value) } }) },
}
const measured = defineTopic('devices/+deviceId/telemetry', { schema: Reading, response: Reading, qos: 1 })

export async function contracts(mqtt: MqttService): Promise<string> {
  const address = measured.at({ deviceId: '7' })
  const outcome = await mqtt.publish(address, { celsius: 21 })
  // @ts-expect-error celsius is not a string
  void mqtt.publish(address, { celsius: '21' })
  // @ts-expect-error the parameter is called deviceId
  measured.at({ id: '7' })
  const { celsius } = await mqtt.request(address, { celsius: 21 })
  mqtt.subscribe(measured, ({ payload, params }) => console.log(payload.celsius.toFixed(), params.deviceId))
  mqtt.respond(measured, ({ payload }) => payload)
  for await (const { payload } of mqtt.messages(measured)) console.log(payload.celsius.toFixed())
  return `${outcome.status} ${celsius.toFixed()} ${measured.match('devices/7/telemetry')?.deviceId}`
}

export async function testing(): Promise<string[]> {
  const broker = await EmbeddedBroker.start()
  const link = await FaultLink.start({ port: Number(new URL(broker.url).port) })
  const peer = new ScriptedPeer()
  await broker.cut()
  return [broker.url, link.url, String(peer.dials)]
}

export async function seenFromOutside(
  app: INestApplication,
  message: MqttMessage,
): Promise<AsyncApiDocument> {
  const options: MqttInstrumentationOptions = { topics: [measured, 'alarms/+id'], recordTopic: true }
  const instrumentation = new MqttInstrumentation(options)
  instrumentation.setConfig({ ...instrumentation.getConfig(), traces: false })
  // @ts-expect-error there is no such option
  instrumentation.setConfig({ recordTopics: true })
  console.log(contextOf(message.properties).getValue(Symbol('key')))
  const document = await createAsyncApiDocument(app, { title: 'Fleet', version: '1.0.0', sends: [measured] })
  AsyncApiModule.setup('asyncapi', app, document)
  return document
}

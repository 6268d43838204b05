import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern } from '@nestjs/microservices'
import { expect, it } from 'vitest'
import { InjectMqtt, MqttModule, MqttService, mqttTransportId } from '../../src/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { CollectingLogger } from '../support/nest-app.js'

@Controller()
class TwoController {
  constructor(@InjectMqtt('edge') readonly edge: MqttService) {}

  @EventPattern<string>('edge', mqttTransportId('edge'))
  onEdge(): never {
    throw new Error('broken')
  }

  @EventPattern<string>('cloud', mqttTransportId())
  onCloud(): void {}
}

it('every log line names its connection if there are two', async () => {
  const broker = await EmbeddedBroker.start()
  const { url } = broker
  @Module({
    imports: [MqttModule.forRoot({ url }), MqttModule.forRoot({ name: 'edge', url })],
    controllers: [TwoController],
  })
  class AppModule {}
  const logger = new CollectingLogger()
  const app = await NestFactory.create(AppModule, { logger, abortOnError: false })
  app.connectMicroservice(MqttModule.microservice('edge'), { inheritAppConfig: true })
  await app.init()
  await app.startAllMicroservices()
  await app.get(MqttService).publish('edge', 1)
  const lines = () => logger.lines.filter(line => line.includes('[Mqtt:edge]'))
  await eventually(() => lines().some(line => line.startsWith('error')))
  await app.close()
  await broker.stop()
  expect(lines()).toEqual([
    `log [Mqtt:edge] connected to ${url} with MQTT 3.1.1, new session`,
    expect.stringMatching(/^error \[Mqtt:edge\] the handler of "edge" failed for a message on "edge"/),
    `log [Mqtt:edge] connection to ${url} closed`,
  ])
  // The handlers of the other one run nowhere.
  expect(logger.lines.filter(line => line.startsWith('warn [MqttModule]'))).toHaveLength(1)
  expect(logger.lines.filter(line => /\[Mqtt\w*\]/.test(line) && line.includes('edge'))).toEqual([])
})

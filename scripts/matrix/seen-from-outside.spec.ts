import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { defineTopic, MqttModule, MqttService, OnMqttEvent } from 'nestjs-mqtt'
import { AsyncApiModule, createAsyncApiDocument } from 'nestjs-mqtt/asyncapi'
import { MqttInstrumentation } from 'nestjs-mqtt/opentelemetry'
import { EmbeddedBroker } from 'nestjs-mqtt/testing'
import { z } from 'zod'

const telemetry = defineTopic('devices/+deviceId/telemetry', {
  schema: z.object({ celsius: z.number() }),
  qos: 1,
})

@Controller()
class DevicesController {
  @OnMqttEvent(telemetry)
  onTelemetry() {}
}

describe('an application seen from outside', () => {
  it('has spans, an AsyncAPI document, and a page of it', async () => {
    const broker = await EmbeddedBroker.start()
    const exporter = new InMemorySpanExporter()
    const instrumentation = new MqttInstrumentation({ topics: ['alarms/+id'], enabled: false })
    instrumentation.setTracerProvider(
      new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
    )
    instrumentation.enable()
    @Module({ imports: [MqttModule.forRoot({ url: broker.url })], controllers: [DevicesController] })
    class AppModule {}
    const app = await NestFactory.create(AppModule, { logger: false })
    app.connectMicroservice(MqttModule.microservice())
    const document = await createAsyncApiDocument(app, { title: 'Fleet', version: '1.0.0' })
    AsyncApiModule.setup('asyncapi', app, document)
    await app.startAllMicroservices()
    await app.listen(0, '127.0.0.1')

    await broker.deliver('devices/7/telemetry', { celsius: 21 })
    await app.get(MqttService).publish('alarms/7', 1, { qos: 1 })
    expect(exporter.getFinishedSpans().map(({ name }) => name)).toEqual([
      'process devices/+deviceId/telemetry',
      'publish alarms/+id',
    ])

    expect(JSON.stringify(document)).toContain('"celsius":{"type":"number"}')
    const response = await fetch(`${await app.getUrl()}/asyncapi`, { headers: { connection: 'close' } })
    expect(response.status).toBe(200)
    expect(await response.text()).toContain('DevicesController.onTelemetry')
    instrumentation.disable()
    await app.close()
    await broker.stop()
  })
})

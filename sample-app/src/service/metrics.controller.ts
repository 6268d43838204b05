import type { IncomingMessage, ServerResponse } from 'node:http'
import { Controller, Get, type OnApplicationShutdown, Req, Res } from '@nestjs/common'
import { metrics } from '@opentelemetry/api'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { MqttInstrumentation } from 'nestjs-mqtt/opentelemetry'
import { alarmLog, setPoints } from '../topics.js'

/** The metrics of the MQTT client, for Prometheus. */
@Controller('metrics')
export class MetricsController implements OnApplicationShutdown {
  // This application already has an HTTP server.
  private readonly exporter = new PrometheusExporter({ preventServerStart: true })
  private readonly provider = new MeterProvider({ readers: [this.exporter] })
  private readonly instrumentation: MqttInstrumentation

  constructor() {
    metrics.setGlobalMeterProvider(this.provider)
    this.instrumentation = new MqttInstrumentation({ topics: [alarmLog, setPoints], traces: false })
  }

  @Get()
  read(@Req() request: IncomingMessage, @Res() response: ServerResponse): void {
    this.exporter.getMetricsRequestHandler(request, response)
  }

  async onApplicationShutdown(): Promise<void> {
    this.instrumentation.disable()
    await this.provider.shutdown()
  }
}

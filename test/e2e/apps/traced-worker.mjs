// Receives jobs as another process and prints the trace that its handler belongs to.
import { context, propagation, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { BasicTracerProvider } from '@opentelemetry/sdk-trace-base'
import { MqttClient } from 'nestjs-mqtt/client'
import { MqttInstrumentation } from 'nestjs-mqtt/opentelemetry'

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
propagation.setGlobalPropagator(new W3CTraceContextPropagator())
trace.setGlobalTracerProvider(new BasicTracerProvider())
new MqttInstrumentation({ metrics: false })

const client = await MqttClient.connect({ url: process.env.MQTT_URL, protocolVersion: 5 })
const jobs = client.subscribe(
  'jobs/+id',
  async () => {
    const span = trace.getActiveSpan()
    const { traceId, spanId } = span.spanContext()
    await client.publish('done', { traceId, spanId, parent: span.parentSpanContext.spanId }, { qos: 1 })
  },
  { qos: 1 },
)
await jobs.whenGranted()
console.log('ready')

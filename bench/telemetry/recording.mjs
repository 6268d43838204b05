// Switches the instrumentation of nestjs-mqtt/opentelemetry in the process that is measured.
const RECORDED = { metrics: { traces: false }, traced: {} }
let instrumentation

/**
 * @param mode `ours`: nothing is loaded yet, so it comes first; `off`: disabled after it was enabled; `metrics`: metrics only;
 * `traced`: metrics and every span, which the exporter drops
 */
export async function record(mode, topics = []) {
  if (mode === 'ours') return {}
  instrumentation ??= await create()
  instrumentation.disable()
  if (mode === 'off') return {}
  instrumentation.setConfig({ topics, ...RECORDED[mode] })
  instrumentation.enable()
  return {}
}

async function create() {
  const { metrics } = await import('@opentelemetry/api')
  const { MeterProvider } = await import('@opentelemetry/sdk-metrics')
  const { BatchSpanProcessor, NodeTracerProvider } = await import('@opentelemetry/sdk-trace-node')
  const { MqttInstrumentation } = await import('nestjs-mqtt/opentelemetry')
  const exporter = { export: (_spans, done) => done({ code: 0 }), shutdown: async () => {} }
  metrics.setGlobalMeterProvider(new MeterProvider())
  new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] }).register()
  return new MqttInstrumentation()
}

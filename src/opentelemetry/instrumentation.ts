import { type MeterProvider, metrics, type TracerProvider, trace } from '@opentelemetry/api'
import { DEFAULTS, type MqttInstrumentationOptions, TopicPatterns } from './attributes.js'
import { Metrics } from './metrics.js'
import { Spans } from './spans.js'

/**
 * Records spans and metrics of all clients of this process, and carries the trace context in User Properties (MQTT 5). It has
 * the interface of an OpenTelemetry instrumentation, so you can pass it to `NodeSDK` or `registerInstrumentations`. It
 * patches nothing, so the order of imports does not matter.
 */
export class MqttInstrumentation {
  readonly instrumentationName = 'nestjs-mqtt'
  /** The version of this package. */
  readonly instrumentationVersion = '0.1.0'
  private options: MqttInstrumentationOptions
  private patterns: TopicPatterns
  private tracerProvider: TracerProvider | undefined
  private meterProvider: MeterProvider | undefined
  private leaves: readonly (() => void)[] | undefined

  /** @throws MqttError `INVALID_TOPIC_FILTER` for a pattern in `topics` */
  constructor(options: MqttInstrumentationOptions = {}) {
    this.options = options
    this.patterns = new TopicPatterns(options.topics)
    if (options.enabled ?? true) this.enable()
  }

  /** Starts recording. Does nothing if it records. */
  enable(): void {
    if (this.leaves !== undefined) return
    const { instrumentationName: name, instrumentationVersion: version, patterns } = this
    const options = { ...DEFAULTS, ...this.options }
    const tracer = (this.tracerProvider ?? trace).getTracer(name, version)
    const meter = (this.meterProvider ?? metrics).getMeter(name, version)
    this.leaves = [
      ...(options.traces ? [new Spans(tracer, options, patterns).start()] : []),
      ...(options.metrics ? [new Metrics(meter, options, patterns).start()] : []),
    ]
  }

  /** Stops recording. Operations that are open are not recorded. */
  disable(): void {
    for (const leave of this.leaves ?? []) leave()
    this.leaves = undefined
  }

  getConfig(): MqttInstrumentationOptions & { enabled: boolean } {
    return { ...this.options, enabled: this.leaves !== undefined }
  }

  setConfig(options: MqttInstrumentationOptions): void {
    this.patterns = new TopicPatterns(options.topics)
    this.options = options
    this.restart()
  }

  setTracerProvider(provider: TracerProvider): void {
    this.tracerProvider = provider
    this.restart()
  }

  setMeterProvider(provider: MeterProvider): void {
    this.meterProvider = provider
    this.restart()
  }

  private restart(): void {
    if (this.leaves === undefined) return
    this.disable()
    this.enable()
  }
}

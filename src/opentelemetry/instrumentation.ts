import { type MeterProvider, metrics, type TracerProvider, trace } from '@opentelemetry/api'
import {
  type MqttInstrumentationOptions,
  type ResolvedInstrumentationOptions,
  resolveOptions,
  TopicPatterns,
} from './attributes.js'
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
  private options: ResolvedInstrumentationOptions
  private patterns: TopicPatterns
  private tracerProvider: TracerProvider | undefined
  private meterProvider: MeterProvider | undefined
  private leaves: readonly (() => void)[] | undefined

  /**
   * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value, `INVALID_TOPIC_FILTER` for an invalid pattern
   * in `topics`
   */
  constructor(options: MqttInstrumentationOptions = {}) {
    this.options = resolveOptions(options)
    this.patterns = new TopicPatterns(this.options.topics)
    if (this.options.enabled) this.enable()
  }

  /** Starts recording. Does nothing if it records. */
  enable(): void {
    if (this.leaves !== undefined) return
    const { instrumentationName: name, instrumentationVersion: version, options, patterns } = this
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

  /** Returns all options, with their defaults; `enabled` is whether it records now. */
  getConfig(): MqttInstrumentationOptions & { enabled: boolean } {
    return { ...this.options, enabled: this.leaves !== undefined }
  }

  /**
   * Replaces the options. Does not start or stop the recording.
   * @throws MqttError like the constructor; the options are then as before
   */
  setConfig(options: MqttInstrumentationOptions): void {
    const resolved = resolveOptions(options)
    this.patterns = new TopicPatterns(resolved.topics)
    this.options = resolved
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

import { context, propagation } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import { MqttInstrumentation, type MqttInstrumentationOptions } from '../../src/opentelemetry/index.js'
import { eventually } from './eventually.js'

/** Spans and metrics of this process, in memory. */
export class Telemetry {
  private readonly spanExporter = new InMemorySpanExporter()
  private readonly metricExporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  private readonly reader = new PeriodicExportingMetricReader({
    exporter: this.metricExporter,
    exportIntervalMillis: 3_600_000,
  })
  private readonly meters = new MeterProvider({ readers: [this.reader] })
  readonly tracers = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(this.spanExporter)] })
  readonly instrumentation: MqttInstrumentation

  constructor(options: MqttInstrumentationOptions = {}) {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
    propagation.setGlobalPropagator(new W3CTraceContextPropagator())
    this.instrumentation = new MqttInstrumentation({ ...options, enabled: false })
    this.instrumentation.setTracerProvider(this.tracers)
    this.instrumentation.setMeterProvider(this.meters)
    this.instrumentation.enable()
  }

  get spans(): ReadableSpan[] {
    return this.spanExporter.getFinishedSpans()
  }

  /** Waits until so many spans have this name. */
  async named(name: string, count = 1): Promise<ReadableSpan[]> {
    const found = () => this.spans.filter(span => span.name === name)
    await eventually(() => found().length >= count)
    return found()
  }

  /** The one span with this name. */
  async only(name: string): Promise<ReadableSpan> {
    const [span, ...others] = await this.named(name)
    if (span === undefined || others.length > 0) throw new Error(`${others.length + 1} spans are "${name}"`)
    return span
  }

  /** The points of a metric: its attributes, and its value, or its count for a histogram. */
  async points(name: string): Promise<{ attributes: object; value: number }[]> {
    await this.reader.forceFlush()
    const metrics =
      this.metricExporter
        .getMetrics()
        .at(-1)
        ?.scopeMetrics.flatMap(scope => scope.metrics) ?? []
    const points = metrics.find(({ descriptor }) => descriptor.name === name)?.dataPoints ?? []
    return points.map(({ attributes, value }) => ({
      attributes,
      value: typeof value === 'number' ? value : value.count,
    }))
  }

  async stop(): Promise<void> {
    this.instrumentation.disable()
    await this.tracers.shutdown()
    await this.meters.shutdown()
    context.disable()
    propagation.disable()
  }
}

import type { MeterProvider } from '@opentelemetry/api'

export declare class Load {
  /** @param broker an MQTT 5 broker */
  static start(
    broker: { readonly url: string; readonly port: number },
    meterProvider: MeterProvider,
  ): Promise<Load>
  /** Each operation at least once. */
  round(): Promise<void>
  stop(): Promise<void>
}

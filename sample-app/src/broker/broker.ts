import { Logger, type OnApplicationShutdown } from '@nestjs/common'
import { EmbeddedBroker } from 'nestjs-mqtt/testing'
import type { Config } from '../config/config.js'

const ANY_FREE_PORT = 0

/** The MQTT broker of this application: the broker at `MQTT_URL`, or an embedded one. */
export class Broker implements OnApplicationShutdown {
  private constructor(
    readonly url: string,
    private readonly embedded?: EmbeddedBroker,
  ) {}

  static async start({ mqttUrl, mqttPort }: Config): Promise<Broker> {
    if (mqttUrl !== undefined) return new Broker(mqttUrl)
    const embedded = await startEmbedded(mqttPort)
    return new Broker(embedded.url, embedded)
  }

  get isEmbedded(): boolean {
    return this.embedded !== undefined
  }

  /** Runs in the last hook of Nest, after the connections to the broker have closed. */
  async onApplicationShutdown(): Promise<void> {
    await this.embedded?.stop()
  }
}

async function startEmbedded(port: number): Promise<EmbeddedBroker> {
  try {
    return await EmbeddedBroker.start({ port })
  } catch (error) {
    if (!isAddressInUse(error)) throw error
    const embedded = await EmbeddedBroker.start({ port: ANY_FREE_PORT })
    new Logger(Broker.name).warn(`Port ${port} is in use; the embedded broker listens on ${embedded.url}`)
    return embedded
  }
}

function isAddressInUse(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EADDRINUSE'
}

import { Module } from '@nestjs/common'
import { Child } from '../child.js'
import { Config, ConfigModule } from '../config.js'

/** The MQTT broker: the one at `MQTT_URL`, or an embedded one. */
export class Broker {
  private constructor(
    readonly url: string,
    private process?: Child,
  ) {}

  static async start({ mqttUrl, mqttPort }: Config): Promise<Broker> {
    if (mqttUrl !== undefined) return new Broker(mqttUrl)
    const { process, url } = await startProcess(mqttPort)
    return new Broker(url, process)
  }

  get isEmbedded(): boolean {
    return this.process !== undefined
  }

  /** Kills the embedded broker and starts it again. It keeps nothing: no sessions, no retained messages. */
  async restart(): Promise<void> {
    await this.process?.kill()
    const { process } = await startProcess(Number(new URL(this.url).port))
    this.process = process
  }
}

async function startProcess(port: number): Promise<{ process: Child; url: string }> {
  const process = new Child('broker/process.js', [String(port)])
  const url = String(await process.nextMessage())
  // Nest has no hook that runs after the connections have closed, so the broker ends after this process, not before it.
  process.unref()
  return { process, url }
}

@Module({
  imports: [ConfigModule],
  providers: [{ provide: Broker, inject: [Config], useFactory: (config: Config) => Broker.start(config) }],
  exports: [Broker],
})
export class BrokerModule {}

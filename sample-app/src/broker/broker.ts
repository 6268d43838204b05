import { once } from 'node:events'
import { createServer } from 'node:net'
import { Module } from '@nestjs/common'
import { Child } from '../child.js'
import { Config, ConfigModule } from '../config.js'

const EMBEDDED = 'broker/process.js'
const MOSQUITTO = 'broker/mosquitto-process.js'

/** The MQTT broker: the one at `MQTT_URL`, mosquitto, or an embedded one. */
export class Broker {
  private constructor(
    readonly url: string,
    private process?: Child,
  ) {}

  static async start({ mqttUrl, mqttPort, mosquitto }: Config): Promise<Broker> {
    if (mqttUrl !== undefined) return new Broker(mqttUrl)
    if (mosquitto) return new Broker((await startProcess(await freePort(mqttPort), MOSQUITTO)).url)
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

async function startProcess(port: number, script = EMBEDDED): Promise<{ process: Child; url: string }> {
  const process = new Child(script, [String(port)])
  const url = String(await process.nextMessage())
  // Nest has no hook that runs after the connections have closed, so the broker ends after this process, not before it.
  process.unref()
  return { process, url }
}

/** The port, or another one if it is in use. */
async function freePort(wanted: number): Promise<number> {
  for (const port of [wanted, 0]) {
    const server = createServer().listen(port, '127.0.0.1')
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    )
    const address = server.address()
    server.close()
    if (isFree && typeof address === 'object' && address !== null) return address.port
  }
  throw new Error('no port is free')
}

@Module({
  imports: [ConfigModule],
  providers: [{ provide: Broker, inject: [Config], useFactory: (config: Config) => Broker.start(config) }],
  exports: [Broker],
})
export class BrokerModule {}

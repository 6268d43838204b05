import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { Controller, Get, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
// biome-ignore lint/style/useImportType: Nest reads the class from the types of the constructor.
import { HealthCheck, HealthCheckService, TerminusModule } from '@nestjs/terminus'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { MqttHealthIndicator } from 'nestjs-mqtt/health'
import { EmbeddedBroker } from 'nestjs-mqtt/testing'

@Controller('health')
class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly mqtt: MqttHealthIndicator,
  ) {}

  @Get('ready')
  @HealthCheck()
  ready() {
    return this.health.check([() => this.mqtt.readiness()])
  }
}

/** The status of a connection with problems on this version of terminus. */
const DEGRADED = terminusVersion() === 11 ? ['ok', 'up'] : ['degraded', 'degraded']

describe('MqttHealthIndicator', () => {
  it('is up, degraded and down on the terminus of this application', async () => {
    const broker = await EmbeddedBroker.start()
    @Module({
      imports: [
        MqttModule.forRoot({ url: broker.url, reconnect: { delayMs: [1, 60_000] } }),
        TerminusModule.forRoot({ logger: false }),
      ],
      controllers: [HealthController],
      providers: [MqttHealthIndicator],
    })
    class AppModule {}
    const app = await NestFactory.create(AppModule, { logger: false })
    await app.listen(0, '127.0.0.1')
    const mqtt = app.get(MqttService)
    expect(await ready(await app.getUrl())).toEqual([200, 'ok', 'up', 'up'])

    await broker.cut()
    await mqtt.publish('a', 1)
    await mqtt.whenConnected()
    expect(await ready(await app.getUrl())).toEqual([200, ...DEGRADED, 'degraded'])

    await broker.stop()
    expect(await ready(await app.getUrl())).toEqual([503, 'error', 'down', 'down'])
    await app.close()
  })
})

async function ready(url: string): Promise<unknown[]> {
  const response = await fetch(`${url}/health/ready`, { headers: { connection: 'close' } })
  const { status, details } = JSON.parse(await response.text())
  return [response.status, status, details.mqtt.status, details.mqtt.state]
}

function terminusVersion(): number {
  const require = createRequire(join(process.cwd(), 'package.json'))
  const manifest = join(dirname(require.resolve('@nestjs/terminus')), '../package.json')
  return Number(JSON.parse(readFileSync(manifest, 'utf8')).version.split('.')[0])
}

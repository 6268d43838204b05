import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { AsyncApiModule, createAsyncApiDocument } from 'nestjs-mqtt/asyncapi'
import { AppModule } from './app.module.js'
import { Broker } from './broker/broker.js'
import { Config } from './config.js'
import { asyncApi } from './service/asyncapi.js'
import { welcome } from './welcome.js'

const PUBLIC = fileURLToPath(new URL('../public', import.meta.url))
const UPLOT = dirname(createRequire(import.meta.url).resolve('uplot/package.json'))

console.log('Starting the broker and the operations service …')
// Browsers keep HTTP connections open, which would delay the shutdown.
const app = await NestFactory.create<NestExpressApplication>(AppModule, {
  forceCloseConnections: true,
  logger: ['warn', 'error', 'fatal'],
})
app.useStaticAssets(PUBLIC)
app.useStaticAssets(join(UPLOT, 'dist'), { prefix: '/uplot/' })
app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
MqttModule.enableDrain(app)
AsyncApiModule.setup('asyncapi', app, await createAsyncApiDocument(app, asyncApi))

// Initialise all providers before the first message arrives.
await app.init()
await app.startAllMicroservices()

const { host, port, trucks } = app.get(Config)
await app.listen(port, host)

const { state } = app.get(MqttService)
console.log(welcome({ httpUrl: await app.getUrl(), broker: app.get(Broker), state, trucks }))

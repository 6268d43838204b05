import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { AsyncApiModule, createAsyncApiDocument } from 'nestjs-mqtt/asyncapi'
import { AppModule } from './app.module.js'
import { Broker } from './broker/broker.js'
import { Config } from './config.js'
import { BAD_DAY_SECONDS, BadDay } from './demo/bad-day.js'
import { BadDayReport } from './demo/bad-day-report.js'
import { Stage } from './demo/stage.js'
import { asyncApi } from './service/asyncapi.js'
import { welcome } from './welcome.js'

const PUBLIC = fileURLToPath(new URL('../public', import.meta.url))
const UPLOT = dirname(createRequire(import.meta.url).resolve('uplot/package.json'))

const { script, seconds } = parseArgs({
  options: { script: { type: 'string' }, seconds: { type: 'string', default: String(BAD_DAY_SECONDS) } },
}).values
if (script !== undefined && script !== 'bad-day')
  throw new Error(`--script must be bad-day, but is "${script}"`)

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

const { host, instance, port, trucks } = app.get(Config)
await app.listen(port, host)

const { state } = app.get(MqttService)
if (process.send === undefined)
  console.log(welcome({ httpUrl: await app.getUrl(), broker: app.get(Broker), state, trucks }))
else console.log(`${instance} listens on ${await app.getUrl()}`)
// A further instance ends with the one that started it.
process.once('message', () => void app.close())
process.once('disconnect', () => void app.close())

if (script === 'bad-day') {
  console.log(`A bad day of ${seconds} s begins.`)
  app
    .get(Stage)
    .told.subscribe(({ atMs, text }) => console.log(`  ${new Date(atMs).toLocaleTimeString()}  ${text}`))
  const garbage = await app.get(BadDay).play(Number(seconds))
  const { text, broken } = app.get(BadDayReport).write(garbage)
  console.log(text)
  process.exitCode = broken.length === 0 ? 0 : 1
  await app.close()
}

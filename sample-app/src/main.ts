import { NestFactory } from '@nestjs/core'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { AsyncApiModule, createAsyncApiDocument } from 'nestjs-mqtt/asyncapi'
import { AppModule } from './app.module.js'
import { asyncApi } from './asyncapi.js'
import { Broker } from './broker/broker.js'
import { Config } from './config/config.js'
import { welcome } from './welcome.js'

// Browsers keep HTTP connections open, which would delay the shutdown.
const app = await NestFactory.create(AppModule, { forceCloseConnections: true })
app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
MqttModule.enableDrain(app)
AsyncApiModule.setup('asyncapi', app, await createAsyncApiDocument(app, asyncApi))

// Initialise all providers before the first message arrives.
await app.init()
await app.startAllMicroservices()

const { host, port, simulate } = app.get(Config)
await app.listen(port, host)

const { state } = app.get(MqttService)
console.log(welcome({ httpUrl: await app.getUrl(), broker: app.get(Broker), state, simulate }))

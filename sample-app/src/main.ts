import { NestFactory } from '@nestjs/core'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { AppModule } from './app.module.js'
import { Broker } from './broker/broker.js'
import { Config } from './config/config.js'
import { welcome } from './welcome.js'

// A browser keeps connections open that would hold up the end of the process.
const app = await NestFactory.create(AppModule, { forceCloseConnections: true })
app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
MqttModule.enableDrain(app)

// Every provider is ready before the first message comes.
await app.init()
await app.startAllMicroservices()

const { host, port, simulate } = app.get(Config)
await app.listen(port, host)

const { state } = app.get(MqttService)
console.log(welcome({ httpUrl: await app.getUrl(), broker: app.get(Broker), state, simulate }))

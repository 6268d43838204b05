// Responds to requests: with this package, with Nest's built-in transport, or on a bare socket.
import 'reflect-metadata'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { MessagePattern, Payload, Transport } from '@nestjs/microservices'
import { MqttModule } from 'nestjs-mqtt'
import { config, respondToRequests, say } from '../requests.mjs'
import { respond } from './floor.mjs'

const url = `mqtt://127.0.0.1:${config.port}`

class EchoController {
  echo(value) {
    return value
  }
}
const method = Object.getOwnPropertyDescriptor(EchoController.prototype, 'echo')
MessagePattern(`${config.subject}/echo`, { qos: 1 })(EchoController.prototype, 'echo', method)
Payload()(EchoController.prototype, 'echo', 0)
Controller()(EchoController)

async function serve() {
  const isOurs = config.subject === 'ours' || config.subject === 'before'
  class AppModule {}
  Module({
    imports: isOurs ? [MqttModule.forRoot({ url, protocolVersion: config.version })] : [],
    controllers: [EchoController],
  })(AppModule)
  const app = await NestFactory.createMicroservice(
    AppModule,
    isOurs
      ? { ...MqttModule.microservice(), logger: false }
      : { transport: Transport.MQTT, options: { url, subscribeOptions: { qos: 1 } }, logger: false },
  )
  await app.listen()
}

await (config.subject === 'floor' ? respond(config) : serve())
say({ ready: true })
respondToRequests(() => ({}))

// Answers requests, with this package or with Nest's built-in transport.
import 'reflect-metadata'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { MessagePattern, Payload, Transport } from '@nestjs/microservices'
import { MqttModule } from 'nestjs-mqtt'
import { answerRequests, config, say } from '../requests.mjs'

const url = `mqtt://127.0.0.1:${config.port}`

class EchoController {
  echo(value) {
    return value
  }
}
const method = Object.getOwnPropertyDescriptor(EchoController.prototype, 'echo')
MessagePattern('bench/echo', { qos: 1 })(EchoController.prototype, 'echo', method)
Payload()(EchoController.prototype, 'echo', 0)
Controller()(EchoController)

class AppModule {}
const isOurs = config.subject === 'ours'
Module({
  imports: isOurs ? [MqttModule.forRoot({ url })] : [],
  controllers: [EchoController],
})(AppModule)
const app = await NestFactory.createMicroservice(
  AppModule,
  isOurs
    ? { ...MqttModule.microservice(), logger: false }
    : { transport: Transport.MQTT, options: { url, subscribeOptions: { qos: 1 } }, logger: false },
)
await app.listen()
say({ ready: true })
answerRequests(() => ({}))

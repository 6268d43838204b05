// An application with one handler, measured from NestFactory.create to the first handled message. The message is retained,
// so that it arrives as soon as the subscription is granted.
import 'reflect-metadata'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, Transport } from '@nestjs/microservices'
import { MqttModule } from 'nestjs-mqtt'
import { config, say } from '../requests.mjs'

const url = `mqtt://127.0.0.1:${config.port}`
let handled

class StateController {
  state() {
    handled()
  }
}
EventPattern('start/state')(
  StateController.prototype,
  'state',
  Object.getOwnPropertyDescriptor(StateController.prototype, 'state'),
)
Controller()(StateController)

const isOurs = config.subject === 'ours'
class AppModule {}
Module({ imports: isOurs ? [MqttModule.forRoot({ url })] : [], controllers: [StateController] })(AppModule)

const first = new Promise(resolve => {
  handled = resolve
})
const startMs = performance.now()
const app = await NestFactory.createMicroservice(
  AppModule,
  isOurs
    ? { ...MqttModule.microservice(), logger: false }
    : { transport: Transport.MQTT, options: { url }, logger: false },
)
await app.listen()
await first
say({ ms: performance.now() - startMs })

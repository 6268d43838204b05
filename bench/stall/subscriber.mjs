// A subscriber with slow handlers, which lets the link wait for them.
import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, Payload } from '@nestjs/microservices'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { memory } from '../memory.mjs'
import { config, respondToRequests, say } from '../requests.mjs'

const HANDLER_MS = 10
const CONCURRENCY = 16

class Slow {
  async take() {
    await new Promise(resolve => setTimeout(resolve, HANDLER_MS))
  }
}
Payload()(Slow.prototype, 'take', 0)
EventPattern('stall/+', { qos: 0, codec: 'bytes' })(
  Slow.prototype,
  'take',
  Object.getOwnPropertyDescriptor(Slow.prototype, 'take'),
)
Controller()(Slow)

const connection = MqttModule.forRoot({
  url: config.url,
  keepalive: 1,
  inbound: { overflow: 'stall', concurrency: CONCURRENCY },
})
const app = await NestFactory.createMicroservice(
  { module: class Root {}, imports: [connection], controllers: [Slow] },
  { ...MqttModule.microservice(), logger: false, abortOnError: false },
)
await app.listen()
const mqtt = app.get(MqttService)
say({ ready: true })
respondToRequests(() => ({ ...memory(), ...mqtt.stats() }))

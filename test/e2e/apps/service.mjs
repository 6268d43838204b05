// A microservice as a process of its own, for tests that end it by a signal. Says on its output what it does.
import 'reflect-metadata'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern } from '@nestjs/microservices'
import { MqttModule, MqttService } from 'nestjs-mqtt'

const {
  MQTT_URL,
  HANDLER_TURNS = '0',
  DRAIN_TIMEOUT_MS = '1000',
  CONNECT = 'background',
  KIND = 'pure',
} = process.env
const say = text => process.stdout.write(`${text}\n`)

class WorkController {
  async onWork() {
    say('handling')
    for (let turn = 0; turn < Number(HANDLER_TURNS); turn += 1) await new Promise(setImmediate)
    say('handled')
  }
}
const handler = Object.getOwnPropertyDescriptor(WorkController.prototype, 'onWork')
EventPattern('work')(WorkController.prototype, 'onWork', handler)
Controller()(WorkController)

class AppModule {}
Module({
  imports: [
    MqttModule.forRoot({
      url: MQTT_URL,
      protocolVersion: 5,
      connect: CONNECT,
      reconnect: { delayMs: [60_000] },
      connectTimeoutMs: 60_000,
      drainTimeoutMs: Number(DRAIN_TIMEOUT_MS),
      keepalive: 0,
    }),
  ],
  controllers: [WorkController],
})(AppModule)

async function create() {
  if (KIND !== 'hybrid')
    return NestFactory.createMicroservice(AppModule, { ...MqttModule.microservice(), logger: false })
  const hybrid = await NestFactory.create(AppModule, { logger: false, abortOnError: false })
  hybrid.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
  return hybrid
}

async function listen() {
  if (KIND !== 'pure') await app.init()
  if (KIND !== 'hybrid') return app.listen()
  await app.startAllMicroservices()
  await app.listen(0, '127.0.0.1')
}

const app = await create()
MqttModule.enableDrain(app)
const mqtt = app.get(MqttService)
mqtt.status$.subscribe(({ status }) => say(status))
await listen()
process.on('SIGUSR2', async () => {
  say('publishing')
  const outcomes = await Promise.all([1, 2, 3].map(() => mqtt.publish('out', 'x'.repeat(400), { qos: 1 })))
  say(`outcomes ${outcomes.map(({ status }) => status).join(' ')}`)
})
say('listening')

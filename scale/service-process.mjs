// One process of the service: a Nest microservice with one handler.
import 'reflect-metadata'
import { connect } from 'node:net'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, Payload } from '@nestjs/microservices'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { Journal } from '../soak/journal.mjs'
import { serve } from '../soak/remote.mjs'
import { nowMs, workOf } from './work.mjs'

const {
  url,
  name,
  clean,
  expirySeconds,
  sharedGroup,
  work,
  progressPort,
  journal: file,
} = JSON.parse(process.argv[2])
const doWork = workOf(work)
const journal = file === undefined ? undefined : new Journal(file)
const progress = progressPort === undefined ? undefined : connect(progressPort, '127.0.0.1')
let handled = 0
let latencies = []
let unreported = 0

/** One byte per message, in one write per turn of the event loop. */
function report() {
  progress.write(Buffer.alloc(unreported))
  unreported = 0
}

class ReadingsController {
  async onReading({ id, atMs }) {
    await doWork(id)
    handled += 1
    latencies.push(nowMs() - atMs)
    journal?.note('H', id, nowMs())
    if (progress === undefined) return
    if (unreported === 0) setImmediate(report)
    unreported += 1
  }
}
const method = Object.getOwnPropertyDescriptor(ReadingsController.prototype, 'onReading')
Payload()(ReadingsController.prototype, 'onReading', 0)
EventPattern('scale/devices/+/reading')(ReadingsController.prototype, 'onReading', method)
Controller()(ReadingsController)

class AppModule {}
Module({
  imports: [
    MqttModule.forRoot({
      url,
      clientId: name,
      protocolVersion: 5,
      clean,
      sharedGroup,
      ...(clean ? {} : { properties: { sessionExpiryInterval: expirySeconds } }),
      inbound: { concurrency: 16 },
      reconnect: { delayMs: [50, 200] },
    }),
  ],
  controllers: [ReadingsController],
})(AppModule)

const app = await NestFactory.createMicroservice(AppModule, { ...MqttModule.microservice(), logger: false })
MqttModule.enableDrain(app)
await app.listen()

serve({
  /** What was handled so far, and what has been measured since the last sample. */
  sample() {
    const { user, system } = process.cpuUsage()
    const measured = latencies
    latencies = []
    const { waiting } = app.get(MqttService).stats().inbound
    return { handled, waiting, cpuMs: (user + system) / 1_000, latencies: measured }
  },
})
// The process ends by itself after SIGTERM, although the channel to the conductor is open.
process.channel.unref()

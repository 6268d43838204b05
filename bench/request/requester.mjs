// Sends requests, one at a time or many at once, and measures how long each response takes.
import 'reflect-metadata'
import { Logger } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ClientProxyFactory, MqttRecordBuilder, Transport } from '@nestjs/microservices'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { lastValueFrom, timeout } from 'rxjs'
import { config, respondToRequests, say } from '../requests.mjs'
import { request } from './floor.mjs'

// Its log lines would be parsed as responses of this process.
Logger.overrideLogger(false)
// Each subject has its own topic, so that the responders of the others have no work.
const topic = `${config.subject}/echo`
/** The built-in client waits forever for a response that was lost. */
const TIMEOUT_MS = 1_000
const url = `mqtt://127.0.0.1:${config.port}`

async function ours() {
  const app = await NestFactory.createApplicationContext(
    { module: class Root {}, imports: [MqttModule.forRoot({ url, protocolVersion: config.version })] },
    { logger: false },
  )
  const mqtt = app.get(MqttService)
  return (value, qos) => mqtt.request(topic, value, { qos })
}

async function builtIn() {
  const client = ClientProxyFactory.create({
    transport: Transport.MQTT,
    options: { url, subscribeOptions: { qos: 1 } },
  })
  await client.connect()
  return (value, qos) =>
    lastValueFrom(
      client.send(topic, new MqttRecordBuilder(value).setQoS(qos).build()).pipe(timeout(TIMEOUT_MS)),
    )
}

const ask = await { ours, before: ours, builtIn, floor: () => request(config) }[config.subject]()

async function round({ qos, atOnce, count }) {
  const times = []
  let left = count
  let lost = 0
  const cpu = process.cpuUsage()
  const start = performance.now()
  const worker = async () => {
    while (left-- > 0) {
      const askedMs = performance.now()
      const value = left
      const response = await ask(value, qos).catch(() => undefined)
      if (response === undefined) {
        lost += 1
        continue
      }
      if (response !== value) throw new Error('not the response to this request')
      times.push(performance.now() - askedMs)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  const perSecond = (count / (performance.now() - start)) * 1_000
  const { user, system } = process.cpuUsage(cpu)
  times.sort((a, b) => a - b)
  const at = share => times[Math.floor(times.length * share)]
  return { p50Ms: at(0.5), p99Ms: at(0.99), perSecond, cpuMicros: (user + system) / count, lost }
}

say({ ready: true })
respondToRequests(round)

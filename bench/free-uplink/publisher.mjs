// Publishes 20 messages of 100 B per second, while a handler processes inbound messages.
import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import { MqttModule, MqttService } from '../../dist/index.js'
import { config, respondToRequests, say } from '../requests.mjs'

const { port, qos, burnMicroseconds } = config
const root = { module: class Root {}, imports: [MqttModule.forRoot({ url: `mqtt://127.0.0.1:${port}` })] }
const app = await NestFactory.createApplicationContext(root, { logger: false, abortOnError: false })
const mqtt = app.get(MqttService)
let received = 0
let published = 0
mqtt.subscribe('in', () => {
  received += 1
  const endMs = performance.now() + burnMicroseconds / 1_000
  while (burnMicroseconds > 0 && performance.now() < endMs);
})
const payload = Buffer.alloc(100)
respondToRequests(({ start }) => {
  if (start)
    setInterval(() => {
      published += 1
      mqtt.publish('out', payload, { qos }).catch(() => {})
    }, 50)
  const { dropped, sent, acknowledged } = mqtt.stats().outbound
  const all = Object.values(dropped).reduce((sum, count) => sum + count, 0)
  return { received, published, dropped: all, done: sent + acknowledged }
})
say({ ready: true })

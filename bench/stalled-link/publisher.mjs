// Publishes continuously with the default options, and reports its memory on request.
import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { memory } from '../memory.mjs'
import { config, respondToRequests, say } from '../requests.mjs'

const PER_TICK = 5
const TICK_MS = 10
const TOPICS = 20
const { port, load } = config
// The link must stay open: without Keep Alive and with a distant deadline for PUBACK, a dead peer is not detected.
const outbound = { ackTimeoutMs: 3_600_000 }
const url = `mqtt://127.0.0.1:${port}`
const app = await NestFactory.createApplicationContext(
  {
    module: class Root {},
    imports: [MqttModule.forRoot({ url, protocolVersion: 5, keepalive: 0, outbound })],
  },
  { logger: false },
)
const mqtt = app.get(MqttService)
let offered = 0
let settled = 0

const LOADS = {
  'QoS 0': (topic, payload) => mqtt.tryPublish(topic, payload),
  'QoS 1 latest/queue': async (topic, payload) => {
    await mqtt.publish(topic, payload, { qos: 1, whenBlocked: offered % 2 === 0 ? 'latest' : 'queue' })
    settled += 1
  },
}

// Late ticks are made up for, so that the load is constant.
const start = performance.now()
setInterval(() => {
  const due = Math.floor((performance.now() - start) / TICK_MS) * PER_TICK
  while (offered < due) {
    offered += 1
    LOADS[load](`stalled/${offered % TOPICS}`, Buffer.alloc(1_000, 'x'))
  }
}, TICK_MS)

say({ ready: true })
respondToRequests(() => {
  const { outbound, connection } = mqtt.stats()
  return { ...memory(), offered, settled, outbound, losses: connection.losses }
})

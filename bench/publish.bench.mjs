// How fast and how dear is publishing, against `mqtt` with the same options, in turn within one run?
import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import { connectAsync } from 'mqtt'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { startMosquitto } from './mosquitto.mjs'

const ROUNDS = 7
const MESSAGES = 40_000
const PAYLOAD = Buffer.alloc(100, 'x')
const BURST = 100

const broker = await startMosquitto()
const nextTurn = () => new Promise(resolve => setImmediate(resolve))

async function burstsOfQoS0(publish) {
  for (let sent = 0; sent < MESSAGES; sent += BURST) {
    for (let count = 0; count < BURST; count += 1) publish('bench/t')
    await nextTurn()
  }
}

/** 100 in flight: each acknowledgement lets the next one go. */
async function windowOfQoS1(publish) {
  let left = MESSAGES
  const worker = async () => {
    while (left-- > 0) await publish('bench/t')
  }
  await Promise.all(Array.from({ length: BURST }, worker))
}

async function measure(work) {
  const cpu = process.cpuUsage()
  const start = performance.now()
  await work()
  const seconds = (performance.now() - start) / 1_000
  const { user, system } = process.cpuUsage(cpu)
  return { perSecond: MESSAGES / seconds, cpuMicros: (user + system) / MESSAGES }
}

const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

for (const protocolVersion of [4, 5]) {
  const app = await NestFactory.createApplicationContext(
    { module: class Root {}, imports: [MqttModule.forRoot({ url: broker.url, protocolVersion })] },
    { logger: false },
  )
  const mqtt = app.get(MqttService)
  const raw = await connectAsync(broker.url, { protocolVersion })
  const dropped = { count: 0 }
  const subjects = {
    'QoS 0, 100 per turn': {
      ours: () =>
        burstsOfQoS0(topic => {
          if (mqtt.tryPublish(topic, PAYLOAD).status === 'dropped') dropped.count += 1
        }),
      mqtt: () => burstsOfQoS0(topic => raw.publish(topic, PAYLOAD)),
    },
    'QoS 1, 100 in flight': {
      ours: () => windowOfQoS1(topic => mqtt.publish(topic, PAYLOAD, { qos: 1 })),
      mqtt: () => windowOfQoS1(topic => raw.publishAsync(topic, PAYLOAD, { qos: 1 })),
    },
  }
  for (const [name, { ours, mqtt: theirs }] of Object.entries(subjects)) {
    const rows = { ours: [], theirs: [] }
    for (let round = 0; round <= ROUNDS; round += 1) {
      const a = await measure(ours)
      const b = await measure(theirs)
      // The first round warms up.
      if (round > 0) rows.ours.push(a) && rows.theirs.push(b)
    }
    const of = (side, figure) => median(rows[side].map(row => row[figure]))
    const rate = [of('ours', 'perSecond'), of('theirs', 'perSecond')]
    const cpu = [of('ours', 'cpuMicros'), of('theirs', 'cpuMicros')]
    console.log(
      `MQTT ${protocolVersion === 5 ? '5    ' : '3.1.1'} ${name}: ${Math.round(rate[0])} msg/s, mqtt ${Math.round(rate[1])} (x ${(rate[0] / rate[1]).toFixed(2)}); CPU ${cpu[0].toFixed(2)} us per message, mqtt ${cpu[1].toFixed(2)} (x ${(cpu[0] / cpu[1]).toFixed(2)}); dropped ${dropped.count}`,
    )
  }
  await app.close()
  await raw.endAsync()
}
await broker.stop()

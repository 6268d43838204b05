// The compared subjects: each publishes one message at QoS 0, returning false if it must wait, and one at QoS 1.
import 'reflect-metadata'
import { once } from 'node:events'
import { connect } from 'node:net'
import { NestFactory } from '@nestjs/core'
import { connectAsync } from 'mqtt'
import mqttPacket from 'mqtt-packet'
import { MqttModule, MqttService } from 'nestjs-mqtt'

export const TOPIC = 'bench/publish'
export const PAYLOAD = Buffer.alloc(100, 'x')

async function ours({ port, protocolVersion }) {
  const url = `mqtt://127.0.0.1:${port}`
  const app = await NestFactory.createApplicationContext(
    { module: class Root {}, imports: [MqttModule.forRoot({ url, protocolVersion })] },
    { logger: false },
  )
  const mqtt = app.get(MqttService)
  const QOS_1 = { qos: 1 }
  return {
    tryPublish: () => mqtt.tryPublish(TOPIC, PAYLOAD).status === 'accepted',
    publish: () => mqtt.publish(TOPIC, PAYLOAD, QOS_1),
    dropped: () => mqtt.stats().outbound.dropped.backlog,
  }
}

async function mqtt({ port, protocolVersion }) {
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion })
  return {
    tryPublish: () => {
      if (client.stream.writableLength > 65_536) return false
      client.publish(TOPIC, PAYLOAD)
      return true
    },
    publish: () => client.publishAsync(TOPIC, PAYLOAD, { qos: 1 }),
    dropped: () => 0,
  }
}

/** Ready-made packets on a socket: the minimum cost. */
async function floor({ port, protocolVersion }) {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  await once(socket, 'connect')
  const generate = packet => mqttPacket.generate(packet, { protocolVersion })
  socket.write(
    generate({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion,
      clean: true,
      clientId: `raw${port}`,
      keepalive: 0,
    }),
  )
  await once(socket, 'data')
  const packet = { cmd: 'publish', topic: TOPIC, payload: PAYLOAD }
  const plain = generate({ ...packet, qos: 0 })
  const numbered = Array.from({ length: 1_000 }, (_, id) =>
    generate({ ...packet, qos: 1, messageId: id + 1 }),
  )
  const acknowledged = []
  let next = 0
  let batch = []
  const send = bytes => {
    if (batch.push(bytes) > 1) return
    setImmediate(() => {
      socket.write(batch.length === 1 ? batch[0] : Buffer.concat(batch))
      batch = []
    })
  }
  let rest = Buffer.alloc(0)
  socket.on('data', chunk => {
    // PUBACK with success has two bytes after its header in both versions.
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (at + 2 <= bytes.length && at + 2 + bytes[at + 1] <= bytes.length) {
      at += 2 + bytes[at + 1]
      acknowledged.shift()?.()
    }
    rest = bytes.subarray(at)
  })
  return {
    tryPublish: () => {
      if (socket.writableLength > 65_536) return false
      send(plain)
      return true
    },
    publish: () => {
      send(numbered[next++ % numbered.length])
      return new Promise(resolve => acknowledged.push(resolve))
    },
    dropped: () => 0,
  }
}

export const SUBJECTS = { ours, before: ours, mqtt, floor }

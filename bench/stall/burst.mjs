// A burst of QoS 0 messages, as fast as the broker accepts them.
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'

const TOPICS = 100

export async function burst(port, { messages, payloadBytes }) {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(mqttPacket.generate({ cmd: 'connect', clientId: 'burst', clean: true, keepalive: 0 }))
  await once(socket, 'data')
  const payload = Buffer.alloc(payloadBytes, 'x')
  const batch = Buffer.concat(
    Array.from({ length: TOPICS }, (_, index) =>
      mqttPacket.generate({ cmd: 'publish', topic: `stall/${index}`, payload, qos: 0 }),
    ),
  )
  for (let sent = 0; sent < messages; sent += TOPICS) if (!socket.write(batch)) await once(socket, 'drain')
  // The broker responds when it has read all of it.
  socket.write(mqttPacket.generate({ cmd: 'pingreq' }))
  await once(socket, 'data')
  socket.destroy()
}

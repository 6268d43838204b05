// A broker that grants everything and, on request, sends QoS 1 messages on a number of topics. Each PUBACK triggers the
// next message.
import { createServer } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { respondToRequests, say } from '../requests.mjs'

const IN_FLIGHT = 500
let client
let acknowledged = () => {}

function respond(packet) {
  const { cmd, messageId } = packet
  if (cmd === 'connect') return { cmd: 'connack', returnCode: 0, reasonCode: 0, sessionPresent: false }
  if (cmd === 'subscribe') return { cmd: 'suback', messageId, granted: packet.subscriptions.map(() => 1) }
  if (cmd === 'pingreq') return { cmd: 'pingresp' }
  if (cmd === 'publish' && packet.qos > 0) return { cmd: 'puback', messageId }
  return undefined
}

const server = createServer(socket => {
  client = socket
  socket.setNoDelay(true)
  socket.on('error', () => {})
  const parser = mqttPacket.parser()
  let acks = 0
  parser.on('packet', packet => {
    if (packet.cmd === 'puback') acks += 1
    const response = respond(packet)
    if (response !== undefined) socket.write(mqttPacket.generate(response))
  })
  socket.on('data', bytes => {
    acks = 0
    parser.parse(bytes)
    if (acks > 0) acknowledged(acks)
  })
})

async function send({ messages, firstTopic, topics }) {
  let sent = 0
  let done = 0
  const sendUpTo = limit => {
    const packets = []
    for (; sent < Math.min(messages, limit); sent += 1) {
      packets.push(
        mqttPacket.generate({
          cmd: 'publish',
          topic: `growth/${firstTopic + (sent % topics)}/state`,
          payload: '{"n":1}',
          qos: 1,
          messageId: (sent % 65_535) + 1,
        }),
      )
    }
    if (packets.length > 0) client.write(Buffer.concat(packets))
  }
  await new Promise(resolve => {
    acknowledged = acks => {
      done += acks
      if (done === messages) resolve()
      sendUpTo(done + IN_FLIGHT)
    }
    sendUpTo(IN_FLIGHT)
  })
  return { sent }
}

server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
respondToRequests(send)

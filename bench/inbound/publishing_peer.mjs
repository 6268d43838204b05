// A broker that only publishes ready-made packets in few writes, so that the client is the limit. Each request is one round
// for the subject with these subscriptions.
import { connect, createServer } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { respondToRequests, say } from '../requests.mjs'
import { PAYLOAD, topicsOf } from './handlers.mjs'
import { BATCH, WINDOW } from './plan.mjs'

/** The connection of each subject. */
const clients = new Map()

class Client {
  socket
  protocolVersion = 4
  receiveMaximum = WINDOW
  /** Filter of the last subscription. */
  identifier
  acks = 0
  acknowledged = () => {}

  constructor(socket) {
    this.socket = socket
    socket.setNoDelay(true)
    const parser = mqttPacket.parser()
    parser.on('packet', packet => this.#take(packet))
    socket.on('error', () => {})
    socket.on('data', bytes => {
      this.acks = 0
      parser.parse(bytes)
      if (this.acks > 0) this.acknowledged(this.acks)
    })
  }

  #take(packet) {
    if (packet.cmd === 'puback') this.acks += 1
    else if (packet.cmd === 'connect') {
      this.protocolVersion = packet.protocolVersion
      this.receiveMaximum = Math.min(WINDOW, packet.properties?.receiveMaximum ?? WINDOW)
      this.#send({ cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent: false })
    } else if (packet.cmd === 'subscribe') {
      const { messageId, subscriptions, properties } = packet
      clients.set(subscriptions[0].topic.split('/')[0], this)
      this.identifier = properties?.subscriptionIdentifier
      this.#send({ cmd: 'suback', messageId, granted: subscriptions.map(() => 1) })
    } else if (packet.cmd === 'pingreq') this.#send({ cmd: 'pingresp' })
  }

  #send(packet) {
    this.socket.write(mqttPacket.generate(packet, { protocolVersion: this.protocolVersion }))
  }

  /** The maximum number of packets in flight in one buffer, which is written in slices repeatedly. */
  ring(topics, qos) {
    const { protocolVersion, identifier } = this
    const properties = identifier === undefined ? {} : { subscriptionIdentifier: identifier }
    const packets = Array.from({ length: WINDOW }, (_, index) =>
      mqttPacket.generate(
        {
          cmd: 'publish',
          topic: topics[index % topics.length],
          payload: PAYLOAD,
          qos,
          ...(qos === 0 ? {} : { messageId: index + 1 }),
          ...(protocolVersion === 5 ? { properties } : {}),
        },
        { protocolVersion },
      ),
    )
    const ends = []
    for (const { length } of packets) ends.push((ends.at(-1) ?? 0) + length)
    return { bytes: Buffer.concat(packets), ends: [0, ...ends] }
  }
}

/** QoS 1 continues with each acknowledgement, as Receive Maximum requires; QoS 0 with the progress of the handlers. */
async function round({ receiver, subject, count, qos, messages }) {
  const client = clients.get(subject)
  const { bytes, ends } = client.ring(topicsOf(subject, count), qos)
  const progress = connect(receiver, '127.0.0.1')
  await new Promise(resolve => progress.once('data', resolve))
  let sent = 0
  const sendUpTo = limit => {
    while (sent < Math.min(messages, limit)) {
      const from = sent % WINDOW
      const to = Math.min(WINDOW, from + Math.min(messages, limit) - sent)
      client.socket.write(bytes.subarray(ends[from], ends[to]))
      sent += to - from
    }
  }
  await new Promise(resolve => {
    let handled = 0
    let acknowledged = 0
    client.acknowledged = acks => {
      acknowledged += acks
      sendUpTo(acknowledged + client.receiveMaximum)
      if (acknowledged === messages) resolve()
    }
    progress.on('data', ({ length }) => {
      handled += length * BATCH
      if (qos === 0) sendUpTo(handled + WINDOW)
      if (qos === 0 && handled === messages) resolve()
    })
    sendUpTo(qos === 0 ? WINDOW : client.receiveMaximum)
  })
  progress.destroy()
  return { sent }
}

const server = createServer(socket => new Client(socket))
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
respondToRequests(round)

// The minimum cost of a request: two sockets with ready-made packets, and the same four hops over the same broker.
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'

const REQUEST = 'floor/request'
const RESPONSE = 'floor/response'

/** A connected socket that subscribed to `filter` at QoS 0, as requests and responses are by default. */
async function open(port, clientId, filter, onPublish) {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  const parser = mqttPacket.parser()
  socket.on('data', bytes => parser.parse(bytes))
  const send = packet => socket.write(mqttPacket.generate(packet))
  await once(socket, 'connect')
  send({ cmd: 'connect', clientId, clean: true, keepalive: 0 })
  await new Promise(resolve => {
    parser.on('packet', packet => {
      if (packet.cmd === 'connack')
        send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: filter, qos: 0 }] })
      if (packet.cmd === 'suback') resolve()
      if (packet.cmd === 'publish') onPublish(packet)
    })
  })
  return send
}

export async function respond(port) {
  let messageId = 0
  const send = await open(port, 'floor-responder', REQUEST, ({ payload }) => {
    const qos = Number(payload.subarray(0, 1).toString())
    messageId = (messageId % 65_535) + 1
    send({ cmd: 'publish', topic: RESPONSE, payload, qos, ...(qos > 0 ? { messageId } : {}) })
  })
}

export async function request(port) {
  const waiting = new Map()
  const send = await open(port, 'floor-requester', RESPONSE, ({ payload }) => {
    const key = payload.toString().slice(1)
    waiting.get(key)(JSON.parse(key))
    waiting.delete(key)
  })
  let messageId = 0
  return (value, qos) => {
    const key = JSON.stringify(value)
    messageId = (messageId % 65_535) + 1
    const response = new Promise(resolve => waiting.set(key, resolve))
    send({ cmd: 'publish', topic: REQUEST, payload: `${qos}${key}`, qos, ...(qos > 0 ? { messageId } : {}) })
    return response
  }
}

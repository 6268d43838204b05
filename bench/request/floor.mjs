// The minimum cost of a request: two sockets, and the same packets in the same four hops over the same broker. Requests have a
// Response Topic and Correlation Data on MQTT 5, and Nest's envelope on 3.1.1. They are delivered at QoS 1 and acknowledged,
// as to the handler in responder.mjs; responses are delivered at QoS 0.
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'

const REQUEST = 'floor/echo'
const RESPONSE = 'floor/responses/5aad28df-de75-4f12-a1aa-23cceea4e68f'
const EXPIRY_SECONDS = 30
const CORRELATION_BYTES = 16

class FloorClient {
  #socket
  #version
  #messageId = 0

  /** A connected socket with one subscription. */
  static async open({ port, version }, clientId, subscription, onPublish) {
    const client = new FloorClient()
    client.#version = version
    client.#socket = connect(port, '127.0.0.1')
    client.#socket.setNoDelay(true)
    const parser = mqttPacket.parser({ protocolVersion: version })
    client.#socket.on('data', bytes => parser.parse(bytes))
    await once(client.#socket, 'connect')
    client.send({ cmd: 'connect', clientId, clean: true, keepalive: 0, protocolVersion: version })
    await new Promise(resolve => {
      parser.on('packet', packet => {
        if (packet.cmd === 'connack')
          client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [subscription] })
        if (packet.cmd === 'suback') resolve()
        if (packet.cmd === 'publish') onPublish(packet, client)
      })
    })
    return client
  }

  /** Sends packets in one write. */
  send(...packets) {
    const options = { protocolVersion: this.#version }
    this.#socket.write(Buffer.concat(packets.map(packet => mqttPacket.generate(packet, options))))
  }

  publish(topic, payload, qos, properties) {
    this.#messageId = (this.#messageId % 65_535) + 1
    return {
      cmd: 'publish',
      topic,
      payload,
      qos,
      properties,
      ...(qos > 0 ? { messageId: this.#messageId } : {}),
    }
  }
}

export async function respond(config) {
  const response =
    config.version === 5
      ? ({ payload, properties }) => [
          properties.responseTopic,
          payload,
          { contentType: 'application/json', correlationData: properties.correlationData },
        ]
      : ({ payload }) => {
          const { data, id } = JSON.parse(payload)
          return [RESPONSE, JSON.stringify({ response: data, isDisposed: true, id })]
        }
  await FloorClient.open(config, 'floor-responder', { topic: REQUEST, qos: 1 }, (packet, client) => {
    const { qos, messageId } = packet
    const [topic, payload, properties] = response(packet)
    const packets = [client.publish(topic, payload, qos, properties)]
    if (qos > 0) packets.push({ cmd: 'puback', messageId })
    client.send(...packets)
  })
}

export async function request(config) {
  const waiting = new Map()
  const settle = (key, value) => {
    waiting.get(key)(value)
    waiting.delete(key)
  }
  const onResponse =
    config.version === 5
      ? ({ payload, properties }) => settle(properties.correlationData.toString('hex'), JSON.parse(payload))
      : ({ payload }) => {
          const { id, response } = JSON.parse(payload)
          settle(id, response)
        }
  const client = await FloorClient.open(config, 'floor-requester', { topic: RESPONSE, qos: 0 }, onResponse)
  return (value, qos) => {
    const correlationData = Buffer.alloc(CORRELATION_BYTES)
    correlationData.writeUInt32BE(value)
    const id = correlationData.toString('hex')
    const packet =
      config.version === 5
        ? client.publish(REQUEST, JSON.stringify(value), qos, {
            messageExpiryInterval: EXPIRY_SECONDS,
            responseTopic: RESPONSE,
            correlationData,
          })
        : client.publish(REQUEST, JSON.stringify({ pattern: REQUEST, data: value, id }), qos)
    const response = new Promise(resolve => waiting.set(id, resolve))
    client.send(packet)
    return response
  }
}

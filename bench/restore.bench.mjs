// How long does it take to restore 10,000 filters after a restart of the broker, compared with one socket that sends the
// same SUBSCRIBE packets in one batch?
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { MqttClient } from 'nestjs-mqtt/client'
import { startMosquitto } from './mosquitto.mjs'
import { rowOf } from './report/row.mjs'
import { inTurn } from './rounds.mjs'

export const title = 'Restoring subscriptions'

const FILTERS = 10_000
const BUDGET_MS = 2_000
const filters = Array.from({ length: FILTERS }, (_, index) => `restore/${index}/+/state`)

/** A plain socket: CONNECT, then every SUBSCRIBE in one write; finished with the last SUBACK. */
async function floor(port, protocolVersion, perPacket) {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  const parser = mqttPacket.parser({ protocolVersion })
  const packets = []
  for (let at = 0; at < FILTERS; at += perPacket) {
    packets.push(
      mqttPacket.generate(
        {
          cmd: 'subscribe',
          messageId: packets.length + 1,
          subscriptions: filters.slice(at, at + perPacket).map(topic => ({ topic, qos: 1 })),
          ...(protocolVersion === 5 ? { properties: { subscriptionIdentifier: packets.length + 1 } } : {}),
        },
        { protocolVersion },
      ),
    )
  }
  const batch = Buffer.concat(packets)
  await once(socket, 'connect')
  const startMs = performance.now()
  socket.write(
    mqttPacket.generate({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion,
      clean: true,
      clientId: 'floor',
      keepalive: 60,
    }),
  )
  let granted = 0
  await new Promise(resolve => {
    parser.on('packet', packet => {
      if (packet.cmd === 'connack') socket.write(batch)
      if (packet.cmd === 'suback' && ++granted === packets.length) resolve()
    })
    socket.on('data', bytes => parser.parse(bytes))
  })
  const ms = performance.now() - startMs
  socket.destroy()
  return { ms }
}

/** A client with all the filters, and the time of the successful attempt. */
async function startOurs(url, protocolVersion) {
  const client = new MqttClient({ url, protocolVersion, reconnect: { delayMs: [5] } })
  for (const filter of filters) client.subscribe(filter, () => {}, { qos: 1 })
  let diallingMs = 0
  client.onState(({ status }) => {
    if (status === 'connecting') diallingMs = performance.now()
  })
  await client.start()
  return {
    client,
    lost: async () => {
      while (client.state.status === 'connected') await new Promise(setImmediate)
    },
    restored: async () => {
      while (client.stats().subscriptions.granted < FILTERS) await new Promise(setImmediate)
      return { ms: performance.now() - diallingMs }
    },
  }
}

export async function* rows({ rounds }) {
  for (const [protocolVersion, perPacket] of [
    [5, 1],
    [4, 50],
  ]) {
    const broker = await startMosquitto()
    const ours = await startOurs(broker.url, protocolVersion)
    const figures = await inTurn(['ours', 'floor'], rounds, async subject => {
      if (subject === 'floor') return floor(broker.port, protocolVersion, perPacket)
      await broker.restart(ours.lost)
      return ours.restored()
    })
    const version = protocolVersion === 5 ? '5' : '3.1.1'
    yield rowOf(`mosquitto restarted, MQTT ${version}, 10,000 filters`, figures, [
      { figure: 'ms', atMost: BUDGET_MS },
    ])
    await ours.client.close()
    await broker.stop()
  }
}

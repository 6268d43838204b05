// How long until 10,000 filters are back after the broker was restarted, beside one raw client that sends the same
// SUBSCRIBE packets in one batch?
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { startMosquitto } from './mosquitto.mjs'
import { BareSession } from './session.mjs'

const FILTERS = 10_000
const ROUNDS = 5
const filters = Array.from({ length: FILTERS }, (_, index) => `restore/${index}/+/state`)
const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

/** A plain socket: CONNECT, then every SUBSCRIBE in one write; done with the last SUBACK. */
async function rawRestore(port, protocolVersion, perPacket) {
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
  const start = performance.now()
  socket.write(
    mqttPacket.generate({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion,
      clean: true,
      clientId: 'raw',
      keepalive: 60,
    }),
  )
  let answered = 0
  await new Promise(resolve => {
    parser.on('packet', packet => {
      if (packet.cmd === 'connack') socket.write(batch)
      if (packet.cmd === 'suback' && ++answered === packets.length) resolve()
    })
    socket.on('data', bytes => parser.parse(bytes))
  })
  const ms = performance.now() - start
  socket.destroy()
  return { ms, packets: packets.length }
}

for (const [protocolVersion, perPacket] of [
  [5, 1],
  [4, 50],
]) {
  const broker = await startMosquitto()
  const session = await BareSession.start({ url: broker.url, protocolVersion, filters })
  const rows = { ours: [], raw: [] }
  let packets = 0
  for (let round = 0; round < ROUNDS; round += 1) {
    await broker.restart(() => session.lost())
    const ours = await session.restored()
    rows.ours.push(ours.ms)
    packets = ours.packets
    rows.raw.push((await rawRestore(broker.port, protocolVersion, perPacket)).ms)
  }
  const [ours, raw] = [median(rows.ours), median(rows.raw)]
  console.log(
    `MQTT ${protocolVersion === 5 ? '5    ' : '3.1.1'} ${FILTERS} filters back from CONNECT on: ${Math.round(ours)} ms in ${packets} SUBSCRIBE packets, each answer checked; raw client, same packets in one batch: ${Math.round(raw)} ms (x ${(ours / raw).toFixed(2)})`,
  )
  await session.stop()
  await broker.stop()
}

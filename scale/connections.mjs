// What an idle device costs the broker: memory of a connection and of a subscription, and the time of a connection.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { startMosquitto } from '../bench/mosquitto.mjs'
import { cpuMicrosOf } from '../bench/rounds.mjs'
import { table } from '../soak/tables.mjs'

const AT_ONCE = 50
const OPTIONS = { protocolVersion: 5 }
const encode = packet => mqttPacket.generate(packet, OPTIONS)

/** Resident memory of a process in bytes, on Linux. */
function residentBytes(pid) {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(kilobytes) * 1_024
}

async function connectDevice(port, number) {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  const properties = { sessionExpiryInterval: 0 }
  socket.write(
    encode({ cmd: 'connect', clientId: `idle-${number}`, clean: true, keepalive: 0, ...OPTIONS, properties }),
  )
  await once(socket, 'data')
  return socket
}

async function subscribe(socket, number) {
  const topic = `scale/devices/${number}/command`
  socket.write(encode({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic, qos: 1 }] }))
  await once(socket, 'data')
}

/** Calls `work` with each number, a few at once. */
async function forEach(count, work) {
  let next = 0
  const worker = async () => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

export async function connections({ count, say }) {
  const broker = await startMosquitto()
  const pid = broker.pid()
  const sockets = []
  const atStart = residentBytes(pid)
  const cpuBefore = cpuMicrosOf(pid)
  await forEach(count, async number => {
    sockets[number] = await connectDevice(broker.port, number)
  })
  const connectMicros = (cpuMicrosOf(pid) - cpuBefore) / count
  const connected = residentBytes(pid)
  await forEach(count, number => subscribe(sockets[number], number))
  const subscribed = residentBytes(pid)
  for (const socket of sockets) socket.destroy()
  await broker.stop()
  const figures = {
    connectionBytes: (connected - atStart) / count,
    subscriptionBytes: (subscribed - connected) / count,
    connectMicros,
  }
  say(`  ${count} idle connections`)
  return figures
}

export const connectionLines = figures =>
  table([
    ['memory of the broker for an idle connection', `${Math.round(figures.connectionBytes)} bytes`],
    ['memory of the broker for one subscription', `${Math.round(figures.subscriptionBytes)} bytes`],
    ['CPU time of the broker for CONNECT', `${Math.round(figures.connectMicros)} µs`],
    ['PUBLISH of a reading with 100 bytes', `${figures.publish} bytes`],
    ['PUBACK', `${figures.puback} bytes`],
    ['both, and one TCP acknowledgement, with TCP and IP headers', `${figures.network} bytes`],
  ])

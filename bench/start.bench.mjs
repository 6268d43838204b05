// How long does an application take to its first message, compared with Nest's built-in transport, and how much memory does
// an idle connection use, compared with `mqtt`?
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { rowOf } from './report/row.mjs'
import { inTurn } from './rounds.mjs'

export const title = 'Start and memory'

const here = file => new URL(`./start/${file}`, import.meta.url)

async function retain(port) {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(mqttPacket.generate({ cmd: 'connect', clientId: 'retainer', clean: true, keepalive: 0 }))
  await once(socket, 'data')
  socket.write(
    mqttPacket.generate({
      cmd: 'publish',
      topic: 'start/state',
      payload: '{"n":1}',
      qos: 1,
      messageId: 1,
      retain: true,
    }),
  )
  await once(socket, 'data')
  socket.destroy()
}

/** Each figure comes from a separate process, which is ended afterwards. */
async function inOwnProcess(file, subject, port, flags = []) {
  const { child, first } = await Child.start(process.execPath, here(file), { subject, port }, flags)
  await child.end()
  return first
}

export async function* rows({ rounds }) {
  const broker = await startMosquitto()
  await retain(broker.port)
  const { port } = broker
  const start = await inTurn(['ours', 'builtIn'], rounds, subject => inOwnProcess('app.mjs', subject, port))
  yield rowOf('NestFactory.create to the first message', start, [
    { figure: 'ms', peer: 'builtIn', atMost: 1.05 },
  ])
  const idle = await inTurn(['ours', 'mqtt'], Math.min(rounds, 3), async subject => {
    const { kilobytes } = await inOwnProcess('connections.mjs', subject, port, ['--expose-gc'])
    return { kilobytes }
  })
  // Each connection contains a client of `mqtt`, and its own state beside it.
  yield rowOf('an idle connection, of 1,000 in one process', idle, [
    { figure: 'kilobytes', peer: 'mqtt', atMost: 2.5 },
  ])
  await broker.stop()
}

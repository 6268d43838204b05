// A peer that accepts every connection and ignores every limit. It sends as fast as the socket accepts data.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { generate, parser } from 'mqtt-packet'

const MAX_PACKET_ID = 65_535
const PER_WRITE = 500

export async function startFlood({ protocolVersion, count, payloadBytes, qos }) {
  const progress = { written: 0, connections: 0 }
  const sockets = new Set()
  // JSON, which the default codec accepts.
  const payload = Buffer.from(`"${'x'.repeat(payloadBytes - 2)}"`)
  const packet = n =>
    generate(
      {
        cmd: 'publish',
        topic: 'flood',
        payload,
        qos,
        dup: false,
        retain: false,
        messageId: (n % MAX_PACKET_ID) + 1,
      },
      { protocolVersion },
    )
  const send = async socket => {
    const closed = new Promise(resolve => socket.once('close', resolve))
    const perWrite = payloadBytes > 10_000 ? 1 : PER_WRITE
    for (let n = 0; n < count && !socket.destroyed; n += perWrite) {
      const batch = Buffer.concat(
        Array.from({ length: Math.min(perWrite, count - n) }, (_, index) => packet(n + index)),
      )
      progress.written = Math.max(progress.written, n + perWrite)
      if (!socket.write(batch))
        await Promise.race([new Promise(resolve => socket.once('drain', resolve)), closed])
    }
  }
  const server = createServer(socket => {
    progress.connections += 1
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    const packets = parser({ protocolVersion })
    packets.on('packet', ({ cmd, messageId, subscriptions }) => {
      const write = reply => socket.write(generate(reply, { protocolVersion }))
      if (cmd === 'connect') write({ cmd: 'connack', returnCode: 0, reasonCode: 0, sessionPresent: false })
      if (cmd !== 'subscribe') return
      write({ cmd: 'suback', messageId, granted: subscriptions.map(({ qos: asked }) => asked) })
      void send(socket)
    })
    socket.on('data', bytes => packets.parse(bytes))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: server.address().port,
    progress,
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

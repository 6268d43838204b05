// A peer that accepts the connection, then reads nothing, sends nothing and keeps the connection open.
import { once } from 'node:events'
import { createServer } from 'node:net'

const CONNACK_5 = Buffer.from([0x20, 3, 0, 0, 0])

export async function startSilentPeer() {
  const sockets = new Set()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.pause()
      socket.write(CONNACK_5)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: server.address().port,
    /** Number of connections so far. */
    connections: () => sockets.size,
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

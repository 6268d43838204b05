import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { Transform } from 'node:stream'

const PINGRESP = 0xd0
const PUBLISH = 0x30

/** A TCP proxy in front of a broker that removes PINGRESP packets on demand, and reports what the broker delivers. */
export class LossyPings {
  isLosing = false
  lost = 0
  sockets = new Set()
  connections = 0

  /** @param onDelivery is called for each PUBLISH of the broker, with the number of the connection and the packet */
  constructor(onDelivery) {
    this.onDelivery = onDelivery
  }

  static async start(port, onDelivery = () => {}) {
    const proxy = new LossyPings(onDelivery)
    proxy.server = createServer(client => proxy.accept(client, connect(port, '127.0.0.1')))
    proxy.server.listen(0, '127.0.0.1')
    await once(proxy.server, 'listening')
    proxy.port = proxy.server.address().port
    return proxy
  }

  accept(client, broker) {
    for (const socket of [client, broker]) {
      socket.setNoDelay(true)
      this.sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => {
        this.sockets.delete(socket)
        client.destroy()
        broker.destroy()
      })
    }
    client.pipe(broker)
    broker.pipe(this.filter()).pipe(client)
  }

  /** Forwards packets, and leaves PINGRESP packets out while `isLosing`. */
  filter() {
    const connection = this.connections++
    let rest = Buffer.alloc(0)
    return new Transform({
      transform: (chunk, _encoding, done) => {
        const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
        const kept = []
        let start = 0
        for (let end = endOfPacket(bytes, 0); end !== undefined; end = endOfPacket(bytes, start)) {
          if (this.isLosing && bytes[start] === PINGRESP) this.lost += 1
          else kept.push(bytes.subarray(start, end))
          if ((bytes[start] & 0xf0) === PUBLISH) this.onDelivery(connection, bytes.subarray(start, end))
          start = end
        }
        rest = bytes.subarray(start)
        done(null, Buffer.concat(kept))
      },
    })
  }

  stop() {
    this.server.close()
    for (const socket of this.sockets) socket.destroy()
  }
}

/** Index after the packet that begins at `start`, or undefined if it is incomplete (MQTT 5, 2.1.4). */
function endOfPacket(bytes, start) {
  let length = 0
  for (let index = start + 1; index < bytes.length; index += 1) {
    length += (bytes[index] & 0x7f) * 128 ** (index - start - 1)
    if ((bytes[index] & 0x80) !== 0) continue
    const end = index + 1 + length
    return end <= bytes.length ? end : undefined
  }
  return undefined
}

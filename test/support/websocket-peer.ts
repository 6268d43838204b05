import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'

/** From RFC 6455, 1.3. */
const KEY_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

export const OPCODE = { continuation: 0, text: 1, binary: 2 } as const

export interface Frame {
  readonly opcode: number
  readonly content: Buffer
}

/** One WebSocket connection of a client, frame by frame. Frames have at most 65,535 bytes. */
export class WebSocketConnection {
  readonly frames: Frame[] = []
  isClosed = false
  private bytes = Buffer.alloc(0)

  constructor(
    readonly request: IncomingMessage,
    private readonly socket: Duplex,
  ) {
    const key = String(request.headers['sec-websocket-key'])
    const accept = createHash('sha1')
      .update(key + KEY_SUFFIX)
      .digest('base64')
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n`,
    )
    socket.on('data', (bytes: Buffer) => this.take(bytes))
    socket.on('error', () => {})
    // The sockets of an HTTP server stay open when the client ends its side.
    socket.on('end', () => socket.end())
    socket.on('close', () => {
      this.isClosed = true
    })
  }

  /** @param isLast false if a continuation frame follows */
  send(opcode: number, content: Buffer, isLast = true): void {
    const header = Buffer.from([(isLast ? 0x80 : 0) | opcode, content.length < 126 ? content.length : 126])
    const length = Buffer.alloc(content.length < 126 ? 0 : 2)
    if (length.length > 0) length.writeUInt16BE(content.length)
    this.socket.write(Buffer.concat([header, length, content]))
  }

  private take(bytes: Buffer): void {
    this.bytes = Buffer.concat([this.bytes, bytes])
    for (;;) {
      const short = (this.bytes[1] ?? 0) & 0x7f
      const start = short === 126 ? 4 : 2
      if (this.bytes.length < start) return
      const length = short === 126 ? this.bytes.readUInt16BE(2) : short
      // The mask of the client has four bytes.
      const end = start + 4 + length
      if (this.bytes.length < end) return
      const mask = this.bytes.subarray(start, start + 4)
      const content = this.bytes.subarray(start + 4, end).map((byte, index) => byte ^ (mask[index % 4] ?? 0))
      this.frames.push({ opcode: (this.bytes[0] ?? 0) & 0x0f, content: Buffer.from(content) })
      this.bytes = this.bytes.subarray(end)
    }
  }
}

/** Accepts WebSocket connections on a free port. */
export async function webSocketPeer() {
  const connections: WebSocketConnection[] = []
  const sockets = new Set<Duplex>()
  const server = createServer()
  server.on('upgrade', (request, socket) => {
    sockets.add(socket)
    connections.push(new WebSocketConnection(request, socket))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  // Seam: a server that listens on a port has an address with a port.
  const { port } = server.address() as AddressInfo
  const stop = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => server.close(resolve))
  }
  return { url: `ws://127.0.0.1:${port}/mqtt`, connections, stop }
}

import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { generate, type IPublishPacket, type Packet, parser } from 'mqtt-packet'

/** What every node knows about one client. */
interface SharedSession {
  isSubscribed: boolean
  /** Messages without PUBACK, by Packet Identifier. */
  readonly waiting: Map<number, IPublishPacket>
  lastId: number
  socket: Socket | undefined
}

interface Node {
  readonly server: Server
  readonly url: string
  readonly sockets: Set<Socket>
  isUp: boolean
}

/**
 * MQTT 3.1.1 nodes that share their sessions and messages, as a replicated cluster does. Every subscription matches every
 * topic. A message is acknowledged once all sessions have it.
 */
export class ClusteredBroker {
  /** Called when a message is stored, before its PUBACK is sent. */
  onStored: (count: number) => void = () => {}
  /** PUBLISH packets that a client sent again. */
  repeated = 0
  private stored = 0
  private readonly sessions = new Map<string, SharedSession>()

  private constructor(private readonly nodes: readonly Node[]) {}

  static async start(count: number): Promise<ClusteredBroker> {
    const nodes: Node[] = []
    const broker = new ClusteredBroker(nodes)
    for (let index = 0; index < count; index += 1) nodes.push(await broker.open())
    return broker
  }

  get urls(): string[] {
    return this.nodes.map(({ url }) => url)
  }

  /** Ends all connections of a node, and every new one, until it is revived. It keeps its port. */
  kill(url: string): void {
    const node = this.node(url)
    node.isUp = false
    for (const socket of node.sockets) socket.destroy()
  }

  revive(url: string): void {
    this.node(url).isUp = true
  }

  stop(): void {
    for (const { server, url } of this.nodes) {
      this.kill(url)
      server.close()
    }
  }

  private node(url: string): Node {
    const node = this.nodes[this.urls.indexOf(url)]
    if (node === undefined) throw new Error(`no node has the URL ${url}`)
    return node
  }

  private async open(): Promise<Node> {
    const server = createServer(socket => {
      if (node.isUp) this.accept(node, socket)
      else socket.destroy()
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const address = server.address()
    if (typeof address !== 'object' || address === null) throw new Error('the node has no port')
    const node: Node = { server, url: `mqtt://127.0.0.1:${address.port}`, sockets: new Set(), isUp: true }
    return node
  }

  private accept(node: Node, socket: Socket): void {
    node.sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => node.sockets.delete(socket))
    const packets = parser()
    let session: SharedSession | undefined
    packets.on('packet', packet => {
      // What a killed node has already read is lost with it.
      if (socket.destroyed) return
      if (packet.cmd === 'connect') session = this.connect(packet.clientId, socket)
      else if (session !== undefined) this.take(session, socket, packet)
    })
    socket.on('data', (bytes: Buffer) => packets.parse(bytes))
  }

  private connect(clientId: string, socket: Socket): SharedSession {
    const known = this.sessions.get(clientId)
    const session = known ?? { isSubscribed: false, waiting: new Map(), lastId: 0, socket }
    session.socket = socket
    this.sessions.set(clientId, session)
    send(socket, { cmd: 'connack', returnCode: 0, sessionPresent: known !== undefined })
    for (const message of session.waiting.values()) send(socket, { ...message, dup: true })
    return session
  }

  private take(session: SharedSession, socket: Socket, packet: Packet): void {
    if (packet.cmd === 'subscribe') {
      session.isSubscribed = true
      send(socket, { cmd: 'suback', messageId: packet.messageId ?? 0, granted: [1] })
    } else if (packet.cmd === 'puback') session.waiting.delete(packet.messageId ?? 0)
    else if (packet.cmd === 'pingreq') send(socket, { cmd: 'pingresp' })
    else if (packet.cmd === 'publish') this.store(socket, packet)
  }

  private store(socket: Socket, packet: IPublishPacket): void {
    if (packet.dup) this.repeated += 1
    for (const session of this.sessions.values()) {
      if (!session.isSubscribed) continue
      session.lastId += 1
      const message = { ...packet, messageId: session.lastId, dup: false }
      session.waiting.set(session.lastId, message)
      send(session.socket, message)
    }
    this.stored += 1
    this.onStored(this.stored)
    send(socket, { cmd: 'puback', messageId: packet.messageId ?? 0 })
  }
}

function send(socket: Socket | undefined, packet: Packet): void {
  if (socket === undefined || socket.destroyed) return
  socket.write(generate(packet, { protocolVersion: 4 }))
}

import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { generate, type IConnackPacket, type IConnectPacket, type Packet, parser } from 'mqtt-packet'

/** How the broker differs from the specification. */
export interface Oddities {
  /** Response to CONNECT: the fields of CONNACK, or what happens in its place. @default success */
  readonly connack?: (packet: IConnectPacket) => Partial<IConnackPacket> | 'silence' | 'hang-up'
  /** Sends QoS 1 messages without regard to the Receive Maximum of the client, from the first acknowledgement on or at once. */
  readonly overrun?: 'at-once' | 'after-an-acknowledgement'
  /** Acknowledges QoS 2 with PUBACK, or closes the connection. */
  readonly qos2?: 'puback' | 'hang-up'
  /** Grants `$share/…`, and delivers to every member. */
  readonly sharesCopies?: boolean
  /** Sends bytes that are not MQTT in place of SUBACK. */
  readonly garbage?: boolean
  /** Bytes that are sent again and again after CONNACK. */
  readonly floods?: boolean
  /** Never responds to SUBSCRIBE. */
  readonly ignoresSubscribe?: boolean
}

class Connection {
  window = Number.POSITIVE_INFINITY
  readonly filters = new Map<string, 0 | 1 | 2>()
  readonly waiting: Packet[] = []
  protocolVersion = 4
  unacknowledged = 0
  lastId = 0

  constructor(readonly socket: Socket) {}

  send(packet: Packet): void {
    if (!this.socket.destroyed) this.socket.write(generate(packet, { protocolVersion: this.protocolVersion }))
  }

  /** Sends what the window allows. */
  flush(): void {
    while (this.unacknowledged < this.window) {
      const packet = this.waiting.shift()
      if (packet === undefined) return
      this.unacknowledged += 1
      this.send(packet)
    }
  }
}

/** A broker on a port of its own that knows topics without wildcards, QoS 0 and 1, and no sessions. */
export class OddBroker {
  readonly connects: IConnectPacket[] = []
  readonly published: string[] = []
  private readonly connections = new Set<Connection>()

  private constructor(
    private readonly server: Server,
    private readonly oddities: Oddities,
  ) {}

  static async start(oddities: Oddities = {}): Promise<OddBroker> {
    const server = createServer()
    const broker = new OddBroker(server, oddities)
    server.on('connection', socket => broker.accept(socket))
    await once(server.listen(0, '127.0.0.1'), 'listening')
    return broker
  }

  get url(): string {
    const address = this.server.address()
    if (typeof address !== 'object' || address === null) throw new Error('the server has no port')
    return `mqtt://127.0.0.1:${address.port}`
  }

  async stop(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy()
    await once(this.server.close(), 'close')
  }

  private accept(socket: Socket): void {
    const connection = new Connection(socket)
    this.connections.add(connection)
    const packets = parser()
    packets.on('packet', packet => this.received(connection, packet))
    packets.on('error', () => socket.destroy())
    socket.on('data', bytes => packets.parse(bytes))
    socket.on('error', () => {})
    socket.on('close', () => this.connections.delete(connection))
  }

  private received(connection: Connection, packet: Packet): void {
    switch (packet.cmd) {
      case 'connect':
        return this.connected(connection, packet)
      case 'pingreq':
        return connection.send({ cmd: 'pingresp' })
      case 'subscribe':
        if (this.oddities.ignoresSubscribe) return
        if (this.oddities.garbage) {
          connection.socket.write(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))
          return
        }
        for (const { topic, qos } of packet.subscriptions) connection.filters.set(topic, qos)
        return connection.send({
          cmd: 'suback',
          messageId: packet.messageId ?? 0,
          granted: packet.subscriptions.map(({ qos }) => qos),
        })
      case 'publish':
        return this.publish(connection, packet)
      case 'puback':
        connection.unacknowledged -= 1
        if (this.oddities.overrun !== undefined) connection.window = Number.POSITIVE_INFINITY
        return connection.flush()
      case 'disconnect':
        connection.socket.end()
        return
      default:
        return
    }
  }

  private connected(connection: Connection, packet: IConnectPacket): void {
    this.connects.push(packet)
    connection.protocolVersion = packet.protocolVersion ?? 4
    if (this.oddities.overrun !== 'at-once')
      connection.window = packet.properties?.receiveMaximum ?? Number.POSITIVE_INFINITY
    const response = this.oddities.connack?.(packet) ?? {}
    if (response === 'silence') return
    if (response === 'hang-up') {
      connection.socket.destroy()
      return
    }
    connection.send({ cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent: false, ...response })
    if (this.oddities.floods) this.flood(connection)
  }

  private flood({ socket }: Connection): void {
    const bytes = generate({
      cmd: 'publish',
      topic: 'flood',
      payload: Buffer.alloc(1_000_000),
      qos: 0,
      dup: false,
      retain: false,
    })
    const more = (): void => {
      if (!socket.destroyed) socket.write(bytes, more)
    }
    more()
  }

  private publish(
    from: Connection,
    { topic, payload, qos, messageId = 0 }: Extract<Packet, { cmd: 'publish' }>,
  ): void {
    if (qos === 2 && this.oddities.qos2 === 'hang-up') {
      from.socket.destroy()
      return
    }
    this.published.push(topic)
    if (qos > 0) from.send({ cmd: 'puback', messageId })
    for (const connection of this.connections) {
      for (const [filter, granted] of connection.filters) {
        const plain = filter.replace(/^\$share\/[^/]+\//, '')
        if (plain !== topic || (plain !== filter && !this.oddities.sharesCopies)) continue
        this.deliver(connection, topic, payload, Math.min(qos, granted, 1))
      }
    }
  }

  private deliver(connection: Connection, topic: string, payload: string | Buffer, qos: number): void {
    const message = { cmd: 'publish', topic, payload, dup: false, retain: false } as const
    if (qos === 0) return connection.send({ ...message, qos: 0 })
    connection.lastId += 1
    connection.waiting.push({ ...message, qos: 1, messageId: connection.lastId })
    connection.flush()
  }
}

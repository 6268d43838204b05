import { EventEmitter, once } from 'node:events'
import type { Duplex } from 'node:stream'
import { generate, type IConnackPacket, type Packet, type PacketCmd, parser } from 'mqtt-packet'
import { allClosed } from './client-ends.js'
import { streamPair } from './stream-pair.js'

/** A packet of one type, as parsed by `mqtt-packet`. */
export type PacketOf<C extends PacketCmd> = Extract<Packet, { cmd: C }>

/**
 * Plays the broker packet by packet, in MQTT 3.1.1 and 5. Pass `createStream` as the option of the same name. Each attempt
 * to connect is one `PeerConnection`.
 */
export class ScriptedPeer {
  private readonly connections: PeerConnection[] = []
  private readonly emitter = new EventEmitter()
  private taken = 0
  /** Number of attempts that are still to be refused. */
  private refusals = 0

  readonly createStream = (): Duplex => {
    const [client, server] = streamPair()
    if (this.refusals > 0) {
      this.refusals -= 1
      const refused = Object.assign(new Error('connect ECONNREFUSED (scripted)'), { code: 'ECONNREFUSED' })
      setImmediate(() => client.destroy(refused))
      return client
    }
    this.connections.push(new PeerConnection(server, client))
    this.emitter.emit('connection')
    return client
  }

  /** Number of attempts to connect that were not refused. */
  get dials(): number {
    return this.connections.length
  }

  /** Refuses the next `count` attempts to connect, like a closed port. */
  refuse(count: number): void {
    this.refusals = count
  }

  /** Returns the next connection, and waits for it if there is none. */
  async connection(): Promise<PeerConnection> {
    const next = this.connections[this.taken]
    if (next === undefined) {
      await once(this.emitter, 'connection')
      return this.connection()
    }
    this.taken += 1
    return next
  }

  /** Waits for the next connection and its CONNECT, and sends a CONNACK with success. */
  async accept(connack: Partial<IConnackPacket> = {}): Promise<PeerConnection> {
    const connection = await this.connection()
    await connection.expect('connect')
    connection.send({ cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent: false, ...connack })
    return connection
  }
}

/** One connection of a client to a {@link ScriptedPeer}. */
export class PeerConnection {
  /** Every packet that arrived, in order. */
  readonly received: Packet[] = []
  /** Whether the peer responds to PINGREQ at once. Set to false to play a broker that does not keep up. */
  respondsToPings = true
  private readonly emitter = new EventEmitter()
  private read = 0
  private protocolVersion = 4
  private isClosed = false

  constructor(
    private readonly stream: Duplex,
    private readonly clientEnd: Duplex = stream,
  ) {
    const packets = parser()
    packets.on('packet', packet => {
      if (packet.cmd === 'connect') this.protocolVersion = packet.protocolVersion ?? 4
      this.received.push(packet)
      if (packet.cmd === 'pingreq' && this.respondsToPings) this.send({ cmd: 'pingresp' })
      this.emitter.emit('change')
    })
    // A broker also ends a connection that does not send MQTT.
    packets.on('error', () => stream.destroy())
    stream.on('data', (bytes: Buffer) => packets.parse(bytes))
    stream.on('error', () => {})
    stream.on('close', () => {
      this.isClosed = true
      this.emitter.emit('change')
    })
  }

  /**
   * Returns the next packet, and waits for it if there is none. Rejects if it is of another type. PINGREQ is skipped, unless
   * `cmd` is `pingreq`.
   */
  async expect<C extends PacketCmd>(cmd: C): Promise<PacketOf<C>> {
    const packet = this.received[this.read]
    if (packet === undefined) {
      if (this.isClosed) throw new Error(`expected ${cmd}, but the client closed the connection`)
      await once(this.emitter, 'change')
      return this.expect(cmd)
    }
    this.read += 1
    if (packet.cmd === 'pingreq' && cmd !== 'pingreq') return this.expect(cmd)
    if (!isOf(packet, cmd)) throw new Error(`expected ${cmd}, but the client sent ${packet.cmd}`)
    return packet
  }

  /** Returns the next packet of this type and skips all others. Waits for it if there is none. */
  async find<C extends PacketCmd>(cmd: C): Promise<PacketOf<C>> {
    const packet = this.received[this.read]
    if (packet === undefined) {
      if (this.isClosed) throw new Error(`expected ${cmd}, but the client closed the connection`)
      await once(this.emitter, 'change')
      return this.find(cmd)
    }
    this.read += 1
    return isOf(packet, cmd) ? packet : this.find(cmd)
  }

  send(packet: Packet): void {
    this.stream.write(generate(packet, { protocolVersion: this.protocolVersion }))
  }

  /** Writes raw bytes, such as malformed packets. */
  sendBytes(bytes: Buffer): void {
    this.stream.write(bytes)
  }

  /** Waits for the next SUBSCRIBE and responds with SUBACK: granted, or with the given Reason Codes. */
  async grant(...codes: number[]): Promise<PacketOf<'subscribe'>> {
    const packet = await this.expect('subscribe')
    const granted = packet.subscriptions.map((subscription, index) => codes[index] ?? subscription.qos)
    this.send({
      cmd: 'suback',
      granted,
      ...(packet.messageId === undefined ? {} : { messageId: packet.messageId }),
    })
    return packet
  }

  /** Stops reading, so that the client gets backpressure. */
  stall(): void {
    this.stream.pause()
  }

  /** Ends the connection without DISCONNECT. Resolves when the client has noticed. */
  cut(): Promise<void> {
    this.stream.destroy()
    return allClosed([this.stream, this.clientEnd])
  }

  /** Resolves when the connection is closed. */
  async closed(): Promise<void> {
    if (!this.isClosed) await once(this.stream, 'close')
  }
}

function isOf<C extends PacketCmd>(packet: Packet, cmd: C): packet is PacketOf<C> {
  return packet.cmd === cmd
}

import type { Duplex } from 'node:stream'
import { MqttClient } from '../../src/client/index.js'
import { packetSizeAt } from '../../src/core/protocol/packet-decoder.js'
import type { MqttConnectOptions } from '../../src/options/client-options.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from './eventually.js'

/** The types of packets (MQTT 5, 2.1.2). */
export const TYPE = {
  connect: 1,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  unsubscribe: 10,
  pingreq: 12,
  disconnect: 14,
  auth: 15,
} as const

/** One packet as its bytes. */
export class WirePacket {
  readonly type: number
  /** The lower four bits of the first byte. */
  readonly flags: number
  /** Everything after the Remaining Length. */
  readonly body: Buffer

  constructor(readonly bytes: Buffer) {
    const first = bytes.readUInt8(0)
    this.type = first >> 4
    this.flags = first & 0x0f
    let at = 1
    while (bytes.readUInt8(at) >= 0x80) at += 1
    this.body = bytes.subarray(at + 1)
  }

  get hex(): string {
    return this.bytes.toString('hex')
  }
}

/** What a client has written on one connection. */
export class Wire {
  private bytes = Buffer.alloc(0)

  constructor(stream: Duplex) {
    const write = stream.write.bind(stream)
    Object.assign(stream, {
      write: (chunk: Uint8Array | string, ...rest: []): boolean => {
        this.bytes = Buffer.concat([this.bytes, Buffer.from(chunk)])
        return write(chunk, ...rest)
      },
    })
  }

  get packets(): WirePacket[] {
    const packets: WirePacket[] = []
    for (let at = 0; at < this.bytes.length; ) {
      const end = at + packetSizeAt(this.bytes, at)
      if (end === at || end > this.bytes.length) break
      packets.push(new WirePacket(this.bytes.subarray(at, end)))
      at = end
    }
    return packets
  }

  of(type: number): WirePacket[] {
    return this.packets.filter(packet => packet.type === type)
  }

  /** Waits for packet number `count` of a type. */
  async find(type: number, count = 1): Promise<WirePacket> {
    await eventually(() => this.of(type).length >= count)
    const packet = this.of(type)[count - 1]
    if (packet === undefined) throw new Error('the packet is gone')
    return packet
  }
}

export type Connack = Parameters<ScriptedPeer['accept']>[0]

/** A client that is not connected, whose bytes are recorded: one `Wire` per connection. */
export function wireClient(options: MqttConnectOptions = {}) {
  const peer = new ScriptedPeer()
  const wires: Wire[] = []
  const client = new MqttClient({
    createStream: () => {
      const stream = peer.createStream()
      wires.push(new Wire(stream))
      return stream
    },
    connect: 'background',
    protocolVersion: 5,
    keepalive: 0,
    reconnect: { delayMs: [1], resetAfterMs: 0, verdict: () => 'retry' },
    drainTimeoutMs: 0,
    outbound: { flowControl: 'kernel' },
    logger: { error() {}, warn() {}, log() {}, debug() {} },
    ...options,
  })
  return { client, peer, wires }
}

export interface WireSession {
  readonly client: MqttClient
  readonly peer: ScriptedPeer
  readonly connection: PeerConnection
  readonly wire: Wire
  readonly wires: Wire[]
}

/** A connected client whose bytes are recorded. */
export async function onWire(options: MqttConnectOptions = {}, connack: Connack = {}): Promise<WireSession> {
  const { client, peer, wires } = wireClient(options)
  await client.start()
  const connection = await peer.accept(connack)
  await client.whenConnected()
  return { client, peer, connection, wires, wire: wireAt(wires, 0) }
}

export function wireAt(wires: readonly Wire[], index: number): Wire {
  const wire = wires[index]
  if (wire === undefined) throw new Error(`there are ${wires.length} connections`)
  return wire
}

/** Ends the connection, and returns the next one. */
export async function reconnected({ client, peer, connection, wires }: WireSession, connack: Connack = {}) {
  await connection.cut()
  const next = await peer.accept(connack)
  await client.whenConnected()
  return { connection: next, wire: wireAt(wires, wires.length - 1) }
}

/** The fields of a CONNECT packet (MQTT 5, 3.1), read byte by byte. */
export function readConnect({ body }: WirePacket) {
  let at = 0
  const byte = (): number => body.readUInt8(at++)
  const field = (): Buffer => {
    const length = body.readUInt16BE(at)
    at += 2 + length
    return body.subarray(at - length, at)
  }
  const properties = (): Buffer => {
    const length = byte()
    at += length
    return body.subarray(at - length, at)
  }
  const protocolName = field().toString()
  const protocolVersion = byte()
  const flags = byte()
  const keepAlive = body.readUInt16BE(at)
  at += 2
  const ownProperties = protocolVersion === 5 ? properties() : undefined
  const clientId = field().toString()
  const hasWill = (flags & 0x04) !== 0
  if (hasWill && protocolVersion === 5) properties()
  const will = hasWill ? { topic: field().toString(), payload: field().toString() } : undefined
  const username = (flags & 0x80) === 0 ? undefined : field().toString()
  const password = (flags & 0x40) === 0 ? undefined : field().toString()
  return {
    protocolName,
    protocolVersion,
    reserved: flags & 0x01,
    clean: (flags & 0x02) !== 0,
    willQos: (flags >> 3) & 3,
    willRetain: (flags & 0x20) !== 0,
    keepAlive,
    properties: ownProperties,
    clientId,
    will,
    username,
    password,
    /** Bytes after the last field that a flag announces. */
    rest: body.length - at,
  }
}

import { Duplex } from 'node:stream'
import {
  generate,
  type IConnackPacket,
  type IConnectPacket,
  type IPublishPacket,
  type ISubscription,
  type Packet,
  type PacketCmd,
  parser,
} from 'mqtt-packet'
import { describeReasonCode } from '../../core/protocol/packets.js'
import type { PublishObserved } from './observations.js'

export type PacketOf<C extends PacketCmd> = Extract<Packet, { cmd: C }>

/** What all connections of one run share. */
export interface Traffic {
  packetsOut: number
  bytesOut: number
  packetsIn: number
  bytesIn: number
}

/** A hostile or overloaded broker must not fill the memory. */
const MAX_BYTES_IN = 16_777_216

/** Limits the waits of one run. */
export interface RunLimit {
  readonly traffic: Traffic
  /** Time that is left, in milliseconds. */
  readonly leftMs: () => number
  /** Aborts the opening of a connection. */
  readonly signal?: AbortSignal | undefined
}

/** The broker ended the connection, or did not respond in time. */
export class Interrupted extends Error {
  constructor(
    message: string,
    /** The broker closed the connection. */
    readonly hasHungUp = false,
  ) {
    super(message)
  }
}

interface Arrival {
  readonly packet: Packet
  readonly atMs: number
}

interface Waiter {
  readonly matches: (packet: Packet) => boolean
  readonly done: (arrival: Arrival | undefined) => void
}

export type Publish = Pick<IPublishPacket, 'topic' | 'payload'> &
  Partial<Pick<IPublishPacket, 'qos' | 'retain' | 'properties' | 'messageId' | 'dup'>>

/** A stream for a client of its own, whose packets are counted with those of the run. */
export function countedStream(stream: Duplex, protocolVersion: 4 | 5, traffic: Traffic): Duplex {
  const [sent, received] = [parser({ protocolVersion }), parser({ protocolVersion })]
  // The client reports bytes that are not MQTT.
  for (const packets of [sent, received]) packets.on('error', () => {})
  sent.on('packet', () => {
    traffic.packetsOut += 1
  })
  received.on('packet', () => {
    traffic.packetsIn += 1
  })
  const counted = new Duplex({
    read: () => void stream.resume(),
    write: (bytes: Buffer, _encoding, done) => {
      traffic.bytesOut += bytes.length
      sent.parse(bytes)
      stream.write(bytes, done)
    },
    final: done => void stream.end(done),
    destroy: (error, done) => {
      stream.destroy()
      done(error)
    },
  })
  stream.on('data', (bytes: Buffer) => {
    traffic.bytesIn += bytes.length
    received.parse(bytes)
    if (!counted.push(bytes)) stream.pause()
  })
  stream.on('close', () => counted.destroy())
  return counted
}

/** One MQTT connection of which the caller sends every packet. */
export class RawConnection {
  /** Whether QoS 1 and 2 messages are acknowledged at once. */
  acknowledges = true
  private readonly arrivals: Arrival[] = []
  private readonly waiters = new Set<Waiter>()
  private lastId = 0
  private protocolVersion: 4 | 5 = 5
  private ending: string | undefined

  constructor(
    private readonly stream: Duplex,
    private readonly limit: RunLimit,
  ) {
    stream.on('data', (bytes: Buffer) => this.read(bytes))
    stream.on('error', error => this.ended(error.message))
    stream.on('close', () => this.ended('the broker closed the connection'))
  }

  private packets = parser()

  /** Why the connection has ended. */
  get whyEnded(): string | undefined {
    return this.ending
  }

  /** @returns CONNACK. Rejects with {@link Interrupted} if the broker sends none */
  async connect(packet: Omit<IConnectPacket, 'cmd' | 'protocolId'>, waitMs: number): Promise<IConnackPacket> {
    this.protocolVersion = packet.protocolVersion === 5 ? 5 : 4
    this.packets = parser({ protocolVersion: this.protocolVersion })
    this.packets.on('packet', received => this.arrived(received))
    this.packets.on('error', error => {
      this.ended(`the broker sent bytes that are not MQTT: ${error.message}`)
      this.stream.destroy()
    })
    this.send({ cmd: 'connect', protocolId: 'MQTT', ...packet })
    const connack = await this.take('connack', () => true, waitMs)
    if (connack === undefined)
      throw new Interrupted(this.ending ?? `no CONNACK within ${waitMs} ms`, this.ending !== undefined)
    return connack
  }

  send(...packets: readonly Packet[]): void {
    if (this.ending !== undefined) return
    const bytes = Buffer.concat(
      packets.map(packet => generate(packet, { protocolVersion: this.protocolVersion })),
    )
    this.limit.traffic.packetsOut += packets.length
    this.limit.traffic.bytesOut += bytes.length
    this.stream.write(bytes)
  }

  nextId(): number {
    this.lastId += 1
    return this.lastId
  }

  /** Takes the first packet of a type that has arrived or arrives in time. Undefined if there is none. */
  async take<C extends PacketCmd>(
    cmd: C,
    matches: (packet: PacketOf<C>) => boolean,
    waitMs: number,
  ): Promise<PacketOf<C> | undefined> {
    return (await this.timed(cmd, matches, waitMs))?.packet
  }

  /** The same, with the time of arrival. */
  async timed<C extends PacketCmd>(
    cmd: C,
    matches: (packet: PacketOf<C>) => boolean,
    waitMs: number,
  ): Promise<{ readonly packet: PacketOf<C>; readonly atMs: number } | undefined> {
    const isWanted = (packet: Packet): boolean => isOf(packet, cmd) && matches(packet)
    const index = this.arrivals.findIndex(({ packet }) => isWanted(packet))
    const arrival = index < 0 ? await this.wait(isWanted, waitMs) : this.arrivals.splice(index, 1)[0]
    return arrival !== undefined && isOf(arrival.packet, cmd)
      ? { packet: arrival.packet, atMs: arrival.atMs }
      : undefined
  }

  /** Takes every PUBLISH of a topic that arrives until none has arrived for `quietMs`. */
  async all(topic: string, quietMs: number): Promise<PacketOf<'publish'>[]> {
    const found: PacketOf<'publish'>[] = []
    for (;;) {
      const next = await this.take('publish', packet => packet.topic === topic, quietMs)
      if (next === undefined) return found
      found.push(next)
    }
  }

  /** @returns the codes of SUBACK; undefined if there was none */
  async subscribe(
    subscriptions: readonly ISubscription[],
    waitMs: number,
    subscriptionIdentifier?: number,
  ): Promise<readonly number[] | undefined> {
    const messageId = this.nextId()
    const properties = subscriptionIdentifier === undefined ? {} : { properties: { subscriptionIdentifier } }
    this.send({ cmd: 'subscribe', messageId, subscriptions: [...subscriptions], ...properties })
    const suback = await this.take('suback', packet => packet.messageId === messageId, waitMs)
    return suback?.granted.map(Number)
  }

  /** Publishes, and completes the flow of its QoS. */
  async publish({ qos = 0, ...message }: Publish, waitMs: number): Promise<PublishObserved> {
    const packet = { cmd: 'publish', qos, dup: false, retain: false, ...message } as const
    if (qos === 0) {
      this.send(packet)
      return {}
    }
    const messageId = this.nextId()
    this.send({ ...packet, messageId })
    const first = await this.wait(
      ({ cmd, messageId: id }) => (cmd === 'puback' || cmd === 'pubrec') && id === messageId,
      waitMs,
    )
    if (first === undefined) return { failure: this.ending ?? `no acknowledgement within ${waitMs} ms` }
    const received = first.packet
    if (received.cmd === 'puback') return { packet: 'puback', code: received.reasonCode ?? 0 }
    const code = received.cmd === 'pubrec' ? (received.reasonCode ?? 0) : 0
    if (code >= 0x80) return { packet: 'pubrec', code }
    this.send({ cmd: 'pubrel', messageId })
    const pubcomp = await this.take('pubcomp', ({ messageId: id }) => id === messageId, waitMs)
    if (pubcomp === undefined) return { packet: 'pubrec', code, failure: this.ending ?? 'no PUBCOMP' }
    return { packet: 'pubcomp', code: pubcomp.reasonCode ?? 0 }
  }

  acknowledge({ qos, messageId }: PacketOf<'publish'>): void {
    if (messageId !== undefined && qos > 0) this.send({ cmd: qos === 1 ? 'puback' : 'pubrec', messageId })
  }

  /** Ends all waits. The connection stays open. */
  interrupt(): void {
    for (const waiter of [...this.waiters]) waiter.done(undefined)
  }

  /** Ends the connection with DISCONNECT. */
  close(): void {
    if (this.ending === undefined) this.send({ cmd: 'disconnect' })
    this.stream.end(() => this.stream.destroy())
    this.ended('closed')
  }

  /** Ends the connection without DISCONNECT. */
  cut(): void {
    this.stream.destroy()
    this.ended('closed')
  }

  private wait(matches: (packet: Packet) => boolean, waitMs: number): Promise<Arrival | undefined> {
    const ms = Math.min(waitMs, this.limit.leftMs())
    if (this.ending !== undefined || ms <= 0) return Promise.resolve(undefined)
    return new Promise(resolve => {
      const timer = setTimeout(() => waiter.done(undefined), ms)
      const waiter: Waiter = {
        matches,
        done: arrival => {
          clearTimeout(timer)
          this.waiters.delete(waiter)
          resolve(arrival)
        },
      }
      this.waiters.add(waiter)
    })
  }

  private read(bytes: Buffer): void {
    const { traffic } = this.limit
    traffic.bytesIn += bytes.length
    if (traffic.bytesIn > MAX_BYTES_IN) {
      this.ended(`the broker sent more than ${MAX_BYTES_IN} bytes`)
      this.stream.destroy()
      return
    }
    this.packets.parse(bytes)
  }

  private arrived(packet: Packet): void {
    this.limit.traffic.packetsIn += 1
    if (packet.cmd === 'disconnect')
      this.ended(`the broker sent DISCONNECT with ${describeReasonCode(packet.reasonCode ?? 0)}`)
    if (packet.cmd === 'auth')
      this.ended('the broker sent an authentication challenge, which this command cannot respond to')
    if (packet.cmd === 'publish' && this.acknowledges) this.acknowledge(packet)
    if (packet.cmd === 'pubrel' && packet.messageId !== undefined)
      this.send({ cmd: 'pubcomp', messageId: packet.messageId })
    const arrival = { packet, atMs: performance.now() }
    const waiter = [...this.waiters].find(({ matches }) => matches(packet))
    if (waiter === undefined) this.arrivals.push(arrival)
    else waiter.done(arrival)
  }

  private ended(why: string): void {
    this.ending ??= why
    this.interrupt()
  }
}

function isOf<C extends PacketCmd>(packet: Packet, cmd: C): packet is PacketOf<C> {
  return packet.cmd === cmd
}

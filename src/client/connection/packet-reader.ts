import type { IStore, MqttClient } from 'mqtt'
import { bytesOf } from '../../core/inbound/open-messages.js'
import { decodePacket, type PubackPacket, packetSizeAt } from '../../core/protocol/packet-decoder.js'
import type { Packet, PublishPacket } from './link.js'

/** The size of a read that leaves more behind: a record of TLS. A plain socket gives up to 64 KiB at a time. */
const FULL_READ_BYTES = 16_384
const LOOK_MS = 50

/** Notices that more arrives than this process reads: its reads are full then, and responses wait behind messages. */
class ReadingLag {
  behindSinceMs: number | undefined
  /** When it had read everything again. */
  caughtUpMs = Number.NEGATIVE_INFINITY
  /** How many bytes were read. */
  bytes = 0
  private timer: NodeJS.Timeout | undefined
  private hasRead = false

  /** For full reads, and while it is behind. */
  read(bytes: number): void {
    if (bytes < FULL_READ_BYTES) return this.catchUp()
    this.hasRead = true
    this.behindSinceMs ??= performance.now()
    this.timer ??= setTimeout(this.look, LOOK_MS)
  }

  stop(): void {
    clearTimeout(this.timer)
    this.behindSinceMs = undefined
  }

  private readonly look = (): void => {
    this.timer = undefined
    this.hasRead = false
    // Between a timer and this, the event loop reads what has arrived.
    setImmediate(() => {
      if (this.behindSinceMs !== undefined && !this.hasRead) this.catchUp()
      else if (this.behindSinceMs !== undefined) this.timer ??= setTimeout(this.look, LOOK_MS)
    })
  }

  private catchUp(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.behindSinceMs = undefined
    this.caughtUpMs = performance.now()
  }
}

/**
 * QoS 2 messages between PUBLISH and PUBREL (MQTT 5, 4.3.3). They belong to the session: one that the broker keeps has
 * them on its next connection too.
 */
export class Unreleased {
  private readonly packets = new Map<number, PublishPacket>()
  /** Bytes of all of them. */
  bytes = 0

  get count(): number {
    return this.packets.size
  }

  /** A message that is sent again replaces itself. */
  add(packet: PublishPacket): void {
    const { messageId = 0 } = packet
    this.take(messageId)
    this.packets.set(messageId, packet)
    this.bytes += bytesOf(packet)
  }

  get(messageId: number | undefined): PublishPacket | undefined {
    return this.packets.get(messageId ?? 0)
  }

  /** The broker has released it, or forgotten it. */
  take(messageId: number | undefined): void {
    const packet = this.get(messageId)
    if (packet === undefined) return
    this.packets.delete(messageId ?? 0)
    this.bytes -= bytesOf(packet)
  }

  clear(): void {
    this.packets.clear()
    this.bytes = 0
  }
}

type Done = (error?: Error, packet?: Packet) => void

/** The store that `mqtt` keeps them in. PUBREC leaves, and the parser goes on, when `onStored` says so. */
export class UnreleasedStore implements IStore {
  constructor(
    private readonly unreleased: Unreleased,
    private readonly onStored: (goOn: () => void) => void,
  ) {}

  put(packet: Packet, done: Done): this {
    if (packet.cmd === 'publish') this.unreleased.add(packet)
    this.onStored(() => done())
    return this
  }

  get({ messageId }: Pick<Packet, 'messageId'>, done: Done): this {
    const packet = this.unreleased.get(messageId)
    if (packet === undefined) done(new Error('there is no such message'))
    else done(undefined, packet)
    return this
  }

  del({ messageId }: Pick<Packet, 'messageId'>, done: Done): this {
    this.unreleased.take(messageId)
    done()
    return this
  }

  /** `mqtt` asks only the store of what it sends for this. */
  createStream(): never {
    throw new Error('unreleased messages are not read as a stream')
  }

  close(done: Done): void {
    done()
  }
}

/** Packets that are handled before the handlers they started, and everything else in this turn, may go on. */
const BATCH = 16
/** Timers and other connections wait so long for the handlers of what has arrived here. */
const TURN_MS = 10
/** A packet that is larger than this is not put together here, but left to the parser of `mqtt`. */
const MAX_HELD_BYTES = 65_536

/** Takes the packets of one connection, in their order. */
export interface PacketReceiver {
  /** Whether CONNACK has come, and the connection has not ended. */
  readonly isOpen: boolean
  /** Nothing more is handled until `resume`. */
  readonly isIntakePaused: boolean
  taken(packet: PublishPacket | PubackPacket): void
  /** The packet at hand has more bytes than `maxPacketBytes`. */
  tooLarge(bytes: number): void
  failed(cause: unknown): void
}

/** Connects, and returns the parser of `mqtt`, which would otherwise read the stream by itself. */
function connectApart(client: MqttClient): NodeJS.WritableStream {
  let parser: NodeJS.WritableStream | undefined
  const field = { configurable: true, enumerable: true }
  const take = (stream: MqttClient['stream']): void => {
    Object.defineProperty(client, 'stream', { ...field, value: stream, writable: true })
    stream.pipe = destination => {
      parser = destination
      return destination
    }
  }
  Object.defineProperty(client, 'stream', { ...field, set: take })
  client.connect()
  Reflect.deleteProperty(client.stream, 'pipe')
  if (parser === undefined) throw new Error('mqtt did not pipe its stream into its parser')
  return parser
}

/**
 * Reads the stream in front of `mqtt`. It decodes PUBLISH and PUBACK, in a fraction of the time, and gives all other packets
 * to the parser of `mqtt`. It waits until `mqtt` is done with them, so that the order is kept.
 */
export class PacketReader {
  private bytes: Buffer = Buffer.alloc(0)
  private at = 0
  /** Of the packet that goes to the parser of `mqtt` piece by piece. */
  private passing = 0
  /** When the reading of this turn of the event loop began, once it is more than one batch. */
  private turnMs: number | undefined
  /** Whether the loop is not done with `bytes`: it has given way, or waits for `mqtt`. */
  private isBusy = false
  readonly lag = new ReadingLag()
  /** The client and its stream know the password, the headers and the keys. */
  readonly #client: MqttClient
  readonly #stream: MqttClient['stream']
  readonly #parser: NodeJS.WritableStream

  /** Connects `client`. */
  constructor(
    client: MqttClient,
    private readonly protocolVersion: 4 | 5,
    private readonly maxPacketBytes: number,
    private readonly receiver: PacketReceiver,
  ) {
    this.#parser = connectApart(client)
    this.#client = client
    this.#stream = client.stream
  }

  readonly take = (bytes: Buffer): void => {
    this.lag.bytes += bytes.length
    if (bytes.length >= FULL_READ_BYTES || this.lag.behindSinceMs !== undefined) this.lag.read(bytes.length)
    this.bytes = this.at === this.bytes.length ? bytes : Buffer.concat([this.bytes.subarray(this.at), bytes])
    this.at = 0
    if (this.isBusy || this.receiver.isIntakePaused) this.#stream.pause()
    else this.read()
  }

  /** Goes on after a pause of the intake. */
  resume(): void {
    if (!this.isBusy) this.read()
  }

  private giveWay(): void {
    this.isBusy = true
    const nowMs = performance.now()
    if (this.turnMs === undefined) {
      this.turnMs = nowMs
      setImmediate(this.endTurn)
    }
    // A tick behind a microtask comes when all other microtasks are done, so that handlers end in between.
    if (nowMs - this.turnMs < TURN_MS) queueMicrotask(this.goOn)
    else {
      // Otherwise the system hands on up to 2 MB in one turn.
      this.#stream.pause()
      setImmediate(this.read)
    }
  }

  private readonly endTurn = (): void => {
    this.turnMs = undefined
  }

  private readonly goOn = (): void => process.nextTick(this.read)

  private readonly read = (): void => {
    this.isBusy = false
    try {
      // A listener of the application would miss what `mqtt` does not parse.
      const isObserved =
        this.#client.listenerCount('message') > 0 || this.#client.listenerCount('packetreceive') > 1
      if (this.passing === 0 && !isObserved) this.decode()
      const { receiver, bytes, at } = this
      if (this.isBusy || receiver.isIntakePaused) return
      const end = this.endOfForeign(isObserved)
      this.at = end
      if (end > at) {
        this.isBusy = true
        this.#parser.write(bytes.subarray(at, end), this.read)
      } else if (this.#stream.isPaused()) this.#stream.resume()
    } catch (cause) {
      this.receiver.failed(cause)
    }
  }

  /** Decodes packets until one belongs to the parser of `mqtt`, or has not arrived. */
  private decode(): void {
    const { receiver, protocolVersion, maxPacketBytes, bytes } = this
    for (let left = BATCH; receiver.isOpen && !receiver.isIntakePaused; left -= 1) {
      const size = packetSizeAt(bytes, this.at)
      const end = this.at + size
      if (size === 0 || size > maxPacketBytes || !(end <= bytes.length)) return
      if (left === 0) {
        this.giveWay()
        return
      }
      const packet = decodePacket(bytes, this.at, end, protocolVersion)
      if (packet === undefined) return
      this.at = end
      receiver.taken(packet)
    }
  }

  /** Where the packets end that the parser of `mqtt` gets. One that is being put together here waits. */
  private endOfForeign(isObserved: boolean): number {
    const { receiver, protocolVersion, maxPacketBytes, bytes } = this
    const { length } = bytes
    let at = this.at + Math.min(this.passing, length - this.at)
    this.passing -= at - this.at
    while (at < length) {
      const size = packetSizeAt(bytes, at)
      if (size > maxPacketBytes) {
        receiver.tooLarge(size)
        return at
      }
      if (size === 0 || (at + size > length && size <= MAX_HELD_BYTES)) break
      // A malformed length too: the parser of `mqtt` reports it.
      if (!(at + size <= length)) {
        this.passing = Number.isNaN(size) ? Number.POSITIVE_INFINITY : at + size - length
        return length
      }
      if (receiver.isOpen && !isObserved && decodePacket(bytes, at, at + size, protocolVersion) !== undefined)
        break
      at += size
    }
    return at
  }
}

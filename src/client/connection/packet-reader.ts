import type { MqttClient } from 'mqtt'
import { decodePacket, type PubackPacket, packetSizeAt } from '../../core/protocol/packet-decoder.js'
import type { PublishPacket } from '../../core/protocol/packets.js'
import { FULL_READ_BYTES, ReadingLag } from './reading.js'

/** Packets that are handled before the handlers they started, and everything else in this turn, may go on. */
const BATCH = 16
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
        this.isBusy = true
        // A tick behind a microtask comes when all other microtasks are done, so that handlers end in between.
        queueMicrotask(this.goOn)
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

import type { MqttClient } from 'mqtt'
import type { MqttError } from '../../core/errors.js'
import { decodePacket, type PubackPacket, packetSizeAt } from '../../core/protocol/packet-decoder.js'
import { hasValidText, PublishTexts } from '../../core/protocol/packet-text.js'
import { malformed, type PublishPacket, tooLarge } from './link.js'

/** This much data since the last PINGREQ shows that more is on its way. */
const BULK_BYTES = 16_384

/** A read of this size leaves more data behind: the size of a TLS record. A plain socket returns up to 64 KiB at a time. */
const FULL_READ_BYTES = 16_384
const LOOK_MS = 50

/** Detects that data arrives faster than this process reads it: reads are then full, and responses wait behind messages. */
class ReadingLag {
  behindSinceMs: number | undefined
  /** Time at which everything was last read. */
  caughtUpMs = Number.NEGATIVE_INFINITY
  /** Number of bytes read. */
  bytes = 0
  private timer: NodeJS.Timeout | undefined
  private hasRead = false

  /** Called for full reads, and while reading is behind. */
  read(bytes: number): void {
    if (bytes < FULL_READ_BYTES) this.catchUp()
    else this.unread()
  }

  /** Something that was read is not handled yet. */
  unread(): void {
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
    // Between a timer and this callback, the event loop reads the received data.
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

const NOTHING = Buffer.alloc(0)

/** Number of packets that are handled before their handlers, and everything else in this turn, may continue. */
const BATCH = 16
/** Longest time that timers and other connections wait for the handlers of packets of this connection. */
const TURN_MS = 10
/** Larger packets are not assembled here, but passed to the parser of `mqtt`. */
const MAX_HELD_BYTES = 65_536
/** MQTT 5, 1.5.4. */
const INVALID_TEXT = 'PUBLISH with a text that is not valid UTF-8 or contains U+0000'

/** Receives the packets of one connection, in order. */
export interface PacketReceiver {
  /** Whether CONNACK has arrived and the connection has not ended. */
  readonly isOpen: boolean
  /** Nothing more is handled until `resume`. */
  readonly isIntakePaused: boolean
  taken(packet: PublishPacket | PubackPacket): void
  /** The current packet must end the connection. */
  rejected(cause: MqttError): void
  failed(cause: unknown): void
}

/** Connects, and returns the parser of `mqtt`, which would otherwise read the stream itself. */
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
 * Reads the stream in place of `mqtt`. It decodes PUBLISH and PUBACK, which is much faster, and passes all other packets to
 * the parser of `mqtt`. It waits until `mqtt` has processed them, so that the order is kept.
 */
export class PacketReader {
  private bytes: Buffer = NOTHING
  private at = 0
  /** Remaining bytes of the packet that is passed to the parser of `mqtt` in pieces. */
  private passing = 0
  /** The texts of that packet. */
  private texts: PublishTexts | undefined
  /** Time at which reading in this turn of the event loop began, once it is more than one batch. */
  private turnMs: number | undefined
  /** Whether the loop has not finished `bytes`, because it has yielded or waits for `mqtt`. */
  private isBusy = false
  /** The parser of `mqtt` is running: an error without a code is about the bytes of the broker. */
  isParsing = false
  /** Number of bytes read before the last PINGREQ of Keep Alive. */
  private pingedAt = 0
  /** Reading was paused after the last PINGREQ of Keep Alive, or before it. */
  private hasPaused = false
  readonly lag = new ReadingLag()
  /** Private, because the client and its stream hold the password, the headers and the keys. */
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
    client.on('packetsend', ({ cmd }) => {
      if (cmd === 'pingreq') this.pinged()
    })
    const giveUp = client.onKeepaliveTimeout.bind(client)
    // Checked again after each half of the keepalive interval, until PINGRESP arrives.
    client.onKeepaliveTimeout = () => (this.mayHoldBack() ? client.sendPing() : giveUp())
  }

  readonly take = (bytes: Buffer): void => {
    this.lag.bytes += bytes.length
    if (bytes.length >= FULL_READ_BYTES || this.lag.behindSinceMs !== undefined) this.lag.read(bytes.length)
    this.bytes = this.at === this.bytes.length ? bytes : Buffer.concat([this.bytes.subarray(this.at), bytes])
    this.at = 0
    if (this.isBusy || this.receiver.isIntakePaused) this.#stream.pause()
    else this.read()
  }

  /** Keep Alive has sent a PINGREQ. */
  private pinged(): void {
    this.pingedAt = this.lag.bytes
    this.hasPaused = this.receiver.isIntakePaused
  }

  /** The intake is paused. */
  paused(): void {
    this.hasPaused = true
  }

  /**
   * Whether PINGRESP may be behind data that is not read or that is still arriving: part of a packet, or a lot of data. A broker
   * may have megabytes to send before it, for which a slow link takes minutes.
   */
  private mayHoldBack(): boolean {
    const bytes = this.lag.bytes - this.pingedAt
    const isPartial = this.isBusy || this.passing > 0 || this.bytes.length > this.at
    return this.hasPaused || bytes >= BULK_BYTES || (bytes > 0 && isPartial)
  }

  /** Continues after the intake was paused. */
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
    // A tick that is queued in a microtask runs after all other microtasks, so that handlers can end in between.
    if (nowMs - this.turnMs < TURN_MS) queueMicrotask(this.goOn)
    else {
      // Otherwise the operating system returns up to 2 MB in one turn.
      this.#stream.pause()
      this.lag.unread()
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
      // A listener of the application would miss the packets that `mqtt` does not parse.
      const isObserved =
        this.#client.listenerCount('message') > 0 || this.#client.listenerCount('packetreceive') > 1
      if (this.passing === 0 && !isObserved) this.decode()
      const { receiver, bytes, at } = this
      if (this.isBusy || receiver.isIntakePaused) return
      const end = this.endOfForeign(isObserved)
      this.at = end
      if (end > at) {
        this.isBusy = true
        this.isParsing = true
        this.#parser.write(bytes.subarray(at, end), this.read)
        this.isParsing = false
        return
      }
      if (end === bytes.length) {
        // An idle connection does not keep its last read.
        this.bytes = NOTHING
        this.at = 0
      }
      if (this.#stream.isPaused()) this.#stream.resume()
    } catch (cause) {
      this.receiver.failed(cause)
    }
  }

  /** Decodes packets until one is for the parser of `mqtt` or is incomplete. */
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

  /** Returns the end of the packets for the parser of `mqtt`. A packet that is being assembled here waits. */
  private endOfForeign(isObserved: boolean): number {
    const { receiver, protocolVersion, maxPacketBytes, bytes } = this
    const { length } = bytes
    let at = this.at + Math.min(this.passing, length - this.at)
    this.passing -= at - this.at
    if (receiver.isOpen && this.texts?.take(bytes.subarray(this.at, at)) === false)
      return this.refuseText(this.at)
    while (at < length) {
      const size = packetSizeAt(bytes, at)
      if (size > maxPacketBytes) {
        receiver.rejected(tooLarge(size, maxPacketBytes))
        return at
      }
      const isWhole = at + size <= length
      if (size === 0 || (!isWhole && size <= MAX_HELD_BYTES)) break
      // This includes a malformed length, which the parser of `mqtt` reports.
      if (!isWhole) {
        this.passing = Number.isNaN(size) ? Number.POSITIVE_INFINITY : at + size - length
        this.texts = receiver.isOpen ? new PublishTexts(protocolVersion) : undefined
        return this.texts?.take(bytes.subarray(at)) === false ? this.refuseText(at) : length
      }
      if (receiver.isOpen && hasValidText(bytes, at, at + size, protocolVersion) === false)
        return this.refuseText(at)
      if (receiver.isOpen && !isObserved && decodePacket(bytes, at, at + size, protocolVersion) !== undefined)
        break
      at += size
      // CONNACK decides how the packets after it are read.
      if (!receiver.isOpen) break
    }
    return at
  }

  private refuseText(at: number): number {
    this.receiver.rejected(malformed(INVALID_TEXT))
    return at
  }
}

import type { Duplex } from 'node:stream'
import { generate, type Packet } from 'mqtt-packet'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import { MqttError } from '../../core/errors.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import { packetSizeAt } from '../../core/protocol/packet-decoder.js'
import { propertiesLength } from '../../core/protocol/packets.js'
import {
  HOLD_MS,
  MAX_REMAINING_LENGTH,
  publishLength,
  type TopicAlias,
  WriteBatch,
  WriteHolding,
} from '../../core/protocol/write-batch.js'
import type { PublishFeedback, PublishWriter } from './link.js'

/**
 * Number of bytes after which the packets of a turn are written early, so that a burst reaches the kernel while it lasts.
 */
const FLUSH_BYTES = 65_536

/** Bytes that may wait in a stream that does not show whether the network has accepted them: TLS, WebSocket, in-memory. */
const OPAQUE_BACKLOG_BYTES = 65_536

/** Encodes packets and writes those of one turn to the stream of one connection in a single call. */
export class PacketWriter implements PublishWriter {
  /** Receives reports about the progress. */
  observer: Pick<PublishFeedback, 'flushing' | 'flushed'> | undefined
  /** `flushed` was requested. */
  isFlushAwaited = false
  /** QoS 1 and 2 publishes of this connection that the broker has not acknowledged. */
  unacknowledged = 0
  private readonly batch = new WriteBatch()
  private readonly holding = new WriteHolding()
  private isTurnEndScheduled = false
  /** A publish was written in the current turn. */
  private hasPublishes = false
  /** So much was sent that it was written before the end of the turn. */
  private wasFlushedEarly = false
  private holdTimer: NodeJS.Timeout | undefined
  private isStopped = false
  /** On plain TCP, a write that the kernel accepts completely has left the stream when `write` returns. */
  private readonly kernelIsVisible: boolean
  private readonly hasProperties: boolean

  /** Private, because a TLS or WebSocket stream holds keys and headers. */
  readonly #stream: Duplex

  constructor(
    stream: Duplex,
    private readonly protocolVersion: ProtocolVersion,
  ) {
    this.#stream = stream
    this.hasProperties = protocolVersion === 5
    this.kernelIsVisible = 'setNoDelay' in stream && !('encrypted' in stream)
  }

  isCongested(): boolean {
    const waiting = this.#stream.writableLength
    if (waiting === 0) return false
    const isSeen = this.kernelIsVisible && this.#stream.writableCorked === 0
    if (!isSeen && waiting < OPAQUE_BACKLOG_BYTES) return false
    this.isFlushAwaited = true
    return true
  }

  /** Encodes a packet. It is written at the end of this turn of the event loop, together with the others. */
  send(packet: Packet): void {
    if (packet.cmd === 'puback' && packet.reasonCode === undefined && packet.messageId !== undefined)
      this.batch.puback(packet.messageId)
    else this.batch.append(this.encode(packet))
    if (this.batch.bytes >= FLUSH_BYTES) this.flushEarly()
    if (this.isTurnEndScheduled) return
    this.isTurnEndScheduled = true
    setImmediate(this.endTurn)
  }

  publish(message: OutboundMessage, messageId: number | undefined, alias: TopicAlias | undefined): number {
    const { batch, hasProperties } = this
    const { properties } = message
    const ownBytes = properties === undefined || !hasProperties ? 0 : propertiesLength(properties)
    const size =
      ownBytes === undefined
        ? this.appendGenerated(message, messageId, alias)
        : batch.publish(message, messageId, alias, hasProperties, ownBytes)
    if (size === undefined) throw tooLong(publishLength(message, hasProperties, ownBytes))
    this.hasPublishes = true
    if (messageId !== undefined) this.unacknowledged += 1
    if (batch.bytes >= FLUSH_BYTES) this.flushEarly()
    if (this.isTurnEndScheduled) return size
    this.isTurnEndScheduled = true
    setImmediate(this.endTurn)
    return size
  }

  sizeOf(message: OutboundMessage): number {
    const { properties } = message
    const ownBytes = properties === undefined || !this.hasProperties ? 0 : propertiesLength(properties)
    if (ownBytes !== undefined) return publishLength(message, this.hasProperties, ownBytes)
    return this.generate(message, message.qos === 0 ? undefined : 1, undefined).length
  }

  /** Nothing is written after this. */
  stop(): void {
    this.isStopped = true
    clearTimeout(this.holdTimer)
    this.batch.take()
  }

  /** For properties that only this encoder supports. It also reports what is wrong with them. */
  private appendGenerated(...publish: Parameters<PacketWriter['generate']>): number {
    const bytes = this.generate(...publish)
    this.batch.append(bytes)
    return bytes.length
  }

  private generate(
    { topic, properties, ...message }: OutboundMessage,
    messageId: number | undefined,
    alias: TopicAlias | undefined,
  ): Buffer {
    return this.encode({
      cmd: 'publish',
      ...message,
      dup: false,
      topic: alias !== undefined && !alias.isNew ? '' : topic,
      properties: { ...properties, ...(alias === undefined ? {} : { topicAlias: alias.alias }) },
      ...(messageId === undefined ? {} : { messageId }),
    })
  }

  private encode(packet: Packet): Buffer {
    const bytes = generate(packet, { protocolVersion: this.protocolVersion })
    // The encoder omits a string that is too long for its field, but still counts its length, so that the packets after it
    // would be read as a part of it.
    if (packetSizeAt(bytes, 0) === bytes.length) return bytes
    throw new MqttError(
      'INVALID_OPTION',
      `a field of the ${packet.cmd} packet is longer than MQTT allows (65,535 bytes)`,
    )
  }

  private flushEarly(): void {
    this.flush()
    this.wasFlushedEarly = true
  }

  /** Runs once more after each write, to see whether more packets follow. */
  private readonly endTurn = (): void => {
    this.isTurnEndScheduled = false
    if (this.isStopped) return
    const { batch, holding } = this
    if (this.wasFlushedEarly) {
      this.wasFlushedEarly = false
      this.hasPublishes = false
      this.observer?.flushing()
    }
    if (batch.bytes === 0) {
      holding.busyTurns = 0
      return
    }
    if (holding.mayHold(batch, this.unacknowledged)) {
      this.holdTimer ??= setTimeout(this.endHold, HOLD_MS)
      return
    }
    // Called before the write, because it may send a marker.
    this.isTurnEndScheduled = true
    setImmediate(this.endTurn)
    if (this.hasPublishes) {
      this.hasPublishes = false
      this.observer?.flushing()
    }
    this.flush()
  }

  private readonly endHold = (): void => {
    if (this.isStopped) return
    this.holding.wasInVain()
    this.hasPublishes = false
    this.observer?.flushing()
    this.flush()
  }

  /** Writes all packets sent so far. */
  flush(): void {
    if (this.holdTimer !== undefined) {
      clearTimeout(this.holdTimer)
      this.holdTimer = undefined
    }
    const stream = this.#stream
    const chunks = this.batch.take()
    const [first] = chunks
    if (first === undefined || !stream.writable) return
    // On a WebSocket each chunk would be a separate frame. A socket writes them all in one call.
    if (chunks.length === 1) stream.write(first, this.taken)
    else if (this.kernelIsVisible) {
      stream.cork()
      for (const [index, chunk] of chunks.entries()) {
        stream.write(chunk, index === chunks.length - 1 ? this.taken : undefined)
      }
      stream.uncork()
    } else stream.write(Buffer.concat(chunks), this.taken)
  }

  private readonly taken = (): void => {
    if (!this.isFlushAwaited || this.isStopped || this.#stream.writableLength > 0) return
    this.isFlushAwaited = false
    this.observer?.flushed()
  }
}

function tooLong(bytes: number): MqttError {
  return new MqttError(
    'PACKET_TOO_LARGE',
    `a packet of ${bytes} bytes: MQTT allows at most ${MAX_REMAINING_LENGTH}`,
  )
}

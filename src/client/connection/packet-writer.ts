import type { Duplex } from 'node:stream'
import { generate, type IPublishPacket, type Packet } from 'mqtt-packet'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import { MqttError } from '../../core/errors.js'
import { announcedLength } from '../../core/protocol/packet-length.js'
import {
  fixedHeaderLength,
  MAX_REMAINING_LENGTH,
  remainingLength,
  topicLength,
  writePublishHeader,
} from '../../core/protocol/publish-encoder.js'
import { WriteBatch } from '../../core/protocol/write-batch.js'
import { HOLD_MS, WriteHolding } from '../../core/protocol/write-holding.js'
import type { LinkEvents, OutgoingPublish } from './link.js'

/** Bytes collected in one turn before they are written, so that a burst meets the kernel while it lasts. */
const FLUSH_BYTES = 65_536

/** What may wait in a stream whose emptiness says nothing of the network: TLS, WebSocket, in-memory. */
const OPAQUE_BACKLOG_BYTES = 65_536

const PUBACK = 0x40

/** Encodes packets and writes them to the stream of one connection, all of a turn in one call. */
export class PacketWriter {
  private readonly batch = new WriteBatch()
  private isTurnEndScheduled = false
  /** So much was written that it could not wait for the end of the turn. */
  private isUnannounced = false
  private readonly holding = new WriteHolding()
  private holdTimer: NodeJS.Timeout | undefined
  private isStopped = false
  /** On plain TCP a write that the kernel took whole is gone from the stream when `write` returns. */
  private readonly kernelIsVisible: boolean

  /** A TLS or WebSocket stream knows keys and headers. */
  readonly #stream: Duplex

  constructor(
    stream: Duplex,
    private readonly protocolVersion: ProtocolVersion,
    private readonly events: Pick<LinkEvents, 'flushing' | 'flushed'>,
  ) {
    this.#stream = stream
    this.kernelIsVisible = 'setNoDelay' in stream && !('encrypted' in stream)
  }

  isCongested(): boolean {
    const waiting = this.#stream.writableLength
    if (waiting === 0) return false
    return this.kernelIsVisible && this.#stream.writableCorked === 0 ? true : waiting >= OPAQUE_BACKLOG_BYTES
  }

  send(packet: Packet): void {
    this.batch.append(this.encode(packet))
    this.batch.packets += 1
    this.scheduleFlush()
  }

  publish(message: OutgoingPublish): number {
    const size =
      this.protocolVersion === 5 && message.properties !== undefined
        ? this.appendGenerated(message)
        : this.appendPlain(message)
    if (message.qos > 0) this.holding.asked()
    this.batch.packets += 1
    this.scheduleFlush()
    return size
  }

  sizeOf(message: OutgoingPublish): number {
    if (this.protocolVersion === 5 && message.properties !== undefined)
      return this.encode(publishPacket(message)).length
    const remaining = remainingLength(message, topicLength(message), this.protocolVersion === 5)
    return fixedHeaderLength(remaining) + remaining
  }

  /** The broker has answered a publish for good. */
  answered(): void {
    this.holding.answered()
  }

  /** Nothing is written any more. */
  stop(): void {
    this.isStopped = true
    clearTimeout(this.holdTimer)
    this.batch.take()
  }

  private appendGenerated(message: OutgoingPublish): number {
    const bytes = this.encode(publishPacket(message))
    this.batch.append(bytes)
    return bytes.length
  }

  private appendPlain(message: OutgoingPublish): number {
    const { batch } = this
    const { payload } = message
    const hasProperties = this.protocolVersion === 5
    const topicBytes = topicLength(message)
    const remaining = remainingLength(message, topicBytes, hasProperties)
    if (remaining > MAX_REMAINING_LENGTH) throw tooLong(remaining)
    const headerBytes = fixedHeaderLength(remaining) + remaining - payload.length
    const at = batch.reserve(headerBytes)
    batch.commit(writePublishHeader(batch.buffer, at, message, topicBytes, remaining, hasProperties))
    batch.append(payload)
    return headerBytes + payload.length
  }

  private encode(packet: Packet): Buffer {
    // Success without properties has the same four bytes in both versions (MQTT 5, 3.4.2.1).
    if (packet.cmd === 'puback' && packet.reasonCode === undefined && packet.messageId !== undefined)
      return Buffer.of(PUBACK, 2, packet.messageId >> 8, packet.messageId & 0xff)
    const bytes = generate(packet, { protocolVersion: this.protocolVersion })
    // The encoder leaves out a text that is too long for its field, and still counts it: what is sent behind
    // such a packet would be taken for a part of it.
    if (announcedLength(bytes) === bytes.length) return bytes
    throw new MqttError(
      'INVALID_OPTION',
      `a field of the ${packet.cmd} packet is longer than MQTT allows (65,535 bytes)`,
    )
  }

  private scheduleFlush(): void {
    if (this.batch.bytes >= FLUSH_BYTES) {
      this.flush()
      this.isUnannounced = true
    }
    if (this.isTurnEndScheduled) return
    this.isTurnEndScheduled = true
    setImmediate(this.endTurn)
  }

  /** Comes once more behind each write, to see whether there is a stream of them. */
  private readonly endTurn = (): void => {
    this.isTurnEndScheduled = false
    if (this.isStopped) return
    if (this.isUnannounced) {
      this.isUnannounced = false
      this.events.flushing()
    }
    if (this.batch.bytes === 0) return this.holding.idle()
    if (this.holding.mayHold(this.batch.packets, this.batch.bytes)) {
      this.holdTimer ??= setTimeout(this.endHold, HOLD_MS)
      return
    }
    // Before the write, during which a marker is sent.
    this.isTurnEndScheduled = true
    setImmediate(this.endTurn)
    this.writeTurn()
  }

  private readonly endHold = (): void => {
    this.holdTimer = undefined
    if (this.isStopped) return
    this.holding.wasInVain()
    this.writeTurn()
  }

  private writeTurn(): void {
    clearTimeout(this.holdTimer)
    this.holdTimer = undefined
    this.events.flushing()
    this.flush()
  }

  flush(): void {
    const stream = this.#stream
    const chunks = this.batch.take()
    const [first] = chunks
    if (first === undefined || !stream.writable) return
    // Each chunk would be a frame of its own on a WebSocket; a socket takes them all in one call.
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
    if (!this.isStopped && this.#stream.writableLength === 0) this.events.flushed()
  }
}

function tooLong(bytes: number): MqttError {
  return new MqttError(
    'PACKET_TOO_LARGE',
    `a packet of ${bytes} bytes: MQTT takes at most ${MAX_REMAINING_LENGTH}`,
  )
}

function publishPacket({ alias, properties, messageId, ...message }: OutgoingPublish): IPublishPacket {
  return {
    cmd: 'publish',
    dup: false,
    ...message,
    topic: alias !== undefined && !alias.isNew ? '' : message.topic,
    properties: { ...properties, ...(alias === undefined ? {} : { topicAlias: alias.alias }) },
    ...(messageId === undefined ? {} : { messageId }),
  }
}

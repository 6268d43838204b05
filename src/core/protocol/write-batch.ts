import { type PublishProperties, writeProperties, writeText } from './packets.js'

/** A PUBLISH without the values that depend on the connection. */
export interface PlainPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly properties?: PublishProperties
}

/** The topic of a PUBLISH: the alias, and whether the Topic Name must be included. */
export interface TopicAlias {
  readonly alias: number
  readonly isNew: boolean
}

/** Largest value of a length of four bytes (MQTT 5, 1.5.5). */
export const MAX_REMAINING_LENGTH = 268_435_455

const SLAB_BYTES = 65_536
/** Longer payloads are not copied. */
const COPY_BYTES = 8_192
const LONGEST_FIXED_HEADER = 5
const PUBLISH = 0x30
const PUBACK = 0x40
const PUBACK_BYTES = 4
const TOPIC_ALIAS = 0x23
const ALIAS_BYTES = 3
const CONTINUES = 0x80

/**
 * Returns the bytes of a PUBLISH without a Topic Alias.
 * @param hasProperties true on MQTT 5
 * @param ownBytes bytes of its properties, without their length
 */
export function publishLength(
  { topic, payload, qos }: PlainPublish,
  hasProperties: boolean,
  ownBytes = 0,
): number {
  const properties = hasProperties ? ownBytes + (ownBytes < CONTINUES ? 1 : 2) : 0
  const remaining = 2 + Buffer.byteLength(topic) + (qos === 0 ? 0 : 2) + properties + payload.length
  if (remaining < 128) return 2 + remaining
  if (remaining < 16_384) return 3 + remaining
  return (remaining < 2_097_152 ? 4 : 5) + remaining
}

/** Collects packets for one write, in memory that is never reused. */
export class WriteBatch {
  /** Bytes of the packets that were added. */
  bytes = 0
  /** Number of packets that were added. */
  packets = 0
  /** How many of them are part of an exchange, so that the broker may wait for them: all except PUBLISH at QoS 0. */
  exchanged = 0
  private slab = Buffer.alloc(0)
  /** Start of the bytes that have not been taken yet. */
  private start = 0
  private end = 0
  private chunks: Buffer[] = []

  /** Adds an encoded packet. */
  append(packet: Buffer): void {
    const { length } = packet
    this.packets += 1
    this.exchanged += 1
    this.bytes += length
    if (length > COPY_BYTES) return this.handOn(packet)
    if (this.end + length > this.slab.length) this.renew(length)
    this.slab.set(packet, this.end)
    this.end += length
  }

  /** Adds PUBACK with success and without properties: the same four bytes in both versions (MQTT 5, 3.4.2.1). */
  puback(messageId: number): void {
    if (this.end + PUBACK_BYTES > this.slab.length) this.renew(PUBACK_BYTES)
    const { slab } = this
    slab[this.end++] = PUBACK
    slab[this.end++] = 2
    slab[this.end++] = messageId >> 8
    slab[this.end++] = messageId & 0xff
    this.packets += 1
    this.exchanged += 1
    this.bytes += PUBACK_BYTES
  }

  /**
   * Encodes a PUBLISH (MQTT 5, 3.3), the most frequent packet. The package that encodes all other packets takes several
   * times as long.
   * @param hasProperties true on MQTT 5
   * @param ownBytes the `propertiesLength` of its properties; 0 writes none of them
   * @returns its size in bytes, or undefined if it is longer than MQTT allows
   */
  publish(
    publish: PlainPublish,
    messageId: number | undefined,
    alias: TopicAlias | undefined,
    hasProperties: boolean,
    ownBytes = 0,
  ): number | undefined {
    const { topic, payload } = publish
    const { length } = payload
    const topicBytes = alias === undefined || alias.isNew ? Buffer.byteLength(topic) : 0
    const properties = alias === undefined ? ownBytes : ownBytes + ALIAS_BYTES
    const sized = hasProperties ? properties + (properties < CONTINUES ? 1 : 2) : 0
    const remaining = 2 + topicBytes + (messageId === undefined ? 0 : 2) + sized + length
    if (remaining > MAX_REMAINING_LENGTH) return undefined
    const isCopied = length <= COPY_BYTES
    const neededBytes = LONGEST_FIXED_HEADER + remaining - (isCopied ? 0 : length)
    if (this.end + neededBytes > this.slab.length) this.renew(neededBytes)
    const start = this.end
    let at = writeHeader(this.slab, start, publish, topicBytes, remaining)
    if (messageId !== undefined) {
      this.slab[at++] = messageId >> 8
      this.slab[at++] = messageId & 0xff
    }
    if (hasProperties) {
      at = writeLength(this.slab, at, properties)
      if (ownBytes > 0 && publish.properties !== undefined)
        at = writeProperties(this.slab, at, publish.properties)
    }
    if (alias !== undefined) {
      this.slab[at++] = TOPIC_ALIAS
      this.slab[at++] = alias.alias >> 8
      this.slab[at++] = alias.alias & 0xff
    }
    const size = at - start + length
    if (isCopied) this.slab.set(payload, at)
    this.end = isCopied ? at + length : at
    if (!isCopied) this.handOn(payload)
    this.packets += 1
    if (messageId !== undefined) this.exchanged += 1
    this.bytes += size
    return size
  }

  /** Takes all collected bytes, in order. */
  take(): Buffer[] {
    const { chunks } = this
    if (this.end > this.start) chunks.push(this.slab.subarray(this.start, this.end))
    this.start = this.end
    this.chunks = []
    this.bytes = 0
    this.packets = 0
    this.exchanged = 0
    return chunks
  }

  private handOn(bytes: Buffer): void {
    if (this.end > this.start) this.chunks.push(this.slab.subarray(this.start, this.end))
    this.start = this.end
    this.chunks.push(bytes)
  }

  private renew(length: number): void {
    if (this.end > this.start) this.chunks.push(this.slab.subarray(this.start, this.end))
    this.slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, length))
    this.start = 0
    this.end = 0
  }
}

/** Writes the fixed header and the Topic Name. @returns the position of the rest */
function writeHeader(
  target: Buffer,
  start: number,
  { topic, qos, retain }: PlainPublish,
  topicBytes: number,
  remaining: number,
): number {
  let at = start
  target[at++] = PUBLISH + qos * 2 + (retain ? 1 : 0)
  at = writeLength(target, at, remaining)
  target[at++] = topicBytes >> 8
  target[at++] = topicBytes & 0xff
  return topicBytes === 0 ? at : writeText(target, at, topic, topicBytes)
}

/** Writes a Variable Byte Integer (MQTT 5, 1.5.5). @returns where the next byte goes */
function writeLength(target: Buffer, start: number, length: number): number {
  let at = start
  let rest = length
  while (rest >= CONTINUES) {
    target[at++] = (rest % CONTINUES) + CONTINUES
    rest = Math.floor(rest / CONTINUES)
  }
  target[at++] = rest
  return at
}

export type BatchSize = Pick<WriteBatch, 'packets' | 'exchanged' | 'bytes'>

/** Longest time that a packet is held, in milliseconds. Not 1, because a timer of 1 ms may fire at once. */
export const HOLD_MS = 2
/** Number of consecutive turns of the event loop with packets to send after which packets are held. */
const STREAM_TURNS = 16
/** Number of turns without a hold after one that ended by its timer. Doubles each time. */
const PENALTY_TURNS = 16
const LONGEST_PENALTY_TURNS = 4_096
const HOLD_PACKETS = 40
/** Not more, because mosquitto by default sends 20 messages and then waits for a PUBACK. */
const HOLD_EXCHANGED = 20
const HOLD_BYTES = 16_384
/** With this many times more unacknowledged publishes than held packets, an acknowledgement soon starts a new turn. */
const PUBACKS_FOR_PACKET = 4

/**
 * Decides whether the packets of this turn of the event loop wait for those of later turns. Under load, one system call per
 * turn costs more than everything else. A single packet, and the packet that follows its response, is never held.
 */
export class WriteHolding {
  /**
   * Number of consecutive turns in which something was sent; 0 after a turn that followed a write and had nothing to send.
   */
  busyTurns = 0
  private penalty = 0
  private nextPenalty = PENALTY_TURNS

  /**
   * Called at the end of a turn in which packets were sent.
   * @param unacknowledged number of publishes of this connection that the broker has not acknowledged
   */
  mayHold({ packets, exchanged, bytes }: BatchSize, unacknowledged: number): boolean {
    this.busyTurns += 1
    if (this.penalty > 0) {
      this.penalty -= 1
      return false
    }
    if (packets >= HOLD_PACKETS || exchanged >= HOLD_EXCHANGED || bytes >= HOLD_BYTES) {
      this.nextPenalty = PENALTY_TURNS
      return false
    }
    return this.busyTurns > STREAM_TURNS || unacknowledged >= PUBACKS_FOR_PACKET * (packets + 1)
  }

  /** Called when the hold ended by its timer. */
  wasInVain(): void {
    this.penalty = this.nextPenalty
    this.nextPenalty = Math.min(LONGEST_PENALTY_TURNS, this.nextPenalty * 2)
  }
}

/** A shorter topic saves nothing, because the property itself takes three bytes. */
const WORTHWHILE_LENGTH = 6

/**
 * Topic Aliases of one connection, up to the number that the broker allows (MQTT 5, 3.3.2.3.4). A new topic gets the alias
 * of the least recently used one.
 */
export class TopicAliases {
  /** Least recently used first. */
  private readonly known = new Map<string, number>()
  private lastTopic: string | undefined
  private readonly freed: number[] = []

  constructor(private readonly maximum: number) {}

  /**
   * Must be called only for a PUBLISH that is written, because the broker must receive every alias that is assigned here.
   */
  assign(topic: string): TopicAlias | undefined {
    if (this.maximum === 0 || topic.length < WORTHWHILE_LENGTH) return undefined
    const alias = this.known.get(topic)
    if (alias === undefined) return this.give(topic)
    if (topic !== this.lastTopic) {
      this.known.delete(topic)
      this.known.set(topic, alias)
      this.lastTopic = topic
    }
    return { alias, isNew: false }
  }

  /** The PUBLISH was not written after all. */
  forget(topic: string): void {
    const alias = this.known.get(topic)
    if (alias === undefined) return
    this.known.delete(topic)
    this.freed.push(alias)
    this.lastTopic = undefined
  }

  private give(topic: string): TopicAlias {
    let alias = this.freed.pop() ?? this.known.size + 1
    if (alias > this.maximum) {
      for (const [leastRecent, freed] of this.known) {
        this.known.delete(leastRecent)
        alias = freed
        break
      }
    }
    this.known.set(topic, alias)
    this.lastTopic = topic
    return { alias, isNew: true }
  }
}

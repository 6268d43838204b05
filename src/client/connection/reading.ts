import type { IStore } from 'mqtt'
import { bytesOf } from '../../core/inbound/open-messages.js'
import type { Packet, PublishPacket } from './link.js'

/** The size of a read that leaves more behind: a record of TLS. A plain socket gives up to 64 KiB at a time. */
export const FULL_READ_BYTES = 16_384
const LOOK_MS = 50

/** Notices that more arrives than this process reads: its reads are full then, and responses wait behind messages. */
export class ReadingLag {
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

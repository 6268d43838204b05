import type { IStore } from 'mqtt'
import type { Packet } from 'mqtt-packet'
import { bytesOf } from '../../core/inbound/open-messages.js'
import type { PublishPacket } from './link.js'

/**
 * QoS 2 messages between PUBLISH and PUBREL (MQTT 5, 4.3.3). They belong to the session: if the broker keeps the session,
 * they stay for the next connection.
 */
export class Unreleased {
  private readonly packets = new Map<number, PublishPacket>()
  /** Total bytes. */
  bytes = 0

  get count(): number {
    return this.packets.size
  }

  /** A message that is sent again replaces the earlier copy. */
  add(packet: PublishPacket): void {
    const { messageId = 0 } = packet
    this.take(messageId)
    this.packets.set(messageId, packet)
    this.bytes += bytesOf(packet)
  }

  get(messageId: number | undefined): PublishPacket | undefined {
    return this.packets.get(messageId ?? 0)
  }

  /** The broker has released or forgotten it. */
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

/** The store in which `mqtt` keeps them. `onStored` decides when PUBREC is sent and the parser continues. */
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
    if (packet === undefined) done(new Error('there is no message with this Packet Identifier'))
    else done(undefined, packet)
    return this
  }

  del({ messageId }: Pick<Packet, 'messageId'>, done: Done): this {
    this.unreleased.take(messageId)
    done()
    return this
  }

  /** `mqtt` only calls this on the store of outgoing packets. */
  createStream(): never {
    throw new Error('unreleased messages cannot be read as a stream')
  }

  close(done: Done): void {
    done()
  }
}

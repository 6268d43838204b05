import type { Packet } from 'mqtt-packet'
import type { PeerConnection } from '../../src/testing/index.js'
import { json } from './subscriber-on-peer.js'

interface Backlog {
  readonly count: number
  /** Approximate size of each payload. */
  readonly bytes: number
  readonly qos?: 1 | 2
}

/**
 * A broker without flow control that keeps a session: it sends all its messages at once, and on the next connection those again
 * that were not acknowledged. Their payloads are arrays whose first element counts from 1.
 */
export class FloodingBroker {
  readonly qos: 1 | 2
  /** Packet Identifiers of the messages that the client has not acknowledged, and whether their PUBREC has arrived. */
  private readonly waiting = new Map<number, 'publish' | 'pubrel'>()
  private readonly sent = new Set<number>()
  private connection: PeerConnection | undefined
  private read = 0

  constructor(private readonly backlog: Backlog) {
    this.qos = backlog.qos ?? 1
    for (let id = 1; id <= backlog.count; id += 1) this.waiting.set(id, 'publish')
  }

  /** Number of messages that the client has not acknowledged. */
  get left(): number {
    return this.waiting.size
  }

  /** Sends everything on a new connection. */
  flood(connection: PeerConnection): void {
    this.connection = connection
    this.read = 0
    for (const [messageId, next] of this.waiting) {
      if (next === 'pubrel') connection.send({ cmd: 'pubrel', messageId })
      else connection.send(this.messageOf(messageId))
      this.sent.add(messageId)
    }
  }

  /** Responds to everything that has arrived on the connection. */
  respond(): void {
    const { connection } = this
    if (connection === undefined) return
    for (const packet of connection.received.slice(this.read)) {
      this.read += 1
      const response = this.responseTo(packet)
      if (response !== undefined) connection.send(response)
    }
  }

  private responseTo(packet: Packet): Packet | undefined {
    const { messageId = 0 } = packet
    switch (packet.cmd) {
      case 'publish':
        return packet.qos === 1 ? { cmd: 'puback', messageId } : undefined
      case 'pubrec':
        this.waiting.set(messageId, 'pubrel')
        return { cmd: 'pubrel', messageId }
      case 'puback':
      case 'pubcomp':
        if (!this.waiting.delete(messageId)) throw new Error(`${messageId} was acknowledged twice`)
    }
    return undefined
  }

  private messageOf(messageId: number) {
    const { bytes } = this.backlog
    const payload = [messageId, 'x'.repeat(bytes)]
    return json('a/1', payload, { qos: this.qos, messageId, dup: this.sent.has(messageId) })
  }
}

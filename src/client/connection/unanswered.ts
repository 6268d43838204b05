import { MqttError } from '../../core/errors.js'
import type { PacketIds } from '../../core/protocol/packet-fields.js'
import type { AckRules } from '../../core/protocol/packets.js'
import { AckDeadline, type Unacknowledged } from './ack-deadline.js'
import type { Link } from './link.js'

interface Sent<T> extends Unacknowledged {
  readonly content: T
}

const UNSPECIFIED_ERROR = 0x80

/** Packets of one kind that wait for the broker's response, under one deadline. */
export class Unanswered<T> {
  private readonly packets = new Map<number, Sent<T>>()
  private deadline: AckDeadline<Sent<T>> | undefined

  constructor(
    private readonly packetIds: PacketIds,
    private readonly rules: AckRules,
    private readonly describe: (content: T) => string,
  ) {}

  get size(): number {
    return this.packets.size
  }

  get contents(): T[] {
    return [...this.packets.values()].map(({ content }) => content)
  }

  /** What has waited for half of its time. */
  get late(): T[] {
    if (this.deadline?.isLate !== true) return []
    const dueMs = performance.now() - this.rules.ackTimeoutMs / 2
    return [...this.packets.values()].filter(({ sentMs }) => sentMs <= dueMs).map(({ content }) => content)
  }

  connected(link: Link): void {
    this.deadline = new AckDeadline<Sent<T>>(link, this.rules.ackTimeoutMs, {
      oldest: () => this.packets.values().next().value,
      onOverdue: ({ content }) => this.giveUp(content),
    })
  }

  sent(messageId: number, content: T): void {
    this.packets.set(messageId, { content, sentMs: performance.now() })
    this.deadline?.sent()
  }

  /** A response arrived. @returns what it is for; undefined when nothing waits for it */
  answered(messageId: number | undefined): T | undefined {
    const sent = messageId === undefined ? undefined : this.packets.get(messageId)
    if (messageId === undefined || sent === undefined) return undefined
    this.packets.delete(messageId)
    this.packetIds.release(messageId)
    if (this.deadline !== undefined) this.deadline.acknowledgedMs = performance.now()
    return sent.content
  }

  /** The connection is gone. @returns what has waited */
  lost(): T[] {
    const { contents } = this
    this.deadline?.stop()
    this.deadline = undefined
    for (const messageId of this.packets.keys()) this.packetIds.release(messageId)
    this.packets.clear()
    return contents
  }

  private giveUp(oldest: T): void {
    const text = `the broker did not respond to ${this.describe(oldest)} within ${this.rules.ackTimeoutMs} ms`
    this.rules.onOverdue(new MqttError('TIMEOUT', text, { reasonCode: UNSPECIFIED_ERROR }))
  }
}

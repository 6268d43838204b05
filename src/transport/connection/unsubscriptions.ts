import type { BrokerLimits } from './broker-limits.js'
import type { Link } from './link.js'
import type { PacketIds } from './packet-ids.js'
import { batches } from './subscribe-batches.js'

/** Filters that the broker is to forget, until it has said that it did. */
export class Unsubscriptions {
  private readonly unsent = new Set<string>()
  private readonly inFlight = new Map<number, readonly string[]>()
  private waiters: (() => void)[] = []

  constructor(private readonly packetIds: PacketIds) {}

  add(subscription: string): void {
    this.unsent.add(subscription)
  }

  /** It is wanted again. */
  remove(subscription: string): void {
    this.unsent.delete(subscription)
    // What follows the packet that is on its way must not be undone by its repetition.
    for (const [messageId, subscriptions] of this.inFlight)
      this.inFlight.set(
        messageId,
        subscriptions.filter(other => other !== subscription),
      )
  }

  /** Sends what is not sent yet. */
  flush(link: Link, limits: BrokerLimits): void {
    for (const unsubscriptions of batches([...this.unsent], limits.maximumPacketSize)) {
      const messageId = this.packetIds.allocate()
      if (messageId === undefined) return
      for (const subscription of unsubscriptions) this.unsent.delete(subscription)
      this.inFlight.set(messageId, unsubscriptions)
      link.send({ cmd: 'unsubscribe', messageId, unsubscriptions })
    }
  }

  /** UNSUBACK came. */
  answered(messageId: number): void {
    if (!this.inFlight.delete(messageId)) return
    this.packetIds.release(messageId)
    this.wake()
  }

  /** Resolves when everything that was sent is answered, or the connection is lost. */
  whenAnswered(): Promise<void> {
    return new Promise(resolve => {
      this.waiters.push(resolve)
      this.wake()
    })
  }

  /** @param isKept whether the broker may have the filters still at the next connection */
  lost(isKept: boolean): void {
    for (const [messageId, subscriptions] of this.inFlight) {
      this.packetIds.release(messageId)
      if (isKept) for (const subscription of subscriptions) this.unsent.add(subscription)
    }
    this.inFlight.clear()
    this.wake()
  }

  /** The broker has forgotten everything. */
  clear(): void {
    this.unsent.clear()
  }

  private wake(): void {
    if (this.inFlight.size > 0) return
    const { waiters } = this
    this.waiters = []
    for (const waiter of waiters) waiter()
  }
}

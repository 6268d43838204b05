import type { MqttError } from '../../errors.js'
import { IdleWaiters } from '../../idle-waiters.js'
import type { TopicFilter } from '../../topic/topic-filter.js'
import type { BrokerLimits } from './broker-limits.js'
import type { ConnectedSession, ConnectionState } from './connection-state.js'
import { closedError, type WaitOptions } from './connection-wait.js'
import type { Link, Packet, SubackPacket } from './link.js'
import { describeReasonCode } from './mqtt-client.js'
import type { ConnectionListener } from './mqtt-connection.js'
import type { PacketIds } from './packet-ids.js'
import { RefusalRetry } from './refusal-retry.js'
import {
  FILTER_OVERHEAD_BYTES,
  FILTERS_PER_PACKET,
  SUBSCRIBE_OVERHEAD_BYTES,
  subscribePacket,
} from './subscribe-batches.js'
import { Subscription } from './subscription-entry.js'
import type { SubscriptionIdentifiers } from './subscription-identifiers.js'
import {
  isSameOptions,
  mergeOptions,
  refusal,
  type SubscriptionOptions,
  type SubscriptionRules,
  unservedError,
  unsubscribedError,
} from './subscription-options.js'
import { Unsubscriptions } from './unsubscriptions.js'

/** SUBSCRIBE packets on the way at the same time. */
const PACKETS_IN_FLIGHT = 1_000
const FAILURE = 0x80
/** The table of what this connection subscribes to. After a loss all of it comes back, each answer checked. */
export class Subscriptions implements ConnectionListener {
  private readonly table = new Map<string, Subscription>()
  private readonly unsent = new Set<Subscription>()
  private readonly inFlight = new Map<number, Subscription[]>()
  private readonly unsubscriptions: Unsubscriptions
  private readonly answers = new IdleWaiters(
    () => this.isClosed || (this.unsent.size === 0 && this.inFlight.size === 0),
  )
  private current: { readonly link: Link; readonly limits: BrokerLimits } | undefined

  /** Filters of a new connection are still to be asked for, so that publishes must wait. */
  isRestoring = false
  /** No subscription is wanted any more. */
  private isEnding = false
  private isClosed = false
  /** Wanted all the same while it ends. */
  private isKept: (subscription: string) => boolean = () => false
  private readonly retry: RefusalRetry

  constructor(
    private readonly packetIds: PacketIds,
    private readonly identifiers: SubscriptionIdentifiers,
    private readonly rules: SubscriptionRules,
  ) {
    this.unsubscriptions = new Unsubscriptions(packetIds)
    this.retry = new RefusalRetry(
      (round, first) => rules.retryDelayMs(round, refusal(first, 'refused before')),
      () => this.retryRefused(),
    )
  }

  /** Filters that the broker refuses now. */
  get refused(): string[] {
    return [...this.table.values()]
      .filter(entry => entry.status === 'refused')
      .map(entry => entry.filter.subscription)
  }

  get counts(): { readonly granted: number; readonly refused: number; readonly pending: number } {
    const all = [...this.table.values()]
    // Without a connection nobody knows what the broker still has.
    const isKnown = this.current !== undefined
    const granted = isKnown ? all.filter(entry => entry.status === 'granted').length : 0
    const refused = all.filter(entry => entry.status === 'refused').length
    return { granted, refused, pending: all.length - granted - refused }
  }

  /** Puts a filter into the table, or more demands on one that is there. `flush` sends what is new. */
  add(filter: TopicFilter, options: SubscriptionOptions): void {
    this.unsubscriptions.remove(filter.subscription)
    const known = this.table.get(filter.subscription)
    if (known !== undefined) {
      const merged = mergeOptions(known.options, options)
      if (isSameOptions(merged, known.options)) return
      known.options = merged
      this.markUnsent(known)
      return
    }
    const entry = new Subscription(filter, options, this.identifiers.assign(filter))
    this.table.set(filter.subscription, entry)
    this.unsent.add(entry)
  }

  /** Takes a filter out of the table; the broker is told to forget it. */
  remove(subscription: string): void {
    const entry = this.table.get(subscription)
    if (entry === undefined) return
    this.table.delete(subscription)
    this.unsent.delete(entry)
    this.identifiers.release(entry.identifier)
    entry.settle(unsubscribedError(subscription))
    if (entry.atBroker === 'no') return
    this.unsubscriptions.add(subscription)
    if (this.current !== undefined) this.unsubscriptions.flush(this.current.link, this.current.limits)
  }

  /** Resolves when the broker grants a filter, and rejects when it refuses it, or has refused it. */
  whenGranted(subscription: string, wait: WaitOptions = {}): Promise<void> {
    const entry = this.table.get(subscription)
    if (entry === undefined) return Promise.reject(unsubscribedError(subscription))
    if (entry.status === 'refused' && entry.refusal !== undefined) return Promise.reject(entry.refusal)
    if (entry.status === 'granted' && this.current !== undefined) return Promise.resolve()
    if (this.isClosed || (this.isEnding && !this.isKept(subscription))) return Promise.reject(closedError())
    return entry.whenGranted(wait)
  }

  /** Sends what is not sent yet. */
  flush(): void {
    if (this.current === undefined) return
    if (this.isEnding) this.forgetUnwanted()
    const { link, limits } = this.current
    const size = limits.subscriptionIdentifiersAvailable ? 1 : FILTERS_PER_PACKET
    while (this.unsent.size > 0 && this.inFlight.size < PACKETS_IN_FLIGHT) {
      const messageId = this.packetIds.allocate()
      if (messageId === undefined) break
      this.send(link, limits, messageId, this.takeUnsent(size, limits))
    }
    if (this.isRestoring && !this.isWindowFull) {
      this.isRestoring = false
      this.rules.onRestored()
    }
    this.answers.check()
  }

  /** Resolves when the broker has answered every SUBSCRIBE, over reconnects if need be, or when the connection is closed. */
  whenAnswered(): Promise<void> {
    return this.answers.wait()
  }

  /** From now on nothing is subscribed, also after a reconnect. */
  end(isKept: (subscription: string) => boolean = () => false): void {
    this.isEnding = true
    this.isKept = isKept
    this.forgetUnwanted()
    this.retry.stop()
    this.flush()
  }

  /** Sends UNSUBSCRIBE for everything and resolves with the last UNSUBACK, or at the loss of the connection. */
  unsubscribeAll(isKept: (subscription: string) => boolean = () => false): Promise<void> {
    this.end(isKept)
    const granted = [...this.table.values()]
      .filter(entry => entry.status === 'granted' && !isKept(entry.filter.subscription))
      .map(entry => entry.filter.subscription)
    const { current } = this
    if (current === undefined) return Promise.resolve()
    for (const subscription of granted) this.unsubscriptions.add(subscription)
    this.unsubscriptions.flush(current.link, current.limits)
    return this.unsubscriptions.whenAnswered()
  }

  stateChanged(state: ConnectionState, before: ConnectionState): void {
    if (state.status !== 'connected') this.retry.stop()
    this.isClosed = state.status === 'closed'
    if (this.isClosed) for (const entry of this.table.values()) entry.settle(closedError())
    this.answers.check()
    // Opened again after a close.
    if (before.status === 'closed') this.isEnding = false
  }

  connected(link: Link, session: ConnectedSession): void {
    this.current = { link, limits: session.limits }
    if (this.isEnding) return
    if (session.sessionPresent) this.unsubscriptions.flush(link, session.limits)
    else this.unsubscriptions.clear()
    for (const entry of this.table.values()) {
      if (!session.sessionPresent) entry.atBroker = 'no'
      // A kept session still has what it granted; what it refused is asked for again.
      if (!session.sessionPresent || entry.status !== 'granted') this.markUnsent(entry)
    }
    this.isRestoring = true
    this.flush()
  }

  lost(): void {
    this.current = undefined
    this.isRestoring = false
    for (const [messageId, entries] of this.inFlight) {
      this.packetIds.release(messageId)
      for (const entry of entries) if (this.isWanted(entry)) this.markUnsent(entry)
    }
    this.inFlight.clear()
    if (!this.rules.keepsSession) for (const entry of this.table.values()) entry.atBroker = 'no'
    this.unsubscriptions.lost(this.rules.keepsSession && !this.isEnding)
    this.answers.check()
  }

  answered(packet: Packet): void {
    if (packet.cmd === 'suback') this.takeSuback(packet)
    else if (packet.cmd === 'unsuback' && packet.messageId !== undefined)
      this.unsubscriptions.answered(packet.messageId)
    // An answer may have set a Packet Identifier free that a SUBSCRIBE waits for.
    if (this.unsent.size > 0) this.flush()
  }

  /** Without a free Packet Identifier it waits for publishes, which must not wait for it. */
  private get isWindowFull(): boolean {
    return this.unsent.size > 0 && this.inFlight.size >= PACKETS_IN_FLIGHT
  }

  private forgetUnwanted(): void {
    for (const entry of this.unsent) {
      if (this.isKept(entry.filter.subscription)) continue
      this.unsent.delete(entry)
      entry.settle(closedError())
    }
  }

  private markUnsent(entry: Subscription): void {
    entry.status = 'unsent'
    this.unsent.add(entry)
  }

  /** The next filters that go into one packet, no more of them than the broker takes. */
  private takeUnsent(most: number, limits: BrokerLimits): Subscription[] {
    const taken: Subscription[] = []
    let bytes = SUBSCRIBE_OVERHEAD_BYTES
    for (const entry of this.unsent) {
      const more = Buffer.byteLength(entry.filter.subscription) + FILTER_OVERHEAD_BYTES
      if (taken.length === most || (taken.length > 0 && bytes + more > limits.maximumPacketSize)) break
      this.unsent.delete(entry)
      const unserved = unservedError(entry.filter, SUBSCRIBE_OVERHEAD_BYTES + more, limits)
      if (unserved === undefined) {
        taken.push(entry)
        bytes += more
      } else this.refuse(entry, unserved)
    }
    return taken
  }

  private send(link: Link, limits: BrokerLimits, messageId: number, entries: Subscription[]): void {
    const [first] = entries
    if (first === undefined) return this.packetIds.release(messageId)
    for (const entry of entries) entry.sent()
    this.inFlight.set(messageId, entries)
    link.send(
      subscribePacket(
        messageId,
        entries,
        limits.subscriptionIdentifiersAvailable ? first.identifier : undefined,
      ),
    )
  }

  private takeSuback(packet: SubackPacket): void {
    const entries = packet.messageId === undefined ? undefined : this.inFlight.get(packet.messageId)
    if (packet.messageId === undefined || entries === undefined) return
    this.inFlight.delete(packet.messageId)
    this.packetIds.release(packet.messageId)
    for (const [index, entry] of entries.entries()) {
      const granted = packet.granted[index]
      const code = typeof granted === 'number' ? granted : FAILURE
      if (code < FAILURE) this.grant(entry)
      else this.refuse(entry, refusal(entry.filter.subscription, describeReasonCode(code), code))
    }
    this.retryRefusedLater()
    this.flush()
  }

  private grant(entry: Subscription): void {
    entry.granted()
    if (entry.isRefusalTold) this.rules.onRecovered(entry.filter.subscription)
    entry.isRefusalTold = false
  }

  private retryRefusedLater(): void {
    if (this.isEnding || this.inFlight.size > 0 || this.unsent.size > 0) return
    this.retry.answered(this.refused[0])
  }

  private retryRefused(): void {
    for (const entry of this.table.values()) if (entry.status === 'refused') this.markUnsent(entry)
    this.flush()
  }

  private refuse(entry: Subscription, error: MqttError): void {
    entry.refused(error)
    if (entry.isRefusalTold || !this.isWanted(entry)) return
    entry.isRefusalTold = true
    this.rules.onRefused({ subscription: entry.filter.subscription, error })
  }

  private isWanted(entry: Subscription): boolean {
    return this.table.get(entry.filter.subscription) === entry
  }
}

import type { ConnectedSession, ConnectionState } from '../../core/connection/connection-state.js'
import { closedError, type MqttError } from '../../core/errors.js'
import { type BrokerLimits, describeReasonCode, type PacketIds } from '../../core/protocol/packets.js'
import {
  isSameOptions,
  mergeOptions,
  nextBatch,
  refusal,
  type SubscriptionCounters,
  type SubscriptionIdentifiers,
  type SubscriptionOptions,
  type SubscriptionRules,
  subscribePacket,
  unsubscribedError,
} from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import { AwaitedResponses } from '../connection/ack-deadline.js'
import type { Link, Packet, SubackPacket } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import type { Hook, Notice } from '../events.js'
import { IdleWaiters, type WaitOptions } from '../waits.js'
import { countsOf, RefusalRetry, Subscription, Unsubscriptions } from './subscription-entries.js'

/** Most filters that health names. */
const MAX_NAMED = 100
/** Most SUBSCRIBE packets without a SUBACK. */
const PACKETS_IN_FLIGHT = 1_000
const FAILURE = 0x80

/** The subscriptions of this client. After a reconnect all are restored, and each SUBACK is checked. */
export class SubscriptionTable implements ConnectionListener {
  private readonly table = new Map<string, Subscription>()
  /** Filters that are subscribed for a short time, besides those of handlers. They are not restored. */
  private readonly passing = new Set<Subscription>()
  private readonly unsent = new Set<Subscription>()
  private readonly inFlight: AwaitedResponses<readonly Subscription[]>
  private readonly unsubscriptions: Unsubscriptions
  private readonly settled = new IdleWaiters(
    () => this.isClosed || (this.unsent.size === 0 && this.inFlight.size === 0),
  )
  private current: { readonly link: Link; readonly limits: BrokerLimits } | undefined
  /** Filters of a new connection are not sent yet, so that publishes must wait. */
  isRestoring = false
  /** Nothing is subscribed any more, except what `isKept` names. */
  private isEnding = false
  private isClosed = false
  private isKept: (subscription: string) => boolean = () => false
  private readonly retry: RefusalRetry

  constructor(
    private readonly packetIds: PacketIds,
    private readonly identifiers: SubscriptionIdentifiers,
    private readonly rules: SubscriptionRules,
    private readonly notice: Hook<Notice>,
  ) {
    this.inFlight = new AwaitedResponses(packetIds, rules, ([first]) => `SUBSCRIBE of "${first?.name}"`)
    this.unsubscriptions = new Unsubscriptions(packetIds, rules, notice)
    this.retry = new RefusalRetry(rules.retryDelay, () => {
      for (const entry of this.table.values()) if (entry.status === 'refused') this.markUnsent(entry)
      this.flush()
    })
  }

  /** Filters that the broker refuses now. */
  get refused(): string[] {
    return [...this.table.values()].filter(entry => entry.status === 'refused').map(entry => entry.name)
  }

  /** Filters whose SUBACK is late, at most 100. */
  get unanswered(): string[] {
    return this.inFlight.late.flatMap(entries => entries.map(({ name }) => name)).slice(0, MAX_NAMED)
  }

  get counts(): SubscriptionCounters {
    return countsOf([...this.table.values()], this.current !== undefined, this.unsubscriptions.refused)
  }

  /** Adds a filter, or raises the options of a known one. `flush` sends it. */
  add(filter: TopicFilter, options: SubscriptionOptions): void {
    const mayBeAtBroker = this.unsubscriptions.remove(filter.subscription)
    const known = this.table.get(filter.subscription)
    if (known !== undefined) {
      const merged = mergeOptions(known.options, options)
      if (isSameOptions(merged, known.options)) return
      known.options = merged
      return this.markUnsent(known)
    }
    const entry = new Subscription(filter, options, this.identifiers.assign(filter))
    if (mayBeAtBroker) entry.atBroker = 'maybe'
    this.table.set(filter.subscription, entry)
    this.unsent.add(entry)
  }

  entryOf(subscription: string): Subscription | undefined {
    return this.table.get(subscription)
  }

  /** Removes a filter. @returns a promise that resolves when the broker has removed it, and rejects if it refuses */
  remove(subscription: string): Promise<void> {
    const entry = this.table.get(subscription)
    if (entry === undefined) return Promise.resolve()
    this.table.delete(subscription)
    this.identifiers.release(entry.identifier)
    return this.withdraw(entry)
  }

  /** Sends SUBSCRIBE again for a filter of the table, or for another filter, until `withdraw`. Resolves with SUBACK. */
  request(entry: Subscription): Promise<void> {
    if (this.unsubscriptions.remove(entry.name) && entry.atBroker === 'no') entry.atBroker = 'maybe'
    if (!this.isWanted(entry)) this.passing.add(entry)
    const granted = entry.whenGranted({})
    this.markUnsent(entry)
    this.flush()
    return granted
  }

  /** Ends the use of a filter. @returns a promise like that of `remove` */
  withdraw(entry: Subscription): Promise<void> {
    const { name } = entry
    this.passing.delete(entry)
    this.unsent.delete(entry)
    entry.settle(unsubscribedError(name))
    const isUsed = this.table.has(name) || [...this.passing].some(other => other.name === name)
    if (isUsed || entry.atBroker === 'no') return Promise.resolve()
    const confirmed = this.unsubscriptions.add(name)
    this.unsubscriptions.flush()
    return confirmed
  }

  /** Whether the broker has granted a filter on this connection. */
  isGranted(subscription: string): boolean {
    return this.current !== undefined && this.table.get(subscription)?.status === 'granted'
  }

  /** Resolves when the broker grants a filter, and rejects when it refuses it, or has refused it. */
  whenGranted(subscription: string, wait: WaitOptions = {}): Promise<void> {
    const entry = this.table.get(subscription)
    if (entry === undefined) return Promise.reject(unsubscribedError(subscription))
    if (entry.status === 'refused' && entry.refusal !== undefined) return Promise.reject(entry.refusal)
    if (this.isGranted(subscription)) return Promise.resolve()
    if (this.isClosed || (this.isEnding && !this.isKept(subscription))) return Promise.reject(closedError())
    return entry.whenGranted(wait)
  }

  /** Sends the filters that are not sent yet. */
  flush(): void {
    if (this.current === undefined) return
    if (this.isEnding) this.forgetUnwanted()
    const { link, limits } = this.current
    while (this.unsent.size > 0 && this.inFlight.size < PACKETS_IN_FLIGHT) {
      const messageId = this.packetIds.allocate()
      if (messageId === undefined) {
        this.packetIds.whenFree(this.sendMore)
        break
      }
      this.send(link, limits, messageId)
    }
    if (this.isRestoring && !this.isWindowFull) {
      this.isRestoring = false
      this.rules.onRestored()
    }
    this.settled.check()
  }

  /** Resolves when the broker has responded to every SUBSCRIBE, if necessary after a reconnect, or the connection is closed. */
  whenSettled(): Promise<void> {
    return this.settled.wait()
  }

  /** From now on nothing is subscribed, even after a reconnect, except what `isKept` names. */
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
    if (this.current === undefined) return Promise.resolve()
    for (const { name, status } of this.table.values())
      if (status === 'granted' && !isKept(name)) void this.unsubscriptions.add(name)
    this.unsubscriptions.flush()
    return this.unsubscriptions.whenSettled()
  }

  stateChanged(state: ConnectionState): void {
    if (state.status !== 'connected') this.retry.stop()
    this.isClosed = state.status === 'closed'
    if (this.isClosed) {
      for (const entry of this.table.values()) entry.settle(closedError())
      this.unsubscriptions.closed()
    }
    this.settled.check()
  }

  connected(link: Link, session: ConnectedSession): void {
    this.current = { link, limits: session.limits }
    this.inFlight.connected(link)
    this.unsubscriptions.connected(link, session.limits)
    if (session.sessionPresent) this.unsubscriptions.flush()
    else this.unsubscriptions.clear()
    for (const entry of this.table.values()) {
      if (!session.sessionPresent) entry.atBroker = 'no'
      if (!session.sessionPresent || !entry.isKeptBySession) this.markUnsent(entry)
      // No SUBACK follows for what the session has kept.
      else entry.settle()
    }
    this.isRestoring = true
    this.flush()
  }

  lost(): void {
    this.current = undefined
    this.isRestoring = false
    for (const entry of this.inFlight.lost().flat()) if (this.isWanted(entry)) this.markUnsent(entry)
    for (const entry of this.passing) {
      this.unsent.delete(entry)
      entry.settle(closedError())
    }
    if (!this.rules.keepsSession) for (const entry of this.table.values()) entry.atBroker = 'no'
    this.unsubscriptions.lost(this.rules.keepsSession)
    this.settled.check()
  }

  responded(packet: Packet): void {
    if (packet.cmd === 'suback') this.takeSuback(packet)
    else if (packet.cmd === 'unsuback') this.unsubscriptions.responded(packet)
    this.sendMore()
  }

  private readonly sendMore = (): void => (this.unsent.size > 0 ? this.flush() : undefined)

  /** Without a free Packet Identifier, subscriptions wait for publishes, so publishes must not wait for them. */
  private get isWindowFull(): boolean {
    return this.unsent.size > 0 && this.inFlight.size >= PACKETS_IN_FLIGHT
  }

  private forgetUnwanted(): void {
    for (const entry of this.unsent) {
      if (this.isKept(entry.name)) continue
      this.unsent.delete(entry)
      entry.settle(closedError())
    }
  }

  private markUnsent(entry: Subscription): void {
    entry.status = 'unsent'
    this.unsent.add(entry)
  }

  private send(link: Link, limits: BrokerLimits, messageId: number): void {
    const { taken, unserved } = nextBatch(this.unsent, limits)
    for (const [entry, error] of unserved) {
      this.unsent.delete(entry)
      this.refuse(entry, error)
    }
    const [first] = taken
    if (first === undefined) return this.packetIds.release(messageId)
    for (const entry of taken) {
      this.unsent.delete(entry)
      const text = entry.sent(link.protocolVersion)
      if (text !== undefined) this.notice.emit({ type: 'subscription-warning', text })
    }
    this.inFlight.sent(messageId, taken)
    const identifier = limits.subscriptionIdentifiersAvailable ? first.identifier : undefined
    link.send(subscribePacket(messageId, taken, identifier))
  }

  private takeSuback(packet: SubackPacket): void {
    const entries = this.inFlight.responded(packet.messageId)
    if (entries === undefined) return
    for (const [index, entry] of entries.entries()) {
      const granted = packet.granted[index]
      const code = typeof granted === 'number' ? granted : FAILURE
      if (code >= FAILURE) this.refuse(entry, refusal(entry.name, describeReasonCode(code), code))
      else if (entry.granted()) this.notice.emit({ type: 'subscription-recovered', subscription: entry.name })
    }
    this.retryRefusedLater()
    this.flush()
  }

  private retryRefusedLater(): void {
    if (this.isEnding || this.inFlight.size > 0 || this.unsent.size > 0) return
    this.retry.schedule(this.refused[0])
  }

  private refuse(entry: Subscription, error: MqttError): void {
    entry.refused(error)
    if (entry.isRefusalLogged || !this.isWanted(entry)) return
    entry.isRefusalLogged = true
    this.rules.onRefused(error)
  }

  private isWanted(entry: Subscription): boolean {
    return this.table.get(entry.name) === entry
  }
}

import type { ConnectedSession, ConnectionState } from '../../core/connection/connection-state.js'
import { closedError, type MqttError } from '../../core/errors.js'
import type { PacketIds } from '../../core/protocol/packet-ids.js'
import { type BrokerLimits, describeReasonCode } from '../../core/protocol/packets.js'
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
  uncertainShare,
  unsubscribedError,
} from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import type { WaitOptions } from '../connection/connection-wait.js'
import type { Link, Packet, SubackPacket } from '../connection/link.js'
import type { ConnectionListener } from '../connection/mqtt-connection.js'
import { Unanswered } from '../connection/unanswered.js'
import { IdleWaiters } from '../waits.js'
import { RefusalRetry, Subscription } from './subscription-entry.js'
import { Unsubscriptions } from './unsubscriptions.js'

/** Filters that health names. */
const MAX_NAMED = 100
/** SUBSCRIBE packets on the way at the same time. */
const PACKETS_IN_FLIGHT = 1_000
const FAILURE = 0x80
/** The subscriptions of this connection. After a reconnect all are restored, and each SUBACK is checked. */
export class Subscriptions implements ConnectionListener {
  private readonly table = new Map<string, Subscription>()
  private readonly unsent = new Set<Subscription>()
  private readonly inFlight: Unanswered<readonly Subscription[]>
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
    this.inFlight = new Unanswered(packetIds, rules, ([first]) => `SUBSCRIBE of "${first?.name}"`)
    this.unsubscriptions = new Unsubscriptions(packetIds, rules)
    this.retry = new RefusalRetry(
      (round, first) => rules.retryDelayMs(round, refusal(first, 'refused before')),
      () => this.retryRefused(),
    )
  }

  /** Filters that the broker refuses now. */
  get refused(): string[] {
    return [...this.table.values()].filter(entry => entry.status === 'refused').map(entry => entry.name)
  }

  /** Filters whose SUBACK is late, no more than are worth naming. */
  get unanswered(): string[] {
    const late = this.inFlight.late.flat().slice(0, MAX_NAMED)
    return late.map(entry => entry.name)
  }

  get counts(): SubscriptionCounters {
    const all = [...this.table.values()]
    // Without a connection nobody knows what the broker still has.
    const isKnown = this.current !== undefined
    const granted = isKnown ? all.filter(entry => entry.status === 'granted').length : 0
    const refused = all.filter(entry => entry.status === 'refused').length
    return {
      granted,
      refused,
      pending: all.length - granted - refused,
      unsubscribesRefused: this.unsubscriptions.refused,
    }
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

  /** Takes a filter out of the table. @returns resolves when the broker has it no more, rejects when it keeps it */
  remove(subscription: string): Promise<void> {
    const entry = this.table.get(subscription)
    if (entry === undefined) return Promise.resolve()
    this.table.delete(subscription)
    this.unsent.delete(entry)
    this.identifiers.release(entry.identifier)
    entry.settle(unsubscribedError(subscription))
    if (entry.atBroker === 'no') return Promise.resolve()
    const confirmed = this.unsubscriptions.add(subscription)
    this.unsubscriptions.flush()
    return confirmed
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
    this.answers.check()
  }

  /** Resolves when the broker has responded to every SUBSCRIBE, if necessary after a reconnect, or the connection is closed. */
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
      .filter(entry => entry.status === 'granted' && !isKept(entry.name))
      .map(entry => entry.name)
    if (this.current === undefined) return Promise.resolve()
    for (const subscription of granted) void this.unsubscriptions.add(subscription)
    this.unsubscriptions.flush()
    return this.unsubscriptions.whenAnswered()
  }

  stateChanged(state: ConnectionState): void {
    if (state.status !== 'connected') this.retry.stop()
    this.isClosed = state.status === 'closed'
    if (this.isClosed) {
      for (const entry of this.table.values()) entry.settle(closedError())
      this.unsubscriptions.closed()
    }
    this.answers.check()
  }

  connected(link: Link, session: ConnectedSession): void {
    this.current = { link, limits: session.limits }
    this.inFlight.connected(link)
    this.unsubscriptions.connected(link, session.limits)
    if (this.isEnding) return
    if (session.sessionPresent) this.unsubscriptions.flush()
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
    for (const entry of this.inFlight.lost().flat()) if (this.isWanted(entry)) this.markUnsent(entry)
    if (!this.rules.keepsSession) for (const entry of this.table.values()) entry.atBroker = 'no'
    this.unsubscriptions.lost(this.rules.keepsSession)
    this.answers.check()
  }

  answered(packet: Packet): void {
    if (packet.cmd === 'suback') this.takeSuback(packet)
    else if (packet.cmd === 'unsuback') this.unsubscriptions.answered(packet)
    this.sendMore()
  }

  private readonly sendMore = (): void => (this.unsent.size > 0 ? this.flush() : undefined)

  /** Without a free Packet Identifier it waits for publishes, which must not wait for it. */
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
      entry.sent()
      if (link.protocolVersion === 4) this.warnOfShare(entry)
    }
    this.inFlight.sent(messageId, taken)
    const identifier = limits.subscriptionIdentifiersAvailable ? first.identifier : undefined
    link.send(subscribePacket(messageId, taken, identifier))
  }

  private warnOfShare(entry: Subscription): void {
    if (entry.filter.sharedGroup === undefined || entry.isShareDoubted) return
    entry.isShareDoubted = true
    this.rules.onWarning(uncertainShare(entry.filter))
  }

  private takeSuback(packet: SubackPacket): void {
    const entries = this.inFlight.answered(packet.messageId)
    if (entries === undefined) return
    for (const [index, entry] of entries.entries()) {
      const granted = packet.granted[index]
      const code = typeof granted === 'number' ? granted : FAILURE
      if (code < FAILURE) this.grant(entry)
      else this.refuse(entry, refusal(entry.name, describeReasonCode(code), code))
    }
    this.retryRefusedLater()
    this.flush()
  }

  private grant(entry: Subscription): void {
    entry.granted()
    if (entry.isRefusalTold) this.rules.onRecovered(entry.name)
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
    this.rules.onRefused({ subscription: entry.name, error })
  }

  private isWanted(entry: Subscription): boolean {
    return this.table.get(entry.name) === entry
  }
}

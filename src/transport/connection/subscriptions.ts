import { MqttError } from '../../errors.js'
import { matchesTopicFilter, type TopicFilter } from '../../topic/topic-filter.js'
import type { BrokerLimits } from './broker-limits.js'
import type { ConnectedSession, ConnectionState } from './connection-state.js'
import { describeReasonCode, type Link, type Packet, type SubackPacket } from './mqtt-client.js'
import type { ConnectionListener } from './mqtt-connection.js'
import type { PacketIds } from './packet-ids.js'

export interface SubscriptionOptions {
  readonly qos: 0 | 1 | 2
  /** No Local (MQTT 5, 3.8.3.1): the broker does not send back what this connection publishes. */
  readonly noLocal: boolean
  /** Retain Handling (MQTT 5, 3.8.3.1). */
  readonly retainHandling: 0 | 1 | 2
}

interface Subscription {
  readonly filter: TopicFilter
  readonly identifier: number
  options: SubscriptionOptions
  status: 'unsent' | 'sent' | 'granted' | 'refused'
}

/** A filter that the broker refused, or that it cannot serve. */
export interface RefusedSubscription {
  readonly subscription: string
  readonly error: MqttError
}

/** Filters in one SUBSCRIBE where they need no identifier of their own. */
const FILTERS_PER_PACKET = 50
/** SUBSCRIBE packets on the way at the same time. */
const PACKETS_IN_FLIGHT = 1_000
const FAILURE = 0x80

/** The table of what this connection subscribes to. After a loss all of it comes back, each answer checked. */
export class Subscriptions implements ConnectionListener {
  private readonly table = new Map<string, Subscription>()
  private readonly identifiers = new Map<number, Subscription>()
  private readonly unsent = new Set<Subscription>()
  private readonly inFlight = new Map<number, Subscription[]>()
  private readonly unsubscribing = new Set<number>()
  private readonly answerWaiters: (() => void)[] = []
  private readonly unsubscribeWaiters: (() => void)[] = []
  private current: { readonly link: Link; readonly limits: BrokerLimits } | undefined

  constructor(
    private readonly packetIds: PacketIds,
    private readonly onRefused: (refused: RefusedSubscription) => void,
  ) {}

  get counts(): { readonly granted: number; readonly refused: number; readonly pending: number } {
    const all = [...this.table.values()]
    const granted = all.filter(entry => entry.status === 'granted').length
    const refused = all.filter(entry => entry.status === 'refused').length
    return { granted, refused, pending: all.length - granted - refused }
  }

  /** Puts a filter into the table; one that is there already gets the higher QoS. `flush` sends what is new. */
  add(filter: TopicFilter, options: SubscriptionOptions): void {
    const known = this.table.get(filter.subscription)
    if (known !== undefined) {
      if (options.qos <= known.options.qos) return
      known.options = { ...known.options, qos: options.qos }
      this.markUnsent(known)
      return
    }
    const entry: Subscription = { filter, options, status: 'unsent', identifier: this.freeIdentifier(filter) }
    this.table.set(filter.subscription, entry)
    this.identifiers.set(entry.identifier, entry)
    this.unsent.add(entry)
  }

  /** Sends what is not sent yet. */
  flush(): void {
    if (this.current === undefined) return
    const { link, limits } = this.current
    const size = limits.subscriptionIdentifiersAvailable ? 1 : FILTERS_PER_PACKET
    while (this.unsent.size > 0 && this.inFlight.size < PACKETS_IN_FLIGHT) {
      const messageId = this.packetIds.allocate()
      if (messageId === undefined) break
      this.send(link, limits, messageId, this.takeUnsent(size, limits))
    }
    this.wakeIfAnswered()
  }

  /** Resolves when the broker has answered every SUBSCRIBE, over reconnects if need be, or when the connection is closed. */
  whenAnswered(): Promise<void> {
    return new Promise(resolve => {
      this.answerWaiters.push(resolve)
      this.wakeIfAnswered()
    })
  }

  /** Sends UNSUBSCRIBE for everything and resolves with the last UNSUBACK, or at the loss of the connection. */
  unsubscribeAll(): Promise<void> {
    const granted = [...this.table.values()].filter(entry => entry.status === 'granted')
    const { current } = this
    if (current === undefined) return Promise.resolve()
    for (let at = 0; at < granted.length; at += FILTERS_PER_PACKET) {
      const messageId = this.packetIds.allocate()
      if (messageId === undefined) break
      const unsubscriptions = granted
        .slice(at, at + FILTERS_PER_PACKET)
        .map(entry => entry.filter.subscription)
      this.unsubscribing.add(messageId)
      current.link.send({ cmd: 'unsubscribe', messageId, unsubscriptions })
    }
    return new Promise(resolve => {
      this.unsubscribeWaiters.push(resolve)
      this.wakeIfAnswered()
    })
  }

  /**
   * The subscriptions that a message was sent for, by the Subscription Identifiers it carries (MQTT 5, 3.3.4).
   * Undefined when it carries none. An identifier of a session before this process may be stale, so each one
   * must also match the topic.
   */
  identify(topic: string, identifiers: number | readonly number[] | undefined): string[] | undefined {
    if (identifiers === undefined) return undefined
    return [identifiers]
      .flat()
      .map(identifier => this.identifiers.get(identifier)?.filter)
      .filter(filter => filter !== undefined)
      .filter(filter => matchesTopicFilter(filter, topic))
      .map(filter => filter.subscription)
  }

  connected(link: Link, session: ConnectedSession): void {
    this.current = { link, limits: session.limits }
    for (const entry of this.table.values()) {
      // A kept session still has what it granted; what it refused is asked for again.
      if (!session.sessionPresent || entry.status !== 'granted') this.markUnsent(entry)
    }
    this.flush()
  }

  stateChanged(state: ConnectionState): void {
    if (state.status === 'closed') wake(this.answerWaiters)
  }

  lost(): void {
    this.current = undefined
    for (const [messageId, entries] of this.inFlight) {
      this.packetIds.release(messageId)
      for (const entry of entries) this.markUnsent(entry)
    }
    for (const messageId of this.unsubscribing) this.packetIds.release(messageId)
    this.inFlight.clear()
    this.unsubscribing.clear()
    this.wakeIfAnswered()
  }

  answered(packet: Packet): void {
    if (packet.cmd === 'suback') this.takeSuback(packet)
    else if (packet.cmd === 'unsuback' && packet.messageId !== undefined) {
      if (!this.unsubscribing.delete(packet.messageId)) return
      this.packetIds.release(packet.messageId)
      this.wakeIfAnswered()
    }
  }

  private markUnsent(entry: Subscription): void {
    entry.status = 'unsent'
    this.unsent.add(entry)
  }

  private takeUnsent(most: number, limits: BrokerLimits): Subscription[] {
    const taken: Subscription[] = []
    for (const entry of this.unsent) {
      if (taken.length === most) break
      this.unsent.delete(entry)
      if (this.isServed(entry, limits)) taken.push(entry)
    }
    return taken
  }

  private send(link: Link, limits: BrokerLimits, messageId: number, entries: Subscription[]): void {
    const [first] = entries
    if (first === undefined) return this.packetIds.release(messageId)
    const properties = limits.subscriptionIdentifiersAvailable
      ? { subscriptionIdentifier: first.identifier }
      : undefined
    for (const entry of entries) entry.status = 'sent'
    this.inFlight.set(messageId, entries)
    link.send({
      cmd: 'subscribe',
      messageId,
      subscriptions: entries.map(({ filter, options }) => ({
        topic: filter.subscription,
        qos: options.qos,
        // No Local on a Shared Subscription is a Protocol Error [MQTT-3.8.3-4].
        nl: options.noLocal && filter.sharedGroup === undefined,
        rap: true,
        rh: options.retainHandling,
      })),
      ...(properties === undefined ? {} : { properties }),
    })
  }

  private takeSuback(packet: SubackPacket): void {
    const entries = packet.messageId === undefined ? undefined : this.inFlight.get(packet.messageId)
    if (packet.messageId === undefined || entries === undefined) return
    this.inFlight.delete(packet.messageId)
    this.packetIds.release(packet.messageId)
    for (const [index, entry] of entries.entries()) {
      const granted = packet.granted[index]
      const code = typeof granted === 'number' ? granted : FAILURE
      if (code < FAILURE) entry.status = 'granted'
      else this.refuse(entry, describeReasonCode(code), code)
    }
    this.flush()
  }

  /** What the broker said it cannot do is not asked of it: that would be a Protocol Error. */
  private isServed(entry: Subscription, limits: BrokerLimits): boolean {
    const { filter } = entry
    const isWildcard = filter.levels.some(level => level === '#' || level === '+')
    if (filter.sharedGroup !== undefined && !limits.sharedSubscriptionAvailable) {
      this.refuse(entry, 'the broker has no Shared Subscriptions', 0x9e)
    } else if (isWildcard && !limits.wildcardSubscriptionAvailable) {
      this.refuse(entry, 'the broker has no wildcard subscriptions', 0xa2)
    } else return true
    return false
  }

  private refuse(entry: Subscription, why: string, reasonCode: number): void {
    entry.status = 'refused'
    const { subscription } = entry.filter
    const error = new MqttError(
      'SUBSCRIBE_REFUSED',
      `the broker refused the subscription "${subscription}": ${why}. Check the access rules of the broker for this user`,
      { reasonCode },
    )
    this.onRefused({ subscription, error })
  }

  private wakeIfAnswered(): void {
    if (this.unsubscribing.size === 0) wake(this.unsubscribeWaiters)
    if (this.unsent.size === 0 && this.inFlight.size === 0) wake(this.answerWaiters)
  }

  private freeIdentifier(filter: TopicFilter): number {
    let identifier = subscriptionIdentifier(filter.subscription)
    while (this.identifiers.has(identifier)) identifier = (identifier % MAX_IDENTIFIER) + 1
    return identifier
  }
}

function wake(waiters: (() => void)[]): void {
  for (const waiter of waiters.splice(0)) waiter()
}

/** Largest Subscription Identifier (MQTT 5, 3.8.2.1.2). */
const MAX_IDENTIFIER = 268_435_455

/**
 * The identifier of a filter is a hash of it (FNV-1a), so that a message which a kept session stored before a
 * restart of this process still names the same filter after it.
 */
function subscriptionIdentifier(subscription: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(subscription)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0
  return (hash % MAX_IDENTIFIER) + 1
}

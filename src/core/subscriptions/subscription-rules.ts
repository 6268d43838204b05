import type { DelayRule } from '../connection/reconnect-rules.js'
import { MqttError } from '../errors.js'
import type { AckRules, BrokerLimits, SubscribePacket } from '../protocol/packets.js'
import {
  MAX_TOPIC_BYTES,
  matchesTopicFilter,
  parseTopicFilter,
  type TopicFilter,
} from '../topic/topic-filter.js'

/** Options of one filter in SUBSCRIBE. */
export interface SubscriptionOptions {
  readonly qos: 0 | 1 | 2
  /** No Local (MQTT 5, 3.8.3.1): the broker does not send back what this connection publishes. */
  readonly noLocal: boolean
  /** Retain Handling (MQTT 5, 3.8.3.1). */
  readonly retainHandling: 0 | 1 | 2
  /**
   * Retain As Published (MQTT 5, 3.8.3.1). With `false`, only messages that the broker had stored have the RETAIN flag, as on
   * MQTT 3.1.1. @default true
   */
  readonly retainAsPublished?: false
}

/**
 * Merges the options of several handlers of one filter: the highest QoS and the fewest restrictions that any of them sets.
 */
export function mergeOptions(a: SubscriptionOptions, b: SubscriptionOptions): SubscriptionOptions {
  return {
    qos: higher(a.qos, b.qos),
    noLocal: a.noLocal && b.noLocal,
    retainHandling:
      higher(a.retainHandling, b.retainHandling) === a.retainHandling ? b.retainHandling : a.retainHandling,
  }
}

function higher<T extends number>(a: T, b: T): T {
  return a > b ? a : b
}

export function isSameOptions(a: SubscriptionOptions, b: SubscriptionOptions): boolean {
  return a.qos === b.qos && a.noLocal === b.noLocal && a.retainHandling === b.retainHandling
}

/** Counters of subscriptions. */
export interface SubscriptionCounters {
  readonly granted: number
  readonly refused: number
  readonly pending: number
  /** Filters for which the broker refused UNSUBSCRIBE. */
  readonly unsubscribesRefused: number
}

/** How a table of subscriptions behaves, and what it reports. */
export interface SubscriptionRules extends AckRules {
  /** Whether the broker keeps the session of this client when a connection ends. */
  readonly keepsSession: boolean
  /** Delay before refused filters are sent again. */
  readonly retryDelay: DelayRule
  /** Called after a reconnect when every SUBSCRIBE has been sent. */
  readonly onRestored: () => void
  /** Called when a filter is refused, and again only if it was granted in between. */
  readonly onRefused: (error: MqttError) => void
}

/** The error for a filter that the broker refused. */
export function refusal(subscription: string, why: string, reasonCode?: number): MqttError {
  return new MqttError(
    'SUBSCRIBE_REFUSED',
    `the broker refused the subscription "${subscription}": ${why}. Check the access rules of the broker for this user`,
    reasonCode === undefined ? {} : { reasonCode },
  )
}

/** The error for a filter that was removed. */
export function unsubscribedError(subscription: string): MqttError {
  return new MqttError('SUBSCRIBE_REFUSED', `the subscription "${subscription}" was removed`)
}

/** The warning for a Shared Subscription on MQTT 3.1.1: a broker that does not support them delivers nothing. */
export function uncertainShare({ subscription, sharedGroup, levels }: TopicFilter): string {
  return `MQTT 3.1.1 does not define Shared Subscriptions: a broker that does not support them grants "${subscription}" and delivers nothing. Publish to a topic of "${levels.join('/')}" and check that one client of the group "${sharedGroup}" receives it, or use a broker with MQTT 5`
}

/**
 * Explains why the broker cannot serve a filter of this encoded size. Sending a filter that needs a feature which CONNACK
 * ruled out would be a Protocol Error.
 */
function unservedError(filter: TopicFilter, bytes: number, limits: BrokerLimits): MqttError | undefined {
  const isWildcard = filter.levels.some(level => level === '#' || level === '+')
  if (bytes > limits.maximumPacketSize)
    return unserved(
      filter,
      `its SUBSCRIBE packet of ${bytes} bytes is larger than the Maximum Packet Size of the broker, ${limits.maximumPacketSize}`,
      0x95,
    )
  if (filter.sharedGroup !== undefined && !limits.sharedSubscriptionAvailable)
    return unserved(filter, 'the broker does not support Shared Subscriptions', 0x9e)
  if (isWildcard && !limits.wildcardSubscriptionAvailable)
    return unserved(filter, 'the broker does not support wildcard subscriptions', 0xa2)
  return undefined
}

function unserved({ subscription }: TopicFilter, why: string, reasonCode: number): MqttError {
  const hex = `0x${reasonCode.toString(16).toUpperCase()}`
  return new MqttError('SUBSCRIBE_REFUSED', `cannot subscribe to "${subscription}": ${why} (${hex})`, {
    reasonCode,
  })
}

/** Maps Subscription Identifiers to filters (MQTT 5, 3.8.2.1.2). */
export class SubscriptionIdentifiers {
  private readonly filters = new Map<number, TopicFilter>()

  /** Assigns an identifier to a filter: its hash, or the next free one. */
  assign(filter: TopicFilter): number {
    let identifier = hashOf(filter.subscription)
    while (this.filters.has(identifier)) identifier = (identifier % MAX_IDENTIFIER) + 1
    this.filters.set(identifier, filter)
    return identifier
  }

  /** Frees the identifier of a filter that was removed. */
  release(identifier: number): void {
    this.filters.delete(identifier)
  }

  /**
   * Returns the subscriptions for which the broker sent a message, by its Subscription Identifiers (MQTT 5, 3.3.4).
   * Undefined if none is known: a persistent session may hold messages with identifiers of another process, whose
   * handlers are found by the topic. For the same reason each filter must match the topic.
   */
  identify(topic: string, identifiers: number | readonly number[]): string[] | undefined {
    if (typeof identifiers === 'number') {
      const filter = this.filters.get(identifiers)
      if (filter === undefined) return undefined
      const isMatch = filter.subscription === topic || matchesTopicFilter(filter, topic)
      return isMatch ? [filter.subscription] : undefined
    }
    // The parser of `mqtt` returns `false` for a malformed identifier.
    if (!Array.isArray(identifiers)) return undefined
    const named = identifiers
      .map(identifier => this.filters.get(identifier))
      .filter(filter => filter !== undefined && matchesTopicFilter(filter, topic))
      .flatMap(filter => filter?.subscription ?? [])
    return named.length === 0 ? undefined : named
  }
}

/** Largest Subscription Identifier (MQTT 5, 3.8.2.1.2). */
const MAX_IDENTIFIER = 268_435_455

/**
 * The identifier of a filter is its hash (FNV-1a), so that a message that a persistent session stored before a restart of
 * this process still refers to the same filter.
 */
function hashOf(subscription: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(subscription)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0
  return (hash % MAX_IDENTIFIER) + 1
}

/**
 * Other filters that match the topics of a filter, each topic once. Without "#" in the filter they match the topics below
 * these as well.
 */
export interface SeparateFilters {
  /** Empty if there are none. */
  readonly filters: readonly TopicFilter[]
  /** What they match. Its name is that of no subscription, since it is not a valid Topic Filter. */
  readonly all: TopicFilter
}

export function separateFilters({ filter, levels }: TopicFilter): SeparateFilters {
  const isOpenEnded = levels.at(-1) === '#'
  const parent = levels.slice(0, isOpenEnded ? -1 : undefined).join('/')
  const names = separateNames(filter, isOpenEnded, parent)
  const isTooLong = names.some(name => Buffer.byteLength(name) > MAX_TOPIC_BYTES)
  const all = { filter, levels: isOpenEnded ? levels : [...levels, '#'], subscription: `${filter}\0` }
  return { filters: isTooLong ? [] : names.map(parseTopicFilter), all }
}

function separateNames(filter: string, isOpenEnded: boolean, parent: string): string[] {
  if (!isOpenEnded) return [`${filter}/#`]
  if (filter === '#') return ['+/#']
  if (filter === '+/#') return ['#']
  // "/#" has no parent: a Topic Name is not empty.
  return parent === '' ? ['/+/#'] : [parent, `${parent}/+/#`]
}

/** Most filters in one SUBSCRIBE, if they need no Subscription Identifiers. */
const FILTERS_PER_PACKET = 50
/** Longest fixed header, Packet Identifier and Subscription Identifier (MQTT 5, 3.8). */
const SUBSCRIBE_OVERHEAD_BYTES = 14
/** Bytes for the length of a filter and its options. */
const FILTER_OVERHEAD_BYTES = 3

/** Splits filters into packets that the broker accepts. */
export function batches(subscriptions: readonly string[], maximumPacketSize: number): string[][] {
  const all: string[][] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const subscription of subscriptions) {
    const more = Buffer.byteLength(subscription) + FILTER_OVERHEAD_BYTES
    const last = all.at(-1)
    if (last === undefined || last.length === FILTERS_PER_PACKET || bytes + more > maximumPacketSize) {
      all.push([subscription])
      bytes = SUBSCRIBE_OVERHEAD_BYTES + more
    } else {
      last.push(subscription)
      bytes += more
    }
  }
  return all
}

/** Returns the next filters for one packet, and those that the broker cannot serve. */
export function nextBatch<T extends { readonly filter: TopicFilter }>(
  unsent: Iterable<T>,
  limits: BrokerLimits,
): { readonly taken: T[]; readonly unserved: ReadonlyMap<T, MqttError> } {
  // A Subscription Identifier applies to a whole packet.
  const most = limits.subscriptionIdentifiersAvailable ? 1 : FILTERS_PER_PACKET
  const taken: T[] = []
  const unserved = new Map<T, MqttError>()
  let bytes = SUBSCRIBE_OVERHEAD_BYTES
  for (const entry of unsent) {
    const more = Buffer.byteLength(entry.filter.subscription) + FILTER_OVERHEAD_BYTES
    if (taken.length === most || (taken.length > 0 && bytes + more > limits.maximumPacketSize)) break
    const error = unservedError(entry.filter, SUBSCRIBE_OVERHEAD_BYTES + more, limits)
    if (error === undefined) {
      taken.push(entry)
      bytes += more
    } else unserved.set(entry, error)
  }
  return { taken, unserved }
}

/** @param identifier Subscription Identifier, if the broker supports them */
export function subscribePacket(
  messageId: number,
  entries: readonly { readonly filter: TopicFilter; readonly options: SubscriptionOptions }[],
  identifier: number | undefined,
): SubscribePacket {
  return {
    cmd: 'subscribe',
    messageId,
    subscriptions: entries.map(({ filter, options }) => ({
      topic: filter.subscription,
      qos: options.qos,
      // No Local on a Shared Subscription is a Protocol Error [MQTT-3.8.3-4].
      nl: options.noLocal && filter.sharedGroup === undefined,
      rap: options.retainAsPublished ?? true,
      rh: options.retainHandling,
    })),
    ...(identifier === undefined ? {} : { properties: { subscriptionIdentifier: identifier } }),
  }
}

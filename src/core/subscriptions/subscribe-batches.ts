import type { MqttError } from '../errors.js'
import type { BrokerLimits } from '../protocol/broker-limits.js'
import type { SubscribePacket } from '../protocol/packets.js'
import type { TopicFilter } from '../topic/topic-filter.js'
import { type SubscriptionOptions, unservedError } from './subscription-options.js'

/** Filters in one SUBSCRIBE where they need no identifier of their own. */
const FILTERS_PER_PACKET = 50
/** Fixed header, Packet Identifier and Subscription Identifier at their longest (MQTT 5, 3.8). */
const SUBSCRIBE_OVERHEAD_BYTES = 14
/** Length of the filter and its options. */
const FILTER_OVERHEAD_BYTES = 3

/** Filters in packets that the broker takes. */
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

/** The next filters that go into one packet, and those among them that the broker cannot serve. */
export function nextBatch<T extends { readonly filter: TopicFilter }>(
  unsent: Iterable<T>,
  limits: BrokerLimits,
): { readonly taken: T[]; readonly unserved: ReadonlyMap<T, MqttError> } {
  // A Subscription Identifier is for a whole packet.
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

/** @param identifier Subscription Identifier, where the broker takes them */
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
      rap: true,
      rh: options.retainHandling,
    })),
    ...(identifier === undefined ? {} : { properties: { subscriptionIdentifier: identifier } }),
  }
}

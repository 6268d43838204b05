/** Filters in one SUBSCRIBE where they need no identifier of their own. */
export const FILTERS_PER_PACKET = 50
/** Fixed header, Packet Identifier and Subscription Identifier at their longest (MQTT 5, 3.8). */
export const SUBSCRIBE_OVERHEAD_BYTES = 14
/** Length of the filter and its options. */
export const FILTER_OVERHEAD_BYTES = 3

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

import * as v from 'valibot'
import type { StoreLimits } from '../core/outbound/message-store.js'
import { integer, oneOf, parseOptions, strictObject } from './schema.js'

/** The limits of a store. */
export interface StoreOptions {
  /** Number of messages. 1 to 1,000,000,000. @default 1000000 */
  readonly maxMessages?: number
  /**
   * Bytes of all messages. Each counts as the size of its packet plus 150 bytes. 1 or more.
   * @default 67108864
   */
  readonly maxBytes?: number
  /** Age at which a message expires, in milliseconds. 1 or more. @default no limit */
  readonly maxAgeMs?: number
  /**
   * What happens at a limit. `drop-oldest`: the oldest messages are evicted. `drop-newest`: new messages are rejected.
   * @default 'drop-oldest'
   */
  readonly overflow?: 'drop-oldest' | 'drop-newest'
  /** Number of outcomes in the journal. 0 to 1,000,000. @default 10000 */
  readonly maxOutcomes?: number
}

const limits = {
  maxMessages: v.optional(integer(1, 1_000_000_000), 1_000_000),
  maxBytes: v.optional(integer(1, Number.MAX_SAFE_INTEGER), 67_108_864),
  maxAgeMs: v.optional(integer(1, Number.MAX_SAFE_INTEGER)),
  overflow: v.optional(oneOf(['drop-oldest', 'drop-newest']), 'drop-oldest'),
  maxOutcomes: v.optional(integer(0, 1_000_000), 10_000),
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveStoreOptions(owner: string, options: StoreOptions): StoreLimits {
  const { maxAgeMs, ...others } = parseOptions(owner, strictObject(limits), options)
  return { ...others, maxAgeMs }
}

import { MqttError } from '../errors.js'
import type { PublishProperties } from '../protocol/packets.js'
import { weightOf } from './outbound-message.js'

/** A message that a store keeps. */
export interface StoredMessage {
  /** Position in the store. Ascends in the order of `add`, and is never used again, not even after a restart. */
  readonly position: number
  /** Unique id of the message. Receivers recognise a repeat by it. */
  readonly messageId: string
  readonly topic: string
  readonly payload: Uint8Array
  readonly qos: 1 | 2
  readonly retain: boolean
  /** Properties of the PUBLISH packet (MQTT 5, 3.3.2.3). */
  readonly properties?: PublishProperties
  /** Time of the call, in milliseconds since 1970. */
  readonly storedAtMs: number
  /** Time after which it must not be sent, in milliseconds since 1970. @default it does not expire */
  readonly expiresAtMs?: number
}

/** A message to be stored. The store assigns its position. */
export type MessageToStore = Omit<StoredMessage, 'position'>

/**
 * Result of `add`: the position of the message, and when it expires by a limit of the store or by itself; or why the store did
 * not take it.
 */
export type StoreAddition =
  | { readonly position: number; readonly expiresAtMs?: number }
  | { readonly rejected: 'full' }

/** How a stored message ended. */
export type StoredOutcome =
  /** The broker acknowledged it. */
  | { readonly status: 'delivered'; readonly reasonCode: number }
  /** The broker refused it with a Reason Code of 0x80 or above. */
  | { readonly status: 'refused'; readonly reasonCode: number; readonly reasonString?: string }
  /** A limit of the store was reached, and a newer message took its place. */
  | { readonly status: 'evicted' }
  /** Its time limit ended before it could be sent. */
  | { readonly status: 'expired' }
  /** Its record is damaged and cannot be read. The store keeps what is left of it. */
  | { readonly status: 'set-aside' }

/** One line of the journal of outcomes. */
export interface StoredSettlement {
  /** Empty if the record is damaged so that its id cannot be read. */
  readonly messageId: string
  /** Empty if the record is damaged so that its topic cannot be read. */
  readonly topic: string
  /** Time of the call, in milliseconds since 1970. 0 if the record is damaged so that it cannot be read. */
  readonly storedAtMs: number
  /** In milliseconds since 1970. */
  readonly settledAtMs: number
  readonly outcome: StoredOutcome
}

/** A message was stored, a stored message has ended, or a call of the store has failed. */
export type StoreChange =
  /** `bytes`: size of the payload. */
  | {
      readonly type: 'stored'
      readonly messageId: string
      readonly topic: string
      readonly bytes: number
    }
  | { readonly type: 'settled'; readonly settlement: StoredSettlement }
  | { readonly type: 'failed'; readonly error: unknown }

/** What a store contains. */
export interface StoreContents {
  /** Messages that wait to be delivered. */
  readonly messages: number
  /** Their size, as `maxBytes` counts it. */
  readonly bytes: number
  /** How full the store is, from 0 to 1: the greater part of `maxMessages` and `maxBytes`. */
  readonly fullness: number
  /** Time at which the first of them was stored, in milliseconds since 1970. Undefined if there is none. */
  readonly oldestStoredAtMs?: number
  /** Damaged records that were set aside since the store was created. */
  readonly setAside: number
}

/** How many messages `read` returns. */
export interface StoreReadLimit {
  readonly messages: number
  /** Size, as `maxBytes` counts it. The first message is returned even if it is larger. */
  readonly bytes: number
}

/** Selects lines of the journal. */
export interface StoredOutcomeQuery {
  /** @default all messages */
  readonly messageId?: string
  /** 1 or more. @default 1000 */
  readonly limit?: number
}

/** Receives what the store did without a call: evicted, expired and set-aside messages, and repairs. */
export interface StoreListener {
  /**
   * May be called before the `add` of the same message resolves, if the store ends it in the same commit.
   * @param position position of the message in the store, or 0 if its record could not be read
   */
  settled(settlement: StoredSettlement, position: number): void
  /** The store was damaged and has repaired itself. The text is for the log. */
  repaired?(text: string): void
}

/**
 * Keeps messages until the broker has acknowledged them. A store belongs to one client. Calls can be made while others
 * are pending; they take effect in the order of the calls. A call that takes longer than five minutes has failed for the client.
 */
export interface MessageStore {
  /**
   * Opens the store, and migrates and repairs it if necessary.
   * @throws MqttError `STORE_LOCKED`, `STORE_VERSION`, `STORE_CORRUPT` or `STORE_FAILED`
   */
  open(listener: StoreListener): Promise<StoreContents>
  /**
   * Resolves when the message is durable. `rejected: 'full'`: a limit is reached and `overflow` is `drop-newest`, the
   * message alone is larger than the limit, or too many calls wait for the disk.
   * @throws MqttError `STORE_FAILED`: the message was not stored
   */
  add(message: MessageToStore): Promise<StoreAddition>
  /**
   * Returns the next messages in the order of their positions. A record that cannot be read is set aside and skipped.
   * @throws MqttError `STORE_FAILED`
   */
  read(after: number, limit: StoreReadLimit): Promise<readonly StoredMessage[]>
  /**
   * Deletes messages and writes their outcomes to the journal, both or neither. Resolves when that is durable. A position
   * whose message has ended already is ignored.
   * @throws MqttError `STORE_FAILED`: the messages are still stored
   */
  settle(
    settlements: readonly { readonly position: number; readonly outcome: StoredOutcome }[],
  ): Promise<void>
  /**
   * Ends the messages whose `expiresAtMs` is at or before `nowMs`. Returns their number.
   * @throws MqttError `STORE_FAILED`
   */
  expire(nowMs: number): Promise<number>
  /**
   * Returns the outcomes in the journal, the newest first. The journal keeps the last `maxOutcomes`.
   * @throws MqttError `STORE_FAILED`
   */
  outcomes(query?: StoredOutcomeQuery): Promise<readonly StoredSettlement[]>
  /** What is stored now. Reading this property does not access the disk. */
  readonly contents: StoreContents
  /** Completes the pending calls and closes the store, which can then be opened again. Does nothing if it is not open. */
  close(): Promise<void>
}

/** The limits of a store. */
export interface StoreLimits {
  readonly maxMessages: number
  readonly maxBytes: number
  readonly maxAgeMs: number | undefined
  readonly overflow: 'drop-oldest' | 'drop-newest'
  readonly maxOutcomes: number
}

/** Bytes of a record in addition to its message: id, times, checksum and its share of the indexes. */
const RECORD_BYTES = 150

/** Returns the size of a message as `maxBytes` counts it, which is approximately what it takes in a file. */
export function storedBytes(message: MessageToStore): number {
  return RECORD_BYTES + weightOf(message)
}

/** Returns when a message expires: by its own time or by `maxAgeMs`, whichever is earlier. */
export function storedExpiry(
  { storedAtMs, expiresAtMs }: MessageToStore,
  maxAgeMs: number | undefined,
): number | undefined {
  if (maxAgeMs === undefined) return expiresAtMs
  return Math.min(expiresAtMs ?? Number.POSITIVE_INFINITY, storedAtMs + maxAgeMs)
}

type Held = Pick<StoreContents, 'messages' | 'bytes'>

/** Whether a message of this size must be rejected, whatever the store contains or because of it. */
export function isRejected(bytes: number, held: Held, limits: StoreLimits): boolean {
  if (bytes > limits.maxBytes) return true
  return limits.overflow === 'drop-newest' && exceeds(bytes, held, limits)
}

/** Returns how full a store is, from 0 to 1. */
export function fullnessOf({ messages, bytes }: Held, { maxMessages, maxBytes }: StoreLimits): number {
  return Math.min(1, Math.max(messages / maxMessages, bytes / maxBytes))
}

/** Whether the oldest message must go before one of this size is stored. */
export function exceeds(bytes: number, held: Held, limits: StoreLimits): boolean {
  return held.messages > 0 && (held.messages + 1 > limits.maxMessages || held.bytes + bytes > limits.maxBytes)
}

export const NOTHING_STORED: StoreContents = { messages: 0, bytes: 0, fullness: 0, setAside: 0 }
export const MOST_OUTCOMES_READ = 1_000

/** The error of a call to a store that is not open. */
export function storeClosed(name: string): MqttError {
  return new MqttError('STORE_FAILED', `${name} is not open; open it first, and do not use it after close()`)
}

/** The error of a second `open`. */
export function storeOpen(name: string): MqttError {
  return new MqttError('STORE_LOCKED', `${name} is already open; use one store for each client`)
}

import type { MqttError } from '../errors.js'
import type { PublishProperties } from '../protocol/packets.js'
import type { DropReason, PublishOutcome } from './publish-outcome.js'

/** One message on its way to the broker. */
export interface OutboundMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  /** Sent on MQTT 5 only. */
  readonly properties?: PublishProperties
}

/** What a publisher tells the session around it, and asks of it. */
export interface PublishObserver {
  onDropped(reason: DropReason): void
  onRefused(topic: string, reasonCode: number, reasonString: string | undefined): void
  /** Nothing waits to be written. @returns whether the drops so far are over */
  onCaughtUp(): boolean
  /** The broker acknowledges nothing on this connection, which is to be given up. */
  onUnacknowledged(cause: MqttError): void
  /** Whether something else must leave first on a new connection. `flushed` asks again. */
  mustWait(): boolean
}

/**
 * What becomes of a publish that cannot be written now, because the link is down or slower than the data:
 * `drop`: without a connection it is dropped at once; behind, it waits no longer than `maxDelayMs`, and is dropped at
 * once when it would. `latest`: the newest message of each topic waits, also over an outage. `queue`: waits in
 * order, also over an outage, for `maxAgeMs`. `wait`: waits for as long as the caller lets it, by `timeoutMs`
 * or `signal`.
 */
export type WhenBlocked = 'drop' | 'latest' | 'queue' | 'wait'

/** How long, and how, one publish may wait. */
export interface PublishTerms {
  readonly whenBlocked?: WhenBlocked
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** A publish that has not settled. */
export interface Publication {
  readonly message: OutboundMessage
  settle(outcome: PublishOutcome): void
  /** The caller made a mistake. */
  fail(error: unknown): void
  /** Where it waits to be written. */
  waiting?: Waiting | undefined
  /** Where it waits for the acknowledgement. */
  pending?: Pending | undefined
}

/** A publish that waits for its turn, in the buffer. */
export interface Waiting {
  readonly publication: Publication
  readonly bytes: number
  readonly mode: WhenBlocked
  readonly enteredMs: number
  /** It is not written after this. */
  readonly deadlineMs: number
  /** What it is dropped as then. */
  readonly lateReason: 'backlog' | 'expired'
}

/** A QoS 1 or 2 publish that the broker has not acknowledged. */
export interface Pending {
  /** Undefined once it was given up: the broker may respond all the same, and the identifier is in use until then. */
  publication: Publication | undefined
  readonly messageId: number
  readonly message: OutboundMessage
  /** When its Message Expiry Interval is over. */
  readonly expiresMs: number | undefined
  /** When it was written on this connection. */
  sentMs: number
  /** Bytes of this connection that were written when it was. */
  sentBytes: number
  /** QoS 2: PUBREL is what is sent from now on. */
  isReleased: boolean
  /** PUBREL was sent on an earlier connection, too. */
  isReleaseRepeated: boolean
  /** Sent on the present connection. */
  isSent: boolean
  /** Sent on an earlier connection, too: the broker may have it already. */
  isRepeated: boolean
}

/** Why a publish is given up by the one who asked for it. */
export type GivenUp = Extract<DropReason, 'expired' | 'aborted'>

/** What became of the publishes. */
export interface OutboundCounters {
  /** Every call. */
  readonly attempted: number
  /** Those that were not dropped at once: sent, or taken to wait. */
  readonly accepted: number
  readonly sent: number
  readonly acknowledged: number
  readonly refused: number
  readonly lost: number
  /** QoS 1 and 2: written and not answered. */
  readonly inFlight: number
  /** Waiting to be written. */
  readonly queued: number
  readonly queuedBytes: number
  readonly dropped: Readonly<Record<DropReason, number>>
  /** Bytes of the PUBLISH packets that were written. */
  readonly bytes: number
  /** Bytes on the wire that the broker is not known to have read. */
  readonly unconfirmedBytes: number
  /** What the link carries, once it was the limit on this connection. */
  readonly bytesPerSecond: number | undefined
  /** How long a publish of now would take to reach the broker, as far as it is known. */
  readonly delayMs: number
  /** Age of the oldest publish that waits. */
  readonly oldestMs: number
}

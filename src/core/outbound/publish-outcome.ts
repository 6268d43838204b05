/** Why a publish was dropped before it was written. */
export type DropReason =
  /** There was no connection. */
  | 'offline'
  /** The link is slower than the data: the message would have been written after more than `maxDelayMs`. */
  | 'backlog'
  /**
   * For `maxDelayMs`, the number of unacknowledged QoS 1 and 2 publishes was at the limit: `maxInFlight`, or the broker's
   * Receive Maximum.
   */
  | 'in-flight-full'
  /** The limit `maxQueued` or `maxQueuedBytes` was reached. */
  | 'queue-full'
  /** A newer message of the same topic replaced it (`whenBlocked: 'latest'`). */
  | 'superseded'
  /**
   * It waited longer than `maxAgeMs`, its `timeoutMs` or its Message Expiry Interval allows. Or its Message Expiry Interval
   * ended before it could be sent again after an outage; the broker may then have received the first copy.
   */
  | 'expired'
  /** Its `signal` was aborted while it waited. */
  | 'aborted'
  /** The application has closed the connection, or is closing it. */
  | 'closed'
  /** `whenBlocked: 'store'`: the store could not write it, and it could not be sent. */
  | 'store-failed'
  /** `whenBlocked: 'store'`: a limit of the store is reached, or too many messages wait to be written to it. */
  | 'store-full'

/** How a publish ended. Every publish has exactly one outcome. */
export type PublishOutcome =
  /** QoS 0: written to the socket. */
  | { readonly status: 'sent' }
  /** QoS 1 and 2: the broker acknowledged the message. Reason Code 0x10: nobody subscribes to it (MQTT 5, 3.4.2.1). */
  | { readonly status: 'acknowledged'; readonly reasonCode: number }
  /**
   * `whenBlocked: 'store'`: durably in the store, and delivered later, also by a later process. `messageId` is its User Property
   * `message-id`.
   */
  | { readonly status: 'stored'; readonly messageId: string }
  /** Dropped before it was written, or before it was sent again (`expired`). */
  | { readonly status: 'dropped'; readonly reason: DropReason }
  /** The broker refused the message with a Reason Code of 0x80 or above. */
  | { readonly status: 'refused'; readonly reasonCode: number; readonly reasonString?: string }
  /**
   * QoS 1 and 2: written but not acknowledged, because the connection ended and the session was not resumed, or because
   * of its `timeoutMs` or `signal`. The broker may have received the message.
   */
  | { readonly status: 'lost'; readonly cause: Error }

/**
 * Result of `tryPublish`: the message was written or waits, or was dropped at once. If it is dropped later, only the
 * counters show it.
 */
export type TryPublishOutcome =
  | { readonly status: 'accepted' }
  | { readonly status: 'dropped'; readonly reason: DropReason }

export const SENT_OUTCOME: PublishOutcome = { status: 'sent' }
/** Returned for every QoS 0 publish that is written at once. */
export const SENT = Promise.resolve(SENT_OUTCOME)
export const ACCEPTED: TryPublishOutcome = { status: 'accepted' }

/** Counters of publishes. */
export interface OutboundCounters {
  /** All publishes. */
  readonly attempted: number
  /** Publishes that were not dropped at once. */
  readonly accepted: number
  readonly sent: number
  readonly acknowledged: number
  readonly refused: number
  readonly lost: number
  /** Publishes with the outcome `stored`. What becomes of them is counted in `store`. */
  readonly stored: number
  /** Publishes that are being written to the store and are not in flight. */
  readonly storing: number
  /** QoS 1 and 2 publishes that are written and not acknowledged, without those of messages in the store. */
  readonly inFlight: number
  /** Waiting to be written. */
  readonly queued: number
  readonly queuedBytes: number
  readonly dropped: Readonly<Record<DropReason, number>>
  /** Bytes of all written PUBLISH packets. */
  readonly bytes: number
  /** Bytes on the wire that the broker may not have read yet. */
  readonly unconfirmedBytes: number
  /** Rate of the link in bytes per second, once the link has been the limit on this connection. */
  readonly bytesPerSecond: number | undefined
  /** Estimated time until a message published now reaches the broker, in milliseconds. */
  readonly delayMs: number
  /** Age of the oldest waiting publish, in milliseconds. */
  readonly oldestMs: number
}

type CountedOutcomes = Pick<
  OutboundCounters,
  'attempted' | 'accepted' | 'sent' | 'acknowledged' | 'refused' | 'lost' | 'stored' | 'dropped'
>

/** Counts each publish when it starts and when it ends. The numbers are counted in place, without a call. */
export class OutcomeCount {
  /** Publishes that have started, whatever their outcome. */
  begun = 0
  readonly ended = { sent: 0, acknowledged: 0, refused: 0, lost: 0, stored: 0 }
  private rejected = 0
  readonly dropped: Record<DropReason, number> = {
    offline: 0,
    backlog: 0,
    'in-flight-full': 0,
    'queue-full': 0,
    superseded: 0,
    expired: 0,
    aborted: 0,
    closed: 0,
    'store-failed': 0,
    'store-full': 0,
  }

  get outcomes(): CountedOutcomes {
    return {
      attempted: this.begun,
      accepted: this.begun - this.rejected,
      ...this.ended,
      dropped: { ...this.dropped },
    }
  }

  droppedAtOnce(reason: DropReason): void {
    this.begun += 1
    this.rejected += 1
    this.dropped[reason] += 1
  }
}

/**
 * What happens to a publish that cannot be written now, because there is no connection or the link is slower than the data.
 * `drop`: dropped at once without a connection; otherwise it waits for at most `maxDelayMs`, and is dropped at once if it
 * would wait longer. `latest`: the newest message of each topic waits, even during an outage. `queue`: messages wait in order
 * for up to `maxAgeMs`, even during an outage. `wait`: waits until `timeoutMs` or `signal` of the caller. `store`: written to the
 * store of the connection, and sent later, even after a restart; QoS 1 and 2 only.
 */
export type WhenBlocked = 'drop' | 'latest' | 'queue' | 'wait' | 'store'

/** How long publishes wait by default. */
export interface WaitLimits {
  readonly whenBlocked: WhenBlocked
  readonly maxDelayMs: number
  readonly maxAgeMs: number
}

/** What a policy may read from the link. */
interface LinkOutlook {
  /** Time until the broker has read this many more bytes, in milliseconds, as far as it is known. */
  delayMs(bytes: number): number
}

/** One value of `whenBlocked`. */
export interface WhenBlockedPolicy {
  /** How long a publish may wait, in milliseconds. */
  maxWaitMs(limits: WaitLimits): number
  /** Reason for the drop after that time. */
  readonly lateReason: 'backlog' | 'expired'
  /**
   * It keeps waiting during an outage, within `maxQueued` and `maxQueuedBytes`. Otherwise it belongs to the backlog of the
   * current link.
   */
  readonly isKept: boolean
  /** A newer message replaces the earlier one on the same topic. */
  readonly isReplaced: boolean
  /** The oldest one is dropped for a new one, unless `overflow` is `drop-newest`. */
  readonly yields: boolean
  /** The caller must wait for it, so `tryPublish` cannot use it. */
  readonly needsPromise: boolean
  /**
   * Returns why a publish must not wait.
   * @param link undefined without a connection
   * @param bytes bytes that wait, including this publish
   */
  refuses(link: LinkOutlook | undefined, bytes: number, limits: WaitLimits): DropReason | undefined
}

const nothing = (): undefined => undefined

const drop: WhenBlockedPolicy = {
  maxWaitMs: ({ maxDelayMs }) => maxDelayMs,
  lateReason: 'backlog',
  isKept: false,
  isReplaced: false,
  yields: false,
  needsPromise: false,
  refuses: (link, bytes, { maxDelayMs }) => {
    if (link === undefined) return 'offline'
    return link.delayMs(bytes) > maxDelayMs ? 'backlog' : undefined
  },
}

const latest: WhenBlockedPolicy = {
  maxWaitMs: () => Number.POSITIVE_INFINITY,
  lateReason: 'expired',
  isKept: true,
  isReplaced: true,
  yields: false,
  needsPromise: false,
  refuses: nothing,
}

const queue: WhenBlockedPolicy = {
  maxWaitMs: ({ maxAgeMs }) => maxAgeMs,
  lateReason: 'expired',
  isKept: true,
  isReplaced: false,
  yields: true,
  needsPromise: false,
  refuses: nothing,
}

const wait: WhenBlockedPolicy = {
  maxWaitMs: () => Number.POSITIVE_INFINITY,
  lateReason: 'expired',
  isKept: true,
  isReplaced: false,
  yields: false,
  needsPromise: true,
  refuses: nothing,
}

/** For what a client sends by itself, such as requests, if `store` is the default of the connection. */
const store: WhenBlockedPolicy = { ...queue, yields: false, needsPromise: true }

/** A new policy needs one object here, its name in {@link WhenBlocked} and below, and its line in the options. */
export const POLICIES: Readonly<Record<WhenBlocked, WhenBlockedPolicy>> = { drop, latest, queue, wait, store }

/** Every value of `whenBlocked`. */
export const WHEN_BLOCKED = [
  'drop',
  'latest',
  'queue',
  'wait',
  'store',
] as const satisfies readonly WhenBlocked[]

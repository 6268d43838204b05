import type { DropReason } from './publish-outcome.js'

/**
 * What happens to a publish that cannot be written now, because there is no connection or the link is slower than the data.
 * `drop`: dropped at once without a connection; otherwise it waits for at most `maxDelayMs`, and is dropped at once if it
 * would wait longer. `latest`: the newest message of each topic waits, even during an outage. `queue`: messages wait in order
 * for up to `maxAgeMs`, even during an outage. `wait`: waits until `timeoutMs` or `signal` of the caller.
 */
export type WhenBlocked = 'drop' | 'latest' | 'queue' | 'wait'

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
  readonly givesWay: boolean
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
  givesWay: false,
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
  givesWay: false,
  needsPromise: false,
  refuses: nothing,
}

const queue: WhenBlockedPolicy = {
  maxWaitMs: ({ maxAgeMs }) => maxAgeMs,
  lateReason: 'expired',
  isKept: true,
  isReplaced: false,
  givesWay: true,
  needsPromise: false,
  refuses: nothing,
}

const wait: WhenBlockedPolicy = {
  maxWaitMs: () => Number.POSITIVE_INFINITY,
  lateReason: 'expired',
  isKept: true,
  isReplaced: false,
  givesWay: false,
  needsPromise: true,
  refuses: nothing,
}

/** A new policy needs one object here, its name in {@link WhenBlocked} and below, and its line in the options. */
export const POLICIES: Readonly<Record<WhenBlocked, WhenBlockedPolicy>> = { drop, latest, queue, wait }

/** Every value of `whenBlocked`. */
export const WHEN_BLOCKED = ['drop', 'latest', 'queue', 'wait'] as const satisfies readonly WhenBlocked[]

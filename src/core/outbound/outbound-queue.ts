import type { Waiting } from './outbound-message.js'
import type { DropReason } from './publish-outcome.js'

type Displaced = readonly [Waiting, DropReason]

export type Admission =
  /** It waits now, in place of these. */
  | { readonly isAdmitted: true; readonly displaced: readonly Displaced[] }
  | { readonly isAdmitted: false; readonly reason: DropReason }

/** What waits to be written, in order. Messages of QoS 0 may overtake others; the order within each kind is kept. */
export interface OutboundQueue {
  /** How many wait. A field: it is read for every publish. */
  readonly size: number
  readonly bytes: number
  /** When the first of them must not be written any more. */
  readonly nextDeadlineMs: number
  /** Whether a message of this QoS has none before it. */
  isEmpty(qos: 0 | 1 | 2): boolean
  /** @param backlogBytes how much may wait of what is not kept over an outage */
  add(waiting: Waiting, backlogBytes: number): Admission
  /** The next in order; without `mayAcknowledge` the next of QoS 0. */
  next(mayAcknowledge: boolean): Waiting | undefined
  /** @returns whether it was waiting */
  remove(waiting: Waiting): boolean
  /** Takes out all that `picks`. */
  takeAll(picks: (waiting: Waiting) => boolean): Waiting[]
  /** Takes out what must not be written any more. */
  takeLate(nowMs: number): Waiting[]
  /** When the oldest message came in. */
  oldestMs(): number | undefined
}

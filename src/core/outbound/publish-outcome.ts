/** Why a publish was given up before it reached the wire. */
export type DropReason =
  /** There was no connection. */
  | 'offline'
  /** The link does not take bytes as fast as they come: it would have been written later than `maxDelayMs`. */
  | 'backlog'
  /**
   * As many QoS 1 and 2 messages were unacknowledged, all of `maxDelayMs`, as the broker's Receive Maximum or
   * `maxInFlight` allow.
   */
  | 'in-flight-full'
  /** More waits already than `maxQueued` or `maxQueuedBytes` allow. */
  | 'queue-full'
  /** A newer message of the same topic took its place (`whenBlocked: 'latest'`). */
  | 'superseded'
  /**
   * It waited longer than `maxAgeMs`, its Message Expiry Interval or its `timeoutMs` allow. Or its Message Expiry
   * Interval was over before it could be sent again after an outage: the broker may have the first copy then.
   */
  | 'expired'
  /** Its `signal` was aborted while it waited. */
  | 'aborted'
  /** The connection is closing or closed by the application. */
  | 'closed'

/** How a publish ended. Exactly one for every publish. */
export type PublishOutcome =
  /** QoS 0: handed to the socket. */
  | { readonly status: 'sent' }
  /** QoS 1 and 2: the broker acknowledged with success. 0x10 says that nobody subscribes (MQTT 5, 3.4.2.1). */
  | { readonly status: 'acknowledged'; readonly reasonCode: number }
  /** Given up before it was written, or before it was written again (`expired`). */
  | { readonly status: 'dropped'; readonly reason: DropReason }
  /** The broker answered with a Reason Code of 0x80 or above. */
  | { readonly status: 'refused'; readonly reasonCode: number; readonly reasonString?: string }
  /**
   * QoS 1 and 2: written, and the connection ended before the answer and the session was not resumed, or its
   * `timeoutMs` or `signal` came first. The broker may have it or not.
   */
  | { readonly status: 'lost'; readonly cause: Error }

/**
 * What `tryPublish` says at once: written or taken to wait, or dropped. One that is dropped while it waits shows in
 * the counters only.
 */
export type TryPublishOutcome =
  | { readonly status: 'accepted' }
  | { readonly status: 'dropped'; readonly reason: DropReason }

/** Why a publish was given up before it reached the wire. */
export type DropReason =
  /** There was no connection. */
  | 'offline'
  /** The link does not take bytes as fast as they come. */
  | 'backlog'
  /** As many QoS 1 and 2 messages are unacknowledged as the broker's Receive Maximum or the option allow. */
  | 'in-flight-full'
  /** The connection is closing or closed by the application. */
  | 'closed'

/** How a publish ended. Exactly one for every publish. */
export type PublishOutcome =
  /** QoS 0: handed to the socket. */
  | { readonly status: 'sent' }
  /** QoS 1 and 2: the broker acknowledged with success. 0x10 says that nobody subscribes (MQTT 5, 3.4.2.1). */
  | { readonly status: 'acknowledged'; readonly reasonCode: number }
  /** Given up before it was sent; the broker has not seen it. */
  | { readonly status: 'dropped'; readonly reason: DropReason }
  /** The broker answered with a Reason Code of 0x80 or above. */
  | { readonly status: 'refused'; readonly reasonCode: number; readonly reasonString?: string }
  /**
   * QoS 1 and 2: sent, the connection ended before the answer, and the session was not resumed. The broker may
   * have it or not.
   */
  | { readonly status: 'lost'; readonly cause: Error }

/** What `tryPublish` says at once: taken over by the connection, or dropped. */
export type TryPublishOutcome =
  | { readonly status: 'accepted' }
  | { readonly status: 'dropped'; readonly reason: DropReason }

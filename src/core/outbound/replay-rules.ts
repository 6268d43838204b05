import type { PublishProperties } from '../protocol/packets.js'
import type { MessageToStore, StoredOutcome } from './message-store.js'
import type { OutboundMessage } from './outbound-message.js'
import type { PublishOutcome } from './publish-outcome.js'

/** Names of the User Properties of a message that is published with `whenBlocked: 'store'`. */
const MESSAGE_ID = 'message-id'
const STORED_AT = 'stored-at'

const SECOND_MS = 1_000
const UNSPECIFIED_ERROR = 0x80
/** Reason Code after which the broker may accept the same message later. */
const QUOTA_EXCEEDED = 0x97

/** Share of stored messages while other publishes wait for the link: a tenth of all bytes, which is a ninth of the others. */
const FLOOR_OF_OTHERS = 1 / 9
/** Largest number of bytes that stored messages may save for later. */
const MAX_CREDIT_BYTES = 4_096
/** Part of the unacknowledged publishes that stored messages leave to others. */
const RESERVED = 1 / 4

/** Divides the link of one connection between stored messages and other publishes. */
export class ReplayShare {
  private creditBytes = 0
  private knownBytes = 0

  /**
   * The link can carry more.
   * @param writtenBytes bytes of all publishes that were written on this connection
   */
  offered(writtenBytes: number): void {
    const earned = (writtenBytes - this.knownBytes) * FLOOR_OF_OTHERS
    this.creditBytes = Math.min(Math.max(MAX_CREDIT_BYTES, earned), this.creditBytes + earned)
    this.knownBytes = writtenBytes
  }

  /** Whether a stored message may be written now. While other publishes wait for the link, stored ones get a tenth of it. */
  mayWrite(othersWait: boolean): boolean {
    return !othersWait || this.creditBytes > 0
  }

  /** A stored message was written. */
  wrote(othersWait: boolean, writtenBytes: number): void {
    if (othersWait) this.creditBytes -= writtenBytes - this.knownBytes
    this.knownBytes = writtenBytes
  }
}

/** Number of unacknowledged publishes that may be stored messages. @param most the limit for all publishes */
export function replayWindow(most: number): number {
  return Math.max(1, most - Math.ceil(most * RESERVED))
}

/** Number of topics that are remembered. */
const MAX_TOPICS = 10_000

/** Unsent messages in the store, by topic. A later message of the same topic must not overtake them. */
export class StoredTopics {
  private readonly counts = new Map<string, number>()
  /** Messages whose topics are not known, such as those of an earlier process. */
  private unknown = 0

  /** The store was opened with this many messages in it. */
  found(messages: number): void {
    this.unknown += messages
  }

  has(topic: string): boolean {
    return this.unknown > 0 || this.counts.has(topic)
  }

  add(topic: string): void {
    const count = this.counts.get(topic)
    if (count === undefined && this.counts.size >= MAX_TOPICS) this.unknown += 1
    else this.counts.set(topic, (count ?? 0) + 1)
  }

  /** The message was sent, or has ended. Until all unknown ones have, messages of other topics count as waiting too. */
  remove(topic: string): void {
    const count = this.counts.get(topic)
    if (count === undefined) this.unknown = Math.max(0, this.unknown - 1)
    else if (count > 1) this.counts.set(topic, count - 1)
    else this.counts.delete(topic)
  }
}

/** Messages that a store has ended in the commit that stored them, before its `add` has resolved. */
export class EarlyEnds {
  private lastPosition = 0
  private readonly topicOf = new Map<number, string>()

  constructor(private readonly topics: StoredTopics) {}

  /** The store has ended an unsent message. @param isAdding whether messages are being added */
  ended(position: number, topic: string, isAdding: boolean): void {
    if (isAdding && position > this.lastPosition) this.topicOf.set(position, topic)
    else this.topics.remove(topic)
  }

  /** A message was added. @returns whether it has ended already */
  added(position: number, isAdding: boolean): boolean {
    this.lastPosition = position
    const hasEnded = this.topicOf.delete(position)
    // Those that are not being added were in the store before.
    for (const [other, topic] of this.topicOf) {
      if (other > position && isAdding) break
      this.topicOf.delete(other)
      this.topics.remove(topic)
    }
    return hasEnded
  }
}

const LONGEST_PAUSE_MS = 60_000
/** Refusals after which a message is given up, if the broker accepts others. */
const MOST_REFUSALS = 10
/** Refusals after which it is given up even if the broker accepts none. */
const MOST_REFUSALS_OF_ALL = 100
/** Connections without an acknowledgement after which the first message is sent alone. */
const SUSPICIOUS_ENDINGS = 3
/** Connections that end while it is sent alone, after which it is given up. */
const MOST_ENDINGS = 10

/** What happens after the broker refused a message for now. */
export type AfterRefusal =
  | { readonly isGivenUp: true }
  | { readonly isGivenUp: false; readonly pauseMs: number }

/** Decides how long a message that the broker does not accept may hold up the messages after it. */
export class Obstacles {
  private position: number | undefined
  private refusals = 0
  private othersAccepted = false
  private endings = 0
  private endingsAlone = 0

  /** The first message is sent alone, after the connection has proved that it works. */
  get sendsAlone(): boolean {
    return this.endings >= SUSPICIOUS_ENDINGS
  }

  /** The broker refused a message for now (`isForNow`). */
  refused(position: number): AfterRefusal {
    if (this.position !== position) {
      this.position = position
      this.refusals = 0
      this.othersAccepted = false
    }
    this.refusals += 1
    const most = this.othersAccepted ? MOST_REFUSALS : MOST_REFUSALS_OF_ALL
    if (this.refusals >= most) return { isGivenUp: true }
    return { isGivenUp: false, pauseMs: Math.min(LONGEST_PAUSE_MS, SECOND_MS * 2 ** (this.refusals - 1)) }
  }

  /** The broker acknowledged a stored message. */
  accepted(position: number): void {
    if (position !== this.position) this.othersAccepted = true
    this.endings = 0
    this.endingsAlone = 0
  }

  /**
   * A connection ended while stored messages were unacknowledged, and none was acknowledged on it.
   * @returns whether the first of them is given up
   */
  connectionEnded(wasAlone: boolean): boolean {
    this.endings += 1
    if (wasAlone) this.endingsAlone += 1
    if (this.endingsAlone < MOST_ENDINGS) return false
    this.endings = 0
    this.endingsAlone = 0
    return true
  }
}

/** Outcome of a message that is given up because connections end while it is sent. */
export const ENDS_CONNECTIONS: StoredOutcome = {
  status: 'refused',
  reasonCode: UNSPECIFIED_ERROR,
  reasonString: `${MOST_ENDINGS} connections ended before the broker acknowledged this message`,
}

/** Whether the broker may accept the message later. */
export function isForNow(outcome: PublishOutcome): boolean {
  return outcome.status === 'refused' && outcome.reasonCode === QUOTA_EXCEEDED
}

/** Returns how a stored message has ended, or undefined if it must be sent again. */
export function storedOutcomeOf(outcome: PublishOutcome): StoredOutcome | undefined {
  switch (outcome.status) {
    case 'acknowledged':
      return { status: 'delivered', reasonCode: outcome.reasonCode }
    case 'refused':
      return outcome
    case 'dropped':
      return outcome.reason === 'expired' ? { status: 'expired' } : undefined
    default:
      return undefined
  }
}

/**
 * Returns the message with the User Properties by which receivers see its age and recognise repeats. A `message-id` of the
 * caller is kept.
 * @param storedAt time of the call, in ISO 8601
 */
export function identified<M extends OutboundMessage>(
  message: M,
  messageId: string,
  storedAt: string,
): { readonly message: M; readonly messageId: string } {
  const { properties } = message
  const own = properties?.userProperties?.[MESSAGE_ID]
  const id = typeof own === 'string' && own !== '' ? own : messageId
  const userProperties = {
    ...properties?.userProperties,
    [MESSAGE_ID]: id,
    [STORED_AT]: storedAt,
  }
  return { message: { ...message, properties: { ...properties, userProperties } }, messageId: id }
}

/** Returns the time at which the Message Expiry Interval of a message ends. */
export function expiresAtMs(properties: PublishProperties | undefined, nowMs: number): number | undefined {
  const seconds = properties?.messageExpiryInterval
  return seconds === undefined ? undefined : nowMs + seconds * SECOND_MS
}

/** Returns a stored message as it is sent now, with the remaining Message Expiry Interval (MQTT 5, 3.3.2.3.3). */
export function messageToSend(stored: MessageToStore, nowMs: number): OutboundMessage {
  const { topic, qos, retain, properties, storedAtMs } = stored
  const { buffer, byteOffset, byteLength } = stored.payload
  const payload = Buffer.from(buffer, byteOffset, byteLength)
  if (properties === undefined) return { topic, payload, qos, retain }
  const { messageExpiryInterval } = properties
  if (messageExpiryInterval === undefined) return { topic, payload, qos, retain, properties }
  // The clock may have been set back.
  const waitedSeconds = Math.max(0, Math.floor((nowMs - storedAtMs) / SECOND_MS))
  const left = Math.max(Math.min(1, messageExpiryInterval), messageExpiryInterval - waitedSeconds)
  return { topic, payload, qos, retain, properties: { ...properties, messageExpiryInterval: left } }
}

/** How a stored message has ended, for a log line. */
export const ENDED: Readonly<Record<StoredOutcome['status'], string>> = {
  evicted: 'was removed, because a limit of the store is reached',
  expired: 'was removed, because it waited longer than allowed',
  'set-aside': 'was set aside, because its record is damaged',
  delivered: 'was delivered',
  refused: 'was refused by the broker',
}

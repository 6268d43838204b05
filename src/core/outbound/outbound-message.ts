import { describeCause, MqttError } from '../errors.js'
import type { BrokerLimits, PublishProperties } from '../protocol/packets.js'
import {
  type DropReason,
  POLICIES,
  type PublishOutcome,
  type WaitLimits,
  type WhenBlocked,
} from './publish-outcome.js'

/** A message to be sent to the broker. */
export interface OutboundMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  /** Sent on MQTT 5 only. */
  readonly properties?: PublishProperties
}

/** How, and how long, one publish may wait. */
export interface PublishTerms {
  readonly whenBlocked?: WhenBlocked
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** Receives the outcome of a publish. */
export type Settle = (outcome: PublishOutcome) => void

const nobody = (): void => {}

/** Receives the outcome of a message of the store, which is not counted as a publish. */
export interface Keeper {
  ended(outcome: PublishOutcome): void
}

/** A publish that has not settled. A single object from the call to the outcome. */
export class Publication {
  /** Settles the promise of the caller. Does nothing for a publish without one. */
  resolve: Settle
  /** Removes its timer and its listener, if it has `timeoutMs` or a `signal`. */
  stopWatch: (() => void) | undefined
  /** Receives the outcome of a message of the store. */
  keeper: Keeper | undefined
  /** Its outcome is decided. The broker may still acknowledge it, and its Packet Identifier is in use until then. */
  isSettled: boolean

  isWaiting: boolean
  mode: WhenBlocked
  /** Bytes of the message in memory. */
  bytes: number
  /** Time at which it started to wait. */
  enteredMs: number
  /** Time after which it must not be written for the first time. */
  deadlineMs: number
  /** Reason for the drop if it waits any longer. */
  lateReason: 'backlog' | 'expired'
  /** Its position in the buffer. */
  order: number
  before: Publication | undefined
  after: Publication | undefined

  /** Packet Identifier; 0 before it is written at QoS 1 or 2. */
  messageId: number
  /** Time at which it was written on this connection. */
  sentMs: number
  /** Time at which its Message Expiry Interval ends. It is not resent after that. */
  expiresMs: number
  /** Number of bytes written on this connection up to this publish. */
  sentBytes: number
  /** Sent on the current connection. */
  isSent: boolean
  /** Also sent on an earlier connection, so that the broker may have it already. */
  isRepeated: boolean
  /** QoS 2: the next packet to send is PUBREL. */
  isReleased: boolean
  /** PUBREL was also sent on an earlier connection. */
  isReleaseRepeated: boolean

  constructor(
    readonly message: OutboundMessage,
    resolve: Settle = nobody,
  ) {
    this.resolve = resolve
    this.stopWatch = undefined
    this.keeper = undefined
    this.isSettled = false
    this.isWaiting = false
    this.mode = 'drop'
    this.bytes = 0
    this.enteredMs = 0
    this.deadlineMs = Number.POSITIVE_INFINITY
    this.lateReason = 'expired'
    this.order = 0
    this.before = undefined
    this.after = undefined
    this.messageId = 0
    this.sentMs = 0
    this.expiresMs = Number.POSITIVE_INFINITY
    this.sentBytes = 0
    this.isSent = false
    this.isRepeated = false
    this.isReleased = false
    this.isReleaseRepeated = false
  }
}

/** Why the caller ended a publish. */
export type GivenUp = Extract<DropReason, 'expired' | 'aborted'>

const SECOND_MS = 1_000
const FIXED_BYTES = 8

/** Returns how a publish waits, and until when. */
export function beginWait(
  publication: Publication,
  mode: WhenBlocked,
  limits: WaitLimits,
  nowMs: number,
): void {
  const { message } = publication
  const policy = POLICIES[mode]
  const ownMs = nowMs + policy.maxWaitMs(limits)
  const expiresMs = expiryMs(message, nowMs)
  publication.mode = mode
  publication.bytes = weightOf(message)
  publication.enteredMs = nowMs
  publication.deadlineMs = Math.min(ownMs, expiresMs)
  publication.lateReason = ownMs <= expiresMs ? policy.lateReason : 'expired'
}

/** Returns the message as it is written after its wait, with the remaining Message Expiry Interval (MQTT 5, 3.3.2.3.3). */
export function messageAt({ message, enteredMs }: Publication, nowMs: number): OutboundMessage {
  const messageExpiryInterval = message.properties?.messageExpiryInterval
  if (messageExpiryInterval === undefined) return message
  const waitedSeconds = Math.floor((nowMs - enteredMs) / SECOND_MS)
  return waitedSeconds === 0
    ? message
    : withExpiry(message, Math.max(1, messageExpiryInterval - waitedSeconds))
}

/** Returns the message as it is resent after an outage. */
export function messageLeft({ message, expiresMs }: Publication, nowMs: number): OutboundMessage {
  if (expiresMs === Number.POSITIVE_INFINITY) return message
  return withExpiry(message, Math.ceil((expiresMs - nowMs) / SECOND_MS))
}

function withExpiry(message: OutboundMessage, messageExpiryInterval: number): OutboundMessage {
  return { ...message, properties: { ...message.properties, messageExpiryInterval } }
}

/** Returns the time at which the Message Expiry Interval of a message that is written now ends. */
export function expiryMs({ properties }: OutboundMessage, nowMs: number): number {
  const seconds = properties?.messageExpiryInterval
  return seconds === undefined ? Number.POSITIVE_INFINITY : nowMs + seconds * SECOND_MS
}

type WeighedMessage = Pick<OutboundMessage, 'topic' | 'properties'> & { readonly payload: Uint8Array }

/** Bytes of a message in memory, which is approximately the size of its packet. */
export function weightOf({ topic, payload, properties }: WeighedMessage): number {
  const bytes = FIXED_BYTES + topic.length + payload.length
  return properties === undefined ? bytes : bytes + weightOfValue(properties)
}

function weightOfValue(value: unknown): number {
  if (typeof value === 'string' || value instanceof Uint8Array) return value.length
  if (typeof value !== 'object' || value === null) return FIXED_BYTES
  let bytes = 0
  for (const [name, part] of Object.entries(value)) bytes += name.length + weightOfValue(part)
  return bytes
}

const UNSPECIFIED_ERROR = 0x80

export interface MeasuredPublish {
  readonly topic: string
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly bytes: number
}

/**
 * Checks a publish against the limits that the broker sent in CONNACK (MQTT 5, 3.2.2.3).
 * @throws MqttError `QOS_NOT_SUPPORTED`, `RETAIN_NOT_SUPPORTED` or `PACKET_TOO_LARGE`, with the Reason Code that the broker
 * would send
 */
export function assertWithinLimits(publish: MeasuredPublish, limits: BrokerLimits): void {
  const { topic, qos, retain, bytes } = publish
  if (qos > limits.maximumQoS) {
    const text = `QoS ${qos} for "${topic}": the broker supports at most QoS ${limits.maximumQoS}`
    throw new MqttError('QOS_NOT_SUPPORTED', text, { reasonCode: 0x9b })
  }
  if (retain && !limits.retainAvailable) {
    const text = `retain for "${topic}": the broker does not support retained messages`
    throw new MqttError('RETAIN_NOT_SUPPORTED', text, { reasonCode: 0x9a })
  }
  if (bytes > limits.maximumPacketSize) {
    const text = `the packet for "${topic}" has ${bytes} bytes; the broker accepts at most ${limits.maximumPacketSize}`
    throw new MqttError('PACKET_TOO_LARGE', text, { reasonCode: 0x95 })
  }
}

/** Whether the broker has no limits, so that no publish has to be checked. */
export function isUnlimited({ maximumQoS, retainAvailable, maximumPacketSize }: BrokerLimits): boolean {
  return maximumQoS === 2 && retainAvailable && !Number.isFinite(maximumPacketSize)
}

interface Measuring {
  readonly limits: BrokerLimits
  sizeOf(message: OutboundMessage): number
}

/** @throws MqttError the same as `assertWithinLimits`, and if the packet cannot be encoded */
export function assertTaken(message: OutboundMessage, link: Measuring): void {
  const { topic, qos, retain } = message
  const { limits } = link
  const isBounded = Number.isFinite(limits.maximumPacketSize)
  if (qos === 0 && !retain && !isBounded) return
  assertWithinLimits({ topic, qos, retain, bytes: isBounded ? link.sizeOf(message) : 0 }, limits)
}

/**
 * Returns why this connection does not accept a publish that was accepted by an earlier one, or before the limits were
 * known.
 */
export function excessOf(message: OutboundMessage, link: Measuring): MqttError | undefined {
  try {
    assertTaken(message, link)
    return undefined
  } catch (error) {
    if (error instanceof MqttError) return error
    throw error
  }
}

/** Returns the outcome of a publish that waited, and that this connection does not accept or that cannot be encoded. */
export function refusalOf(error: unknown): Extract<PublishOutcome, { status: 'refused' }> {
  const { reasonCode = UNSPECIFIED_ERROR } = error instanceof MqttError ? error : {}
  return { status: 'refused', reasonCode, reasonString: describeCause(error) }
}

/**
 * Publishes in order of arrival. A linked list, so that the cost of an operation does not depend on the number of
 * publishes.
 */
export class Lane {
  first: Publication | undefined = undefined
  private last: Publication | undefined = undefined

  add(publication: Publication): void {
    const { last } = this
    publication.before = last
    if (last === undefined) this.first = publication
    else last.after = publication
    this.last = publication
  }

  remove(publication: Publication): void {
    const { before, after } = publication
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.last = before
    else after.before = before
    publication.before = undefined
    publication.after = undefined
  }

  /** The newer publish takes the position of the older one. */
  replace(older: Publication, newer: Publication): void {
    const { before, after } = older
    newer.before = before
    newer.after = after
    if (before === undefined) this.first = newer
    else before.after = newer
    if (after === undefined) this.last = newer
    else after.before = newer
    older.before = undefined
    older.after = undefined
  }
}

/** Adds User Properties to a message. An added one takes precedence. */
export function withUserProperties<M extends OutboundMessage>(
  message: M,
  added: Readonly<Record<string, string>>,
): M {
  const { properties } = message
  return {
    ...message,
    properties: { ...properties, userProperties: { ...properties?.userProperties, ...added } },
  }
}

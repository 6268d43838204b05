import { MqttError } from '../errors.js'
import type { Unacknowledged } from '../protocol/oldest-wait.js'
import type { OutboundMessage, Publication } from './outbound-message.js'

const PACKET_IDENTIFIER_NOT_FOUND = 0x92
const UNSPECIFIED_ERROR = 0x80
const SECOND_MS = 1_000

/** A QoS 1 or 2 publish that the broker has not acknowledged. */
export interface Pending extends Unacknowledged {
  /** Undefined once it was given up: the broker may answer all the same, and the identifier is in use until then. */
  publication: Publication | undefined
  readonly messageId: number
  readonly message: OutboundMessage
  /** When its Message Expiry Interval is over. */
  readonly expiresMs: number | undefined
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

export function expiresMs({ properties }: OutboundMessage, nowMs: number): number | undefined {
  const seconds = properties?.messageExpiryInterval
  return seconds === undefined ? undefined : nowMs + seconds * SECOND_MS
}

/** The message with what is left of its lifetime (MQTT 5, 3.3.2.3.3). */
export function messageLeft({ message, expiresMs }: Pending, nowMs: number): OutboundMessage {
  if (expiresMs === undefined) return message
  const messageExpiryInterval = Math.ceil((expiresMs - nowMs) / SECOND_MS)
  return { ...message, properties: { ...message.properties, messageExpiryInterval } }
}

export function unacknowledged(oldest: Pending, timeoutMs: number, count: number): MqttError {
  const { message, isReleased } = oldest
  const missing = message.qos === 1 ? 'PUBACK' : isReleased ? 'PUBCOMP' : 'PUBREC'
  const text = `the broker sent no ${missing} for the publish to "${message.topic}" within ${timeoutMs} ms; ${count} publishes are unacknowledged`
  return new MqttError('TIMEOUT', text, { reasonCode: UNSPECIFIED_ERROR })
}

/** The response to the PUBREL of an earlier connection was lost: 0x92 is no error then (MQTT 5, 3.7.2.1). */
export function pubcompCode(
  packet: { readonly reasonCode?: number },
  { isReleaseRepeated }: Pending,
): number {
  const reasonCode = packet.reasonCode ?? 0
  return isReleaseRepeated && reasonCode === PACKET_IDENTIFIER_NOT_FOUND ? 0 : reasonCode
}

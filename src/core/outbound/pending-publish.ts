import { MqttError } from '../errors.js'
import { PACKET_IDENTIFIER_NOT_FOUND } from '../protocol/packets.js'
import type { OutboundMessage, Pending } from './outbound-message.js'

const UNSPECIFIED_ERROR = 0x80
export const SECOND_MS = 1_000

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

import { describeCause, MqttError } from '../../core/errors.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-options.js'
import { type Codec, decodePayload } from '../../options/codec.js'
import type { PublishPacket } from '../connection/link.js'

/** User Property that says what a response is; without it, it is the one answer. */
export const STATUS = 'status'

export type Response =
  | { readonly kind: 'value'; readonly value: unknown; readonly isOnly: boolean }
  | { readonly kind: 'end' }
  | { readonly kind: 'cancel' }
  | { readonly kind: 'renew' }
  | { readonly kind: 'error'; readonly error: MqttError }

/** How a topic of responses is subscribed: a response that is retained was for somebody else. */
export function responseSubscription(qos: 0 | 1): SubscriptionOptions {
  return { qos, noLocal: false, retainHandling: 2 }
}

/** What a message on the private response topic says (MQTT 5, 4.10). */
export function readResponse(packet: PublishPacket, codec: Codec): Response {
  const status = packet.properties?.userProperties?.[STATUS]
  if (status === 'end' || status === 'cancel' || status === 'renew') return { kind: status }
  const payload = Buffer.from(packet.payload)
  try {
    const value = decodePayload(codec, packet.topic, payload, packet.properties?.contentType)
    if (status === 'error') return { kind: 'error', error: responderError(value) }
    return { kind: 'value', value, isOnly: status !== 'next' }
  } catch (error) {
    const failure =
      error instanceof MqttError ? error : new MqttError('PAYLOAD_NOT_DECODABLE', describeCause(error))
    return { kind: 'error', error: failure }
  }
}

/** An error that a responder sent: its text, and the whole of it as `response`. */
export function responderError(value: unknown): MqttError {
  return new MqttError('REQUEST_FAILED', textOf(value), { response: value })
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'object' && value !== null && 'message' in value) return String(value.message)
  return 'the responder failed'
}

import type { Codec } from '../../codec.js'
import type { OutboundMessage } from '../outbound/outbound-message.js'
import type { RequestTerms } from './open-requests.js'

/** How the responder is asked: as MQTT 5 has it, or with the envelope of Nest's built-in transport. */
export type RequestProtocol = 'mqtt5' | 'nest'

export interface OutgoingRequest extends OutboundMessage {
  /** What the payload is made of, for the envelope. */
  readonly data: unknown
  /** What the envelope has for a pattern. @default the topic */
  readonly pattern?: unknown
  /** What the envelope carries beside the data; on MQTT 5 it is in the User Properties. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

export interface RequestPlan extends RequestTerms {
  readonly protocol: RequestProtocol
  readonly codec: Codec
}

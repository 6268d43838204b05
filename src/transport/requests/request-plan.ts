import type { Codec } from '../../codec.js'
import type { OutboundMessage } from '../outbound/outbound-message.js'
import type { RequestTerms } from './open-requests.js'

/** How the responder is asked: as MQTT 5 has it, or with the envelope of Nest's built-in transport. */
export type RequestProtocol = 'mqtt5' | 'nest'

export interface OutgoingRequest extends OutboundMessage {
  /** What the payload is made of, for the envelope. */
  readonly data: unknown
}

export interface RequestPlan extends RequestTerms {
  readonly protocol: RequestProtocol
  /** Several answers may come. */
  readonly isStream: boolean
  readonly codec: Codec
}

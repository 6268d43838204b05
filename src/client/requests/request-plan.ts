import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import type { RequestProtocol } from '../../core/requests/reply-target.js'
import type { Codec } from '../../options/codec.js'
import type { RequestTerms } from './open-requests.js'

export type { RequestProtocol }

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

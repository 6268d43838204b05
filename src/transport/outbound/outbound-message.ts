import type { DropReason } from '../../publish-outcome.js'
import type { PublishProperties } from '../connection/link.js'

/** One message on its way to the broker. */
export interface OutboundMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  /** Sent on MQTT 5 only. */
  readonly properties?: PublishProperties
}

/** What became of the publishes. */
export interface OutboundCounters {
  readonly attempted: number
  readonly sent: number
  readonly acknowledged: number
  readonly refused: number
  readonly lost: number
  readonly inFlight: number
  readonly dropped: Readonly<Record<DropReason, number>>
}

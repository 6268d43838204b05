import { MqttError } from '../../errors.js'
import type { DropReason } from '../../publish-outcome.js'
import type { BrokerLimits } from '../connection/broker-limits.js'

/** What decides whether a publish may go out now. */
export interface OutboundSituation {
  readonly isClosing: boolean
  readonly isConnected: boolean
  /** Bytes wait that the network has not taken. */
  readonly isCongested: boolean
  readonly inFlight: number
  readonly maxInFlight: number
}

/** Why a publish must be dropped now, or undefined when it may go. */
export function dropReason(situation: OutboundSituation, qos: 0 | 1 | 2): DropReason | undefined {
  if (situation.isClosing) return 'closed'
  if (!situation.isConnected) return 'offline'
  if (situation.isCongested) return 'backlog'
  if (qos > 0 && situation.inFlight >= situation.maxInFlight) return 'in-flight-full'
  return undefined
}

export interface MeasuredPublish {
  readonly topic: string
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly bytes: number
}

/**
 * Checks a publish against what the broker said it takes (MQTT 5, 3.2.2.3).
 * @throws MqttError `QOS_NOT_SUPPORTED`, `RETAIN_NOT_SUPPORTED` or `PACKET_TOO_LARGE`
 */
export function assertWithinLimits(publish: MeasuredPublish, limits: BrokerLimits): void {
  const { topic, qos, retain, bytes } = publish
  if (qos > limits.maximumQoS) {
    throw new MqttError(
      'QOS_NOT_SUPPORTED',
      `QoS ${qos} for "${topic}": the broker takes at most QoS ${limits.maximumQoS}`,
    )
  }
  if (retain && !limits.retainAvailable) {
    throw new MqttError(
      'RETAIN_NOT_SUPPORTED',
      `retain for "${topic}": the broker keeps no retained messages`,
    )
  }
  if (bytes > limits.maximumPacketSize) {
    throw new MqttError(
      'PACKET_TOO_LARGE',
      `the packet for "${topic}" has ${bytes} bytes; the broker takes at most ${limits.maximumPacketSize}`,
    )
  }
}

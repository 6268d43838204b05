import { describeCause, MqttError } from '../errors.js'
import type { BrokerLimits } from '../protocol/packets.js'
import type { OutboundMessage } from './outbound-message.js'
import type { PublishOutcome } from './publish-outcome.js'

const UNSPECIFIED_ERROR = 0x80

export interface MeasuredPublish {
  readonly topic: string
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly bytes: number
}

/**
 * Checks a publish against what the broker said it takes (MQTT 5, 3.2.2.3).
 * @throws MqttError `QOS_NOT_SUPPORTED`, `RETAIN_NOT_SUPPORTED` or `PACKET_TOO_LARGE`, with the Reason Code that the
 * broker would answer
 */
export function assertWithinLimits(publish: MeasuredPublish, limits: BrokerLimits): void {
  const { topic, qos, retain, bytes } = publish
  if (qos > limits.maximumQoS) {
    const text = `QoS ${qos} for "${topic}": the broker takes at most QoS ${limits.maximumQoS}`
    throw new MqttError('QOS_NOT_SUPPORTED', text, { reasonCode: 0x9b })
  }
  if (retain && !limits.retainAvailable) {
    const text = `retain for "${topic}": the broker keeps no retained messages`
    throw new MqttError('RETAIN_NOT_SUPPORTED', text, { reasonCode: 0x9a })
  }
  if (bytes > limits.maximumPacketSize) {
    const text = `the packet for "${topic}" has ${bytes} bytes; the broker takes at most ${limits.maximumPacketSize}`
    throw new MqttError('PACKET_TOO_LARGE', text, { reasonCode: 0x95 })
  }
}

/** Whether this broker takes everything, so that no publish has to be checked. */
export function isUnlimited({ maximumQoS, retainAvailable, maximumPacketSize }: BrokerLimits): boolean {
  return maximumQoS === 2 && retainAvailable && !Number.isFinite(maximumPacketSize)
}

interface Measuring {
  readonly limits: BrokerLimits
  sizeOf(message: OutboundMessage): number
}

/** @throws MqttError as `assertWithinLimits` does, and when the packet cannot be encoded */
export function assertTaken(message: OutboundMessage, link: Measuring): void {
  const { topic, qos, retain } = message
  const { limits } = link
  const isBounded = Number.isFinite(limits.maximumPacketSize)
  if (qos === 0 && !retain && !isBounded) return
  assertWithinLimits({ topic, qos, retain, bytes: isBounded ? link.sizeOf(message) : 0 }, limits)
}

/** Why this connection does not take what an earlier one did, or what nobody could know when it began to wait. */
export function excessOf(message: OutboundMessage, link: Measuring): MqttError | undefined {
  try {
    assertTaken(message, link)
    return undefined
  } catch (error) {
    if (error instanceof MqttError) return error
    throw error
  }
}

/** The same for a publish that waited: nobody knew of the limits of this connection when its wait began. */
export function refusalOf(error: unknown): PublishOutcome {
  const { reasonCode = UNSPECIFIED_ERROR } = error instanceof MqttError ? error : {}
  return { status: 'refused', reasonCode, reasonString: describeCause(error) }
}

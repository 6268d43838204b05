import { isUtf8 } from 'node:buffer'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import { NO_MATCHING_SUBSCRIBERS } from '../../core/connection/reconnect-rules.js'
import { isMqttError, MqttError } from '../../core/errors.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import type { PublishProperties } from '../connection/link.js'
import type { Hook, Notice } from '../events.js'
import { Pauses } from '../waits.js'
import type { DeadLetter } from './delivery.js'

export interface DeadLetterRules {
  readonly publish: (message: DeadLetterPublish) => Promise<PublishOutcome>
  readonly version: () => ProtocolVersion
  /** Limits of the broker. */
  readonly maximumQoS: () => 0 | 1 | 2
  readonly notice: Hook<Notice>
}

const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 30_000
/** Time limit for a QoS 0 message: the broker does not store it, and its handler must become free again. */
const QOS_0_ATTEMPTS = 3

/** Publishes dead letters until the broker has accepted them. */
export class DeadLetters {
  private readonly pauses = new Pauses()
  private isStopped = false
  private readonly downgraded = new Set<string>()

  constructor(private readonly rules: DeadLetterRules) {}

  /** @throws MqttError if the dead letter cannot be published any more. The original then stays unacknowledged. */
  async publish(letter: DeadLetter): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const message = deadLetterMessage(letter, this.rules.version(), Date.now())
      const why = await this.attempt({ ...message, qos: this.qosFor(letter.topic) })
      if (why === undefined) return
      this.rules.notice.emit({ type: 'dead-letter-refused', topic: letter.topic, why })
      const isPermanent = this.isStopped || (letter.packet.qos === 0 && attempt >= QOS_0_ATTEMPTS)
      if (isPermanent) throw new MqttError('CONNECTION_CLOSED', `no dead letter could be published: ${why}`)
      await this.pauses.wait(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (attempt - 1)))
    }
  }

  /** The application is closing: nothing is retried. */
  stop(): void {
    this.isStopped = true
    this.pauses.end()
  }

  /** A dead letter that may be lost is better than one that is never sent. */
  private qosFor(topic: string): 0 | 1 {
    if (this.rules.maximumQoS() > 0) return 1
    if (!this.downgraded.has(topic)) this.rules.notice.emit({ type: 'dead-letters-downgraded', topic })
    this.downgraded.add(topic)
    return 0
  }

  /** @returns why the broker has not accepted it */
  private async attempt(message: DeadLetterPublish): Promise<string | undefined> {
    try {
      const outcome = await this.rules.publish(message)
      if (outcome.status === 'acknowledged') {
        if (outcome.reasonCode === NO_MATCHING_SUBSCRIBERS)
          this.rules.notice.emit({ type: 'dead-letter-without-subscriber', topic: message.topic })
        return undefined
      }
      if (outcome.status === 'sent') return undefined
      if (outcome.status === 'refused')
        return `the broker refused it with Reason Code 0x${outcome.reasonCode.toString(16)}`
      return outcome.status === 'dropped' ? `dropped: ${outcome.reason}` : outcome.status
    } catch (error) {
      // A retry would not make it smaller.
      if (isMqttError(error, 'PACKET_TOO_LARGE')) throw error
      return error instanceof Error ? error.message : String(error)
    }
  }
}

const MAX_REASON_LENGTH = 1_024
/** A broker may end the connection for these in a UTF-8 Encoded String (MQTT 5, 1.5.4), and Mosquitto does. */
const NOT_IN_MQTT = /[\p{Cc}\p{Noncharacter_Code_Point}]/gu

/** A dead letter to be published. */
export interface DeadLetterPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1
  readonly retain: false
  readonly properties?: PublishProperties
}

/**
 * Creates the dead letter of a message that no handler could handle. MQTT 5: the original payload and properties, and
 * details of the failure in User Properties. MQTT 3.1.1: JSON with all of it.
 */
export function deadLetterMessage(
  letter: DeadLetter,
  version: ProtocolVersion,
  timeMs: number,
): DeadLetterPublish {
  const base = { topic: letter.topic, qos: 1, retain: false } as const
  if (version === 5) return { ...base, payload: payloadOf(letter), properties: propertiesOf(letter, timeMs) }
  return { ...base, payload: Buffer.from(JSON.stringify(envelopeOf(letter, timeMs))) }
}

function payloadOf({ packet: { payload } }: DeadLetter): Buffer {
  return Buffer.isBuffer(payload) ? payload : Buffer.from(payload)
}

function facts({ packet, pattern, reason, attempts }: DeadLetter, timeMs: number) {
  return {
    topic: packet.topic,
    pattern,
    reason: reason.slice(0, MAX_REASON_LENGTH).toWellFormed().replace(NOT_IN_MQTT, ' '),
    attempts,
    time: new Date(timeMs).toISOString(),
  }
}

function propertiesOf(letter: DeadLetter, timeMs: number): PublishProperties {
  // Topic Alias and Subscription Identifier belong to the connection, and the expiry of the message must not apply to its
  // dead letter.
  const {
    topicAlias: _alias,
    subscriptionIdentifier: _identifier,
    messageExpiryInterval: _interval,
    userProperties,
    ...kept
  } = letter.packet.properties ?? {}
  const own = Object.entries(facts(letter, timeMs)).map(([name, value]) => [
    `dead-letter-${name}`,
    String(value),
  ])
  return { ...kept, userProperties: { ...userProperties, ...Object.fromEntries(own) } }
}

function envelopeOf(letter: DeadLetter, timeMs: number) {
  const payload = payloadOf(letter)
  const encoding = isUtf8(payload) ? 'utf8' : 'base64'
  const { qos, retain } = letter.packet
  return { ...facts(letter, timeMs), qos, retain, encoding, payload: payload.toString(encoding) }
}

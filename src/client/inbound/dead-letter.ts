import { isUtf8 } from 'node:buffer'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import type { PublishProperties } from '../connection/link.js'
import type { DeadLetter } from './inbound-handler.js'

const MAX_REASON_LENGTH = 1_024
/** A broker may end the connection for these in a UTF-8 Encoded String (MQTT 5, 1.5.4), and Mosquitto does. */
const NOT_IN_MQTT = /[\p{Cc}\p{Noncharacter_Code_Point}]/gu

/** A dead letter on its way to the broker. */
export interface DeadLetterPublish {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 1
  readonly retain: false
  readonly properties?: PublishProperties
}

/**
 * A message that no handler could handle, as it is published to the dead letter topic. MQTT 5: the payload as it
 * came, with its properties, and what happened to it in User Properties. 3.1.1: JSON that holds all of it.
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
  // An alias and an identifier are the connection's; the lifetime of a message must not end its letter.
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

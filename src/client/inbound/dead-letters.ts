import { isUtf8 } from 'node:buffer'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import { NO_MATCHING_SUBSCRIBERS } from '../../core/connection/reconnect-rules.js'
import { isError, isMqttError, MqttError } from '../../core/errors.js'
import type { HeldBytes } from '../../core/inbound/open-messages.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import { describeReasonCode } from '../../core/protocol/packets.js'
import type { PublishPacket, PublishProperties } from '../connection/link.js'
import type { Hook, Notice } from '../events.js'
import { Pauses } from '../waits.js'
import type { DeadLetter } from './delivery.js'

export interface DeadLetterRules {
  readonly publish: (message: DeadLetterPublish) => Promise<PublishOutcome>
  readonly version: () => ProtocolVersion
  /** Limits of the broker. */
  readonly maximumQoS: () => 0 | 1 | 2
  readonly notice: Hook<Notice>
  /** Bytes of the messages that are held, and of the copies that dead letters contain. */
  readonly held: Pick<HeldBytes, 'hasRoomFor' | 'add' | 'remove'>
}

const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 30_000
/** Attempts for a QoS 0 message: the broker does not store it, and its handler must become free again. */
const QOS_0_ATTEMPTS = 3
const RETRIED = 'the message waits until it can'
const IS_LOST = 'the message is lost'

/** Base64, which a dead letter of MQTT 3.1.1 contains if the payload is not text, is larger by this factor. */
const BASE64_GROWTH = 4 / 3

/**
 * Publishes dead letters until the broker has accepted them. On MQTT 3.1.1 a dead letter is a copy of its message. These
 * copies count as held bytes, and wait until there is room for them. One is always published.
 */
export class DeadLetters {
  private readonly pauses = new Pauses()
  private isStopped = false
  private readonly downgraded = new Set<string>()
  /** Number of dead letters that are being published. */
  private open = 0
  /** Those that have no room yet, in order. */
  private readonly waiting: { readonly bytes: number; readonly settle: (hasRoom: boolean) => void }[] = []

  constructor(private readonly rules: DeadLetterRules) {}

  /** @throws MqttError if the dead letter cannot be published any more. The original then stays unacknowledged. */
  async publish(letter: DeadLetter): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const why = await this.send(letter)
      if (why === undefined) return
      const isLast = letter.packet.qos === 0 && attempt >= QOS_0_ATTEMPTS
      this.refused(letter.topic, why, isLast ? IS_LOST : RETRIED)
      if (this.isStopped || isLast) throw notPublished(why)
      await this.pauses.wait(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (attempt - 1)))
    }
  }

  /** The application is closing: nothing is retried. */
  stop(): void {
    this.isStopped = true
    this.pauses.end()
    for (const { settle } of this.waiting.splice(0)) settle(false)
  }

  /** Publishes it once, as soon as there is room for it. @returns why the broker has not accepted it */
  private async send(letter: DeadLetter): Promise<string | undefined> {
    const { held, version } = this.rules
    const { payload } = letter.packet
    let copied = version() === 5 ? 0 : Math.ceil(payload.length * BASE64_GROWTH)
    if (copied === 0 || (this.waiting.length === 0 && this.hasRoomFor(copied))) this.begin(copied)
    else await this.room(copied)
    try {
      const message = deadLetterMessage(letter, version(), Date.now())
      const bytes = message.payload === payload ? 0 : message.payload.length
      held.add(bytes - copied)
      copied = bytes
      return await this.attempt({ ...message, qos: this.qosFor(letter.topic) })
    } finally {
      held.remove(copied)
      this.open -= 1
      this.beginWaiting()
    }
  }

  /** @throws MqttError if the application closes first */
  private async room(bytes: number): Promise<void> {
    const hasRoom = await new Promise<boolean>(settle => this.waiting.push({ bytes, settle }))
    if (!hasRoom) throw notPublished('the client is closing')
  }

  /** One is always published, whatever else is held. */
  private hasRoomFor(bytes: number): boolean {
    return this.open === 0 || this.rules.held.hasRoomFor(bytes)
  }

  private begin(bytes: number): void {
    this.open += 1
    this.rules.held.add(bytes)
  }

  private beginWaiting(): void {
    for (let [next] = this.waiting; next !== undefined; [next] = this.waiting) {
      if (!this.hasRoomFor(next.bytes)) return
      this.waiting.shift()
      this.begin(next.bytes)
      next.settle(true)
    }
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
        return `the broker refused it: ${describeReasonCode(outcome.reasonCode)}`
      return outcome.status === 'dropped' ? `dropped: ${outcome.reason}` : outcome.status
    } catch (error) {
      if (!isMqttError(error, 'PACKET_TOO_LARGE')) return isError(error) ? error.message : String(error)
      // A retry would not make it smaller.
      this.refused(message.topic, 'it is larger than the broker allows', IS_LOST)
      throw error
    }
  }

  private refused(topic: string, why: string, effect: string): void {
    this.rules.notice.emit({ type: 'dead-letter-refused', topic, why: `${why}; ${effect}` })
  }
}

function notPublished(why: string): MqttError {
  return new MqttError('CONNECTION_CLOSED', `no dead letter could be published: ${why}`)
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
  if (version === 5)
    return { ...base, payload: bytesOf(letter.packet), properties: propertiesOf(letter, timeMs) }
  return { ...base, payload: Buffer.from(JSON.stringify(envelopeOf(letter, timeMs))) }
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
    `${value}`,
  ])
  return { ...kept, userProperties: { ...userProperties, ...Object.fromEntries(own) } }
}

function envelopeOf(letter: DeadLetter, timeMs: number) {
  const payload = bytesOf(letter.packet)
  const encoding = isUtf8(payload) ? 'utf8' : 'base64'
  const { qos, retain } = letter.packet
  return { ...facts(letter, timeMs), qos, retain, encoding, payload: payload.toString(encoding) }
}

/** Not a copy, if it need not be one. */
function bytesOf({ payload }: PublishPacket): Buffer {
  return typeof payload === 'string' ? Buffer.from(payload) : payload
}

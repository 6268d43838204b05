import { isUtf8 } from 'node:buffer'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import {
  giveBackDelayMs,
  giveBackError,
  NO_MATCHING_SUBSCRIBERS,
} from '../../core/connection/reconnect-rules.js'
import { asFailure, describeFailure, isError, isMqttError, MqttError } from '../../core/errors.js'
import type { RunOutcome } from '../../core/inbound/inbound-count.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import type { PublishProperties } from '../connection/link.js'
import type { Hook, Notice } from '../events.js'
import { Pauses } from '../waits.js'
import { BatchFailed, type DeadLetter, type HandlerRun } from './delivery.js'
import { mostAttempts, retryDelayMs } from './handler-rules.js'
import { CopyRuns, Duplicate, NotTaken } from './message-stream.js'

/** Assigns slots to runs and calls their handlers. */
export interface RunHost {
  /** No code of the handler runs until `resumed`: its slot is free, its lane stays closed. */
  paused(run: HandlerRun): void
  /** Resolves when the run has a slot again. */
  resumed(run: HandlerRun): Promise<void>
  /** Calls the handler. May throw, and rejects if the handler failed. @param number number of the attempt, from 1 */
  call(run: HandlerRun, number: number): Promise<unknown>
}

/** Handles a failed handler: retries, and then applies `onFailure`. */
export class FailedRuns {
  private readonly pauses = new Pauses()
  private isStopped = false
  /** QoS 0 messages that wait for a retry or a dead letter. Neither the broker nor the slots limit their number. */
  private recovering = 0
  /**
   * Consecutive failed deliveries of the message with this Packet Identifier, for a handler with `onFailure: 'disconnect'`.
   */
  private readonly givenBack = new Map<number, number>()
  /** Delay before the connection is closed for messages that have failed before. */
  private giveBackPause: Promise<void> | undefined

  constructor(
    private readonly host: RunHost,
    private readonly deadLetters: Pick<DeadLetters, 'publish'>,
    private readonly connection: { terminate(cause: MqttError): void },
    /** Maximum number of waiting QoS 0 messages. A further one fails at once. */
    private readonly maxQueued: number,
  ) {}

  /** The application is closing: nothing is retried. */
  stop(): void {
    this.isStopped = true
    this.pauses.end()
  }

  /** Called after the first failed attempt. Never rejects. The next messages and acknowledgements must not wait for it. */
  async recover(run: HandlerRun, thrown: unknown): Promise<RunOutcome> {
    // Reading a thrown value may throw, even with instanceof.
    const failure = asFailure(thrown)
    if (failure instanceof NotTaken) return 'givenBack'
    if (failure instanceof Duplicate) return 'duplicate'
    const isOfBatch = failure instanceof BatchFailed
    const attempts = isOfBatch ? failure.attempts : Number(!(failure instanceof CopyRuns))
    const error = isOfBatch ? asFailure(failure.error) : failure
    if (attempts > 0) run.observation?.attemptFailed(attempts, error)
    try {
      return this.isReported(run, error) ? 'failed' : await this.withinLimit(run, error, attempts)
    } catch {
      return 'failed'
    }
  }

  /** A failure that was sent to the requester is not retried, and gets no dead letter. */
  private isReported({ attempt, handler, delivery }: HandlerRun, error: unknown): boolean {
    if (attempt?.reportFailure === undefined) return false
    attempt.reportFailure(error)
    handler.onFailed(delivery.packet, error)
    return true
  }

  private async withinLimit(run: HandlerRun, error: unknown, attempts: number): Promise<RunOutcome> {
    const { handler, delivery } = run
    if (delivery.packet.qos > 0) return this.repeat(run, error, attempts)
    if (this.recovering >= this.maxQueued) {
      handler.onFailed(delivery.packet, error)
      return 'failed'
    }
    this.recovering += 1
    return this.repeat(run, error, attempts).finally(() => {
      this.recovering -= 1
    })
  }

  /** @param done number of attempts so far */
  private async repeat(run: HandlerRun, first: unknown, done: number): Promise<RunOutcome> {
    const { handler } = run
    let error = first
    let attempts = done
    while (!this.isStopped && (error instanceof CopyRuns || attempts < mostAttempts(handler, error))) {
      this.host.paused(run)
      await (error instanceof CopyRuns ? error.ended : this.pauses.wait(retryDelayMs(handler, attempts)))
      if (this.isStopped) break
      await this.host.resumed(run)
      if (this.isStopped) break
      try {
        await this.host.call(run, attempts + 1)
        return 'handled'
      } catch (next) {
        error = asFailure(next)
        if (error instanceof Duplicate) return 'duplicate'
        if (error instanceof CopyRuns) continue
        attempts += 1
        run.observation?.attemptFailed(attempts, error)
        if (this.isReported(run, error)) return 'failed'
      }
    }
    if (error instanceof CopyRuns) return 'givenBack'
    handler.onFailed(run.delivery.packet, error)
    return this.settle(run, error, attempts)
  }

  private async settle(run: HandlerRun, error: unknown, attempts: number): Promise<RunOutcome> {
    const { handler, delivery } = run
    const { onFailure } = handler
    // Aborted by the end of the application: a broker that keeps the session delivers the message to the next process.
    if (this.isStopped) return 'givenBack'
    if (onFailure === 'ack') return 'failed'
    if (onFailure === 'disconnect') {
      await this.giveBack(run, error)
      return 'givenBack'
    }
    // A message that fails on the dead letter topic itself is not published again.
    if (delivery.packet.topic === onFailure.deadLetter) return 'failed'
    this.host.paused(run)
    try {
      await this.deadLetters.publish({
        topic: onFailure.deadLetter,
        packet: delivery.packet,
        pattern: handler.name,
        reason: describeFailure(error),
        attempts,
      })
      return 'deadLettered'
    } catch (refused) {
      if (isMqttError(refused, 'PACKET_TOO_LARGE')) return 'failed'
      return delivery.packet.qos === 0 ? 'failed' : 'givenBack'
    }
  }

  /**
   * Closes the connection, so that the broker delivers again. The connection stays open for longer after each repeated
   * failure, so that other messages are processed. All messages that fail in that time are given back together.
   */
  private async giveBack(run: HandlerRun, error: unknown): Promise<void> {
    const { dup, messageId = 0 } = run.delivery.packet
    const failures = dup ? (this.givenBack.get(messageId) ?? 0) + 1 : 1
    this.givenBack.set(messageId, failures)
    const disconnect = (): void => {
      this.giveBackPause = undefined
      if (!this.isStopped) this.connection.terminate(giveBackError(run.handler.name, failures, error))
    }
    if (this.giveBackPause === undefined && failures === 1) return disconnect()
    this.host.paused(run)
    this.giveBackPause ??= this.pauses.wait(giveBackDelayMs(failures)).then(disconnect)
    await this.giveBackPause
  }
}

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
      if (this.isStopped || (letter.packet.qos === 0 && attempt >= QOS_0_ATTEMPTS))
        throw new MqttError('CONNECTION_CLOSED', `no dead letter could be published: ${why}`)
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
      return isError(error) ? error.message : String(error)
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
  if (version === 5)
    return { ...base, payload: Buffer.from(letter.packet.payload), properties: propertiesOf(letter, timeMs) }
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
  const payload = Buffer.from(letter.packet.payload)
  const encoding = isUtf8(payload) ? 'utf8' : 'base64'
  const { qos, retain } = letter.packet
  return { ...facts(letter, timeMs), qos, retain, encoding, payload: payload.toString(encoding) }
}

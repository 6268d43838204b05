import { describeFailure, isMqttError, MqttError, originalOf } from '../core/errors.js'
import { oneLine, printable, type SessionLog } from '../core/log-lines.js'
import { DropEpisode } from '../core/outbound/drop-episode.js'
import type { DropReason } from '../core/outbound/publish-outcome.js'
import { describeReasonCode } from '../core/protocol/packets.js'
import type { HeldUp } from './inbound/ack-watch.js'
import type { RefusedPublish } from './session-report.js'
import { ThinnedLog } from './thinned-log.js'

/** A broker that gives each session to the newest client cuts off two of the same name in turn. */
const SUSPICIOUS_CONNECTIONS = 3

/** Says in the log what goes wrong with the work of a session: when it begins, and how much of it there was. */
export class SessionJournal {
  private readonly drops = new DropEpisode()
  private shortConnections = 0
  private readonly thinned: ThinnedLog
  private refusal: { readonly atMs: number; readonly reasonCode: number } | undefined

  constructor(private readonly log: SessionLog) {
    this.thinned = new ThinnedLog(log)
  }

  /** The handler failed for the last time. */
  handlerFailed(pattern: string, topic: string, error: unknown): void {
    const who = `the handler of ${printable(pattern)} failed`
    const cause = oneLine(describeFailure(originalOf(error)))
    // Its text names the topic, which differs from message to message.
    const common = isMqttError(error, 'PAYLOAD_NOT_DECODABLE') ? 'the payload could not be decoded' : cause
    this.thinned.say('error', `${who}: ${common}`, `${who} for a message on ${printable(topic)}: ${cause}`)
  }

  unmatched(topic: string): void {
    this.thinned.say('warn', 'messages that no handler takes', `no handler takes ${printable(topic)}`)
  }

  inboundDropped(): void {
    this.thinned.say(
      'warn',
      'QoS 0 messages were dropped, because they arrive faster than handlers run; raise inbound.concurrency, inbound.maxQueued or inbound.maxQueuedBytes',
    )
  }

  acknowledgementsHeldUp({ topic, patterns, ageMs, behind }: HeldUp): void {
    const who = `the handler of ${patterns.map(printable).join(', ')}`
    const why = 'acknowledgements leave in order of arrival; shorten its timeoutMs or retries'
    this.thinned.say(
      'warn',
      `${who} keeps acknowledgements back: ${why}`,
      `${who} has not ended for a message on ${printable(topic)} for ${Math.round(ageMs / 1_000)} s, and keeps the acknowledgements of ${behind} messages back: ${why}`,
    )
  }

  publishRefused(topic: string, reasonCode: number, reasonString: string | undefined): void {
    this.refusal = { atMs: performance.now(), reasonCode }
    const code = describeReasonCode(reasonCode)
    const said = reasonString === undefined ? '' : `, ${printable(reasonString)}`
    this.thinned.say(
      'error',
      `publishes that the broker refused with ${code}`,
      `the broker refused the publish to ${printable(topic)}: ${code}${said}`,
    )
  }

  /** The publish that the broker refused last. */
  get refusedPublish(): RefusedPublish | undefined {
    if (this.refusal === undefined) return undefined
    const { atMs, reasonCode } = this.refusal
    return { reason: describeReasonCode(reasonCode), ageMs: performance.now() - atMs }
  }

  responseNotDelivered(topic: string, why: string): void {
    this.thinned.say(
      'warn',
      `responses that were not delivered: ${why}`,
      `the response to ${printable(topic)} was not delivered: ${why}`,
    )
  }

  streamEvicted(topic: string): void {
    this.thinned.say(
      'warn',
      'streams of responses were ended to make room for others (requests.maxStreams)',
      `the oldest stream of responses, to ${printable(topic)}, was ended to make room (requests.maxStreams)`,
    )
  }

  publishDropped(reason: DropReason): void {
    this.say(this.drops.dropped(reason, performance.now()))
  }

  /** @returns whether the drops are over */
  publishesCaughtUp(): boolean {
    this.say(this.drops.caughtUp(performance.now()))
    return !this.drops.isOpen
  }

  connectionChanged(): void {
    this.say(this.drops.ended(performance.now()))
  }

  lost(wasShort: boolean, clientId: string): void {
    this.shortConnections = wasShort ? this.shortConnections + 1 : 0
    if (this.shortConnections !== SUSPICIOUS_CONNECTIONS) return
    this.log.warn(
      `${SUSPICIOUS_CONNECTIONS} consecutive connections ended early: is the Client Identifier "${clientId}" in use by another client?`,
    )
  }

  deadLetterTakenByNobody(topic: string): void {
    this.thinned.say(
      'warn',
      `nobody subscribes to the dead letter topic "${topic}"; its dead letters are lost`,
    )
  }

  deadLettersDowngraded(topic: string): void {
    this.log.warn(
      `dead letters leave at QoS 0 to "${topic}", because the broker takes no more; they may get lost`,
    )
  }

  deadLetterRefused(topic: string, why: string): void {
    this.thinned.say(
      'error',
      `dead letters cannot be published to "${topic}": ${oneLine(why)}; their messages stay unacknowledged until they can`,
    )
  }

  /** Logs what is collected. */
  flush(): void {
    this.thinned.flush()
  }

  sessionForgotten(): void {
    this.log.warn('the broker has lost the session: messages that it stored for this client are lost')
  }

  shutdownGaveUp(
    timeoutMs: number,
    left: { running: number; waiting: number; streams: number; unanswered: number; queued: number },
  ): void {
    this.log.warn(
      `shutdown stopped waiting after ${Math.round(timeoutMs)} ms: ${left.running} messages in handlers or without their ack(), ${left.waiting} waiting for one, ${left.streams} open streams of responses, ${left.unanswered} publishes without an acknowledgement, ${left.queued} not written`,
    )
  }

  private say(text: string | undefined): void {
    if (text !== undefined) this.log.warn(text)
  }
}

export function overrun(): MqttError {
  return new MqttError(
    'CONNECTION_LOST',
    'the broker sent more QoS 1 and 2 messages than the client can hold; raise inbound.maxQueued or inbound.maxQueuedBytes',
    { reasonCode: RECEIVE_MAXIMUM_EXCEEDED },
  )
}

const RECEIVE_MAXIMUM_EXCEEDED = 0x93

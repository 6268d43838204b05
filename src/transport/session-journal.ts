import { MqttError } from '../errors.js'
import { isPowerOfTwo, printable } from '../log-thinning.js'
import type { DropReason } from '../publish-outcome.js'
import type { LogLevel } from './connection/connection-log.js'
import { DropEpisode } from './outbound/drop-episode.js'

export type SessionLog = Record<LogLevel, (text: string) => void>

/** A broker that gives each session to the newest client cuts off two of the same name in turn. */
const SUSPICIOUS_CONNECTIONS = 3

/** Says in the log what goes wrong with the work of a session: when it begins, and how much of it there was. */
export class SessionJournal {
  private readonly drops = new DropEpisode()
  private shortConnections = 0
  private letters = 0

  constructor(private readonly log: SessionLog) {}

  unmatched(topic: string, count: number): void {
    if (!isPowerOfTwo(count)) return
    this.log.warn(`no handler takes ${printable(topic)}; ${count} such messages so far`)
  }

  inboundDropped(count: number): void {
    if (!isPowerOfTwo(count)) return
    this.log.warn(
      `handlers are slower than QoS 0 messages come: ${count} dropped so far; raise inbound.concurrency or inbound.maxQueued`,
    )
  }

  publishDropped(reason: DropReason): void {
    this.say(this.drops.dropped(reason, performance.now()))
  }

  publishesCaughtUp(): void {
    this.say(this.drops.caughtUp(performance.now()))
  }

  connectionChanged(): void {
    this.say(this.drops.ended(performance.now()))
  }

  lost(wasShort: boolean, clientId: string): void {
    this.shortConnections = wasShort ? this.shortConnections + 1 : 0
    if (this.shortConnections !== SUSPICIOUS_CONNECTIONS) return
    this.log.warn(
      `${SUSPICIOUS_CONNECTIONS} connections in a row ended early: is the Client Identifier "${clientId}" in use by another client?`,
    )
  }

  deadLetterTakenByNobody(topic: string): void {
    this.letters += 1
    if (!isPowerOfTwo(this.letters)) return
    this.log.warn(
      `nobody subscribes to the dead letter topic "${topic}"; ${this.letters} letters are gone so far`,
    )
  }

  deadLetterRefused(topic: string, why: string, count: number): void {
    if (!isPowerOfTwo(count)) return
    this.log.error(
      `the dead letter topic "${topic}" does not take letters: ${why}; ${count} attempts so far. The messages stay unacknowledged until it does`,
    )
  }

  sessionForgotten(): void {
    this.log.warn('the broker has forgotten the session: messages that it kept for this client are lost')
  }

  shutdownGaveUp(
    timeoutMs: number,
    left: { running: number; waiting: number; unanswered: number; queued: number },
  ) {
    this.log.warn(
      `shutdown gave up after ${Math.round(timeoutMs)} ms: ${left.running} messages in handlers or without their ack(), ${left.waiting} waiting for one, ${left.unanswered} publishes without an answer, ${left.queued} not written`,
    )
  }

  private say(text: string | undefined): void {
    if (text !== undefined) this.log.warn(text)
  }
}

export function overrun(): MqttError {
  return new MqttError(
    'CONNECTION_LOST',
    'the broker sent more QoS 1 and 2 messages than may wait for handlers; raise inbound.concurrency or inbound.maxQueued',
    { reasonCode: RECEIVE_MAXIMUM_EXCEEDED },
  )
}

const RECEIVE_MAXIMUM_EXCEEDED = 0x93

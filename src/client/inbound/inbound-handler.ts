import type { MqttError } from '../../core/errors.js'
import type { FailurePolicy, RunOutcome } from '../../core/inbound/run-outcome.js'
import type { PublishPacket } from '../../core/protocol/packets.js'
import type { ResolvedBackoff } from '../../options/resolved-options.js'
import type { ClientEvents } from '../events.js'

export type { RunOutcome }

import type { HandlerAttempt } from './handler-attempt.js'

/** Thrown by a handler that has not taken the message: the broker may deliver it again. */
export class NotTaken extends Error {}

/** A failure that the requester has received. */
export class ReportedFailure extends Error {
  constructor(readonly failure: unknown) {
    super('the failure was reported to the requester')
  }
}

interface RetryRule {
  readonly attempts: number
  readonly delayMs: readonly number[] | ResolvedBackoff
}

/** Something that takes messages. */
export interface InboundHandler {
  /** Unlike that of any other handler. */
  readonly id: number
  /** For errors and logs. */
  readonly name: string
  /** Runs at the same time. */
  readonly concurrency: number
  /** Waits for what others ask of it, and takes no room from handlers that work. */
  readonly isPassive: boolean
  /** Runs before the application is ready and while it closes, too: what is under way may need it. */
  readonly isInternal: boolean
  /** Whether its pattern ends with a wildcard. It does not receive the responses of this connection as events. */
  readonly isOpenEnded: boolean
  /** Messages with the same key are handled in order, one at a time: those of a topic, or those of a key of your own. */
  readonly orderKey: 'topic' | 'none' | ((topic: string) => string)
  readonly timeoutMs: number | undefined
  readonly retries: RetryRule | undefined
  readonly onFailure: FailurePolicy
  /** The message is acknowledged when the handler says so, and not when it ends. */
  readonly acknowledges: 'at-end' | 'manually'
  /** Rejects when the handler failed. */
  readonly run: (packet: PublishPacket, attempt: HandlerAttempt) => Promise<unknown>
  /** A failure that is the last one, for the log. */
  readonly onFailed: (packet: PublishPacket, error: unknown) => void
}

/** What a run asks of the connection. */
export interface RunSurroundings {
  /** QoS 0 messages that may wait for a retry or a dead letter; one more has failed at once. */
  readonly maxQueued: number
  /** Publishes a dead letter. Resolves with whether the broker has it, and rejects when there is no more hope. */
  readonly deadLetter: (letter: DeadLetter) => Promise<void>
  /** Ends the connection, so that the broker delivers again. */
  readonly disconnect: (cause: MqttError) => void
  readonly events: ClientEvents
}

/** A message that no handler could handle. */
export interface DeadLetter {
  readonly topic: string
  readonly packet: PublishPacket
  readonly pattern: string
  readonly reason: string
  readonly attempts: number
}

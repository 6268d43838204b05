import { giveBackDelayMs, giveBackError } from '../../core/connection/reconnect-rules.js'
import { asFailure, describeFailure, isMqttError, type MqttError } from '../../core/errors.js'
import type { RunOutcome } from '../../core/inbound/inbound-count.js'
import { Pauses } from '../waits.js'
import type { DeadLetters } from './dead-letters.js'
import { BatchFailed, type HandlerRun } from './delivery.js'
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
  /** Runs whose messages are given back when the connection is closed. */
  private readonly givingBack = new Set<HandlerRun>()
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
    this.givingBack.add(run)
    const disconnect = (): void => {
      this.giveBackPause = undefined
      // A broker that has lost the session would not deliver them again.
      const isLost = [...this.givingBack].every(
        ({ delivery }) => delivery.packet.qos === 1 && delivery.connection === 0,
      )
      this.givingBack.clear()
      if (!this.isStopped && !isLost)
        this.connection.terminate(giveBackError(run.handler.name, failures, error))
    }
    if (this.giveBackPause === undefined && failures === 1) return disconnect()
    this.host.paused(run)
    this.giveBackPause ??= this.pauses.wait(giveBackDelayMs(failures)).then(disconnect)
    await this.giveBackPause
  }
}

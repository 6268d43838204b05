import { reconnectDelayMs } from '../../core/connection/reconnect-rules.js'
import { asFailure, describeFailure, isMqttError, MqttError } from '../../core/errors.js'
import type { ClientEvents, DeliveryEvent } from '../events.js'
import { Pauses } from '../waits.js'
import type { HandlerRun } from './delivery.js'
import { HandlerAttempt } from './handler-attempt.js'
import {
  type InboundHandler,
  NotTaken,
  ReportedFailure,
  type RunOutcome,
  type RunSurroundings,
} from './inbound-handler.js'
import { callAs, type RequestCounter } from './run-context.js'

/** Who gave the run its slot. */
export interface RunHost extends RequestCounter<HandlerRun> {
  /** No code of the handler runs until `resumed`: its slot is free, its lane stays closed. */
  paused(run: HandlerRun): void
  /** Resolves when the run has a slot again. */
  resumed(run: HandlerRun): Promise<void>
  /** The handler has returned: the next message of the same key may begin. */
  returned(run: HandlerRun): void
  /** The message may be acknowledged, as far as this handler is concerned. */
  ended(run: HandlerRun, outcome: RunOutcome): void
}

/** Runs a handler for a message: its time limit, its retries, and what follows its last failure. */
export class HandlerRunner {
  private readonly attempts = new Set<HandlerAttempt>()
  private readonly pauses = new Pauses()
  private stopped: MqttError | undefined
  /** QoS 0 messages that wait for a retry or a dead letter: no broker and no slot bounds them. */
  private recovering = 0
  /** Failed deliveries in a row of the message with this Packet Identifier, whose handler disconnects. */
  private readonly givenBack = new Map<number, number>()
  /** Until the connection ends for messages that have failed before. */
  private giveBackPause: Promise<void> | undefined

  constructor(
    private readonly surroundings: RunSurroundings,
    private readonly host: RunHost,
  ) {}

  /** Never throws and never rejects. */
  run(run: HandlerRun): void {
    void this.runToEnd(run)
  }

  /** Nobody waits for the handlers that run. */
  stop(reason: MqttError): void {
    this.stopped = reason
    for (const attempt of this.attempts) attempt.abort(reason)
    this.pauses.end()
  }

  private async runToEnd(run: HandlerRun): Promise<void> {
    const { delivery } = this.surroundings.events
    let outcome: RunOutcome = 'handled'
    if (delivery.isHeard) delivery.tell(this.eventOf(run, 'start'))
    try {
      await this.attempt(run, 1)
    } catch (error) {
      // Whatever goes wrong with a failure must not hold up its topic and the acknowledgements behind it.
      outcome = await this.recover(run, error).catch((): RunOutcome => 'failed')
    }
    if (delivery.isHeard) delivery.tell({ ...this.eventOf(run, 'end'), outcome })
    this.host.ended(run, outcome)
  }

  private eventOf(run: HandlerRun, type: DeliveryEvent['type']): DeliveryEvent {
    const { topic, qos } = run.delivery.packet
    const { clientId } = this.surroundings.events
    return { clientId, type, key: run, pattern: run.handler.name, topic, qos }
  }

  private async recover(run: HandlerRun, first: unknown): Promise<RunOutcome> {
    if (first instanceof NotTaken) return 'givenBack'
    const { handler } = run
    if (first instanceof ReportedFailure) {
      handler.onFailed(run.delivery.packet, first.failure)
      return 'failed'
    }
    if (run.delivery.packet.qos > 0) return this.repeat(run, first)
    if (this.recovering >= this.surroundings.maxQueued) {
      handler.onFailed(run.delivery.packet, first)
      return 'failed'
    }
    this.recovering += 1
    try {
      return await this.repeat(run, first)
    } finally {
      this.recovering -= 1
    }
  }

  private async repeat(run: HandlerRun, first: unknown): Promise<RunOutcome> {
    const { handler } = run
    const most = 1 + (handler.retries?.attempts ?? 0)
    let error = first
    let attempts = 1
    while (attempts < most && this.stopped === undefined) {
      this.host.paused(run)
      await this.pauses.wait(retryDelayMs(handler, attempts))
      if (this.stopped !== undefined) break
      await this.host.resumed(run)
      if (this.stopped !== undefined) break
      attempts += 1
      try {
        await this.attempt(run, attempts)
        return 'handled'
      } catch (next) {
        error = next
      }
    }
    handler.onFailed(run.delivery.packet, error)
    return this.settleFailure(run, error, attempts)
  }

  private async settleFailure(run: HandlerRun, error: unknown, attempts: number): Promise<RunOutcome> {
    const { handler, delivery } = run
    const { onFailure } = handler
    // Cut short by the end of the application: a broker that keeps the session delivers it to the next one.
    if (this.stopped !== undefined) return 'givenBack'
    if (onFailure === 'ack') return 'failed'
    if (onFailure === 'disconnect') {
      await this.giveBack(run, error)
      return 'givenBack'
    }
    // A letter that comes back must not be written again.
    if (delivery.packet.topic === onFailure.deadLetter) return 'failed'
    this.host.paused(run)
    try {
      await this.surroundings.deadLetter({
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
   * Ends the connection, so that the broker delivers again. A message that fails again each time it is delivered keeps the
   * connection for longer and longer first, so that the others flow; all that fail meanwhile are given back together.
   */
  private async giveBack(run: HandlerRun, error: unknown): Promise<void> {
    const { dup, messageId = 0 } = run.delivery.packet
    const failures = dup ? (this.givenBack.get(messageId) ?? 0) + 1 : 1
    this.givenBack.set(messageId, failures)
    const disconnect = (): void => {
      this.giveBackPause = undefined
      if (this.stopped === undefined)
        this.surroundings.disconnect(giveBackError(run.handler, failures, error))
    }
    if (this.giveBackPause === undefined && failures === 1) return disconnect()
    this.host.paused(run)
    this.giveBackPause ??= this.pauses.wait(giveBackDelayMs(failures)).then(disconnect)
    await this.giveBackPause
  }

  private async attempt(run: HandlerRun, number: number): Promise<void> {
    const { handler, delivery } = run
    let acknowledge = ignore
    const acknowledged =
      handler.acknowledges === 'manually' && delivery.packet.qos === 1
        ? new Promise<void>(resolve => {
            acknowledge = resolve
          })
        : undefined
    const attempt = new HandlerAttempt(number, acknowledge, () => this.host.returned(run))
    this.attempts.add(attempt)
    if (this.stopped !== undefined) attempt.abort(this.stopped)
    const started = startSafely(run, this.host, attempt, this.surroundings.events)
    // The next message may begin when the handler returns; this one waits for its `ack()`.
    const work =
      acknowledged === undefined
        ? started
        : started.then(() => {
            attempt.returned()
            return acknowledged
          })
    const { timeoutMs } = handler
    try {
      await (timeoutMs === undefined ? work : this.within(timeoutMs, work, handler, attempt))
    } catch (thrown) {
      const error = asFailure(thrown)
      if (attempt.reportFailure === undefined) throw error
      attempt.reportFailure(error)
      throw new ReportedFailure(error)
    } finally {
      this.attempts.delete(attempt)
    }
  }

  private within<T>(
    timeoutMs: number,
    work: Promise<T>,
    handler: InboundHandler,
    attempt: HandlerAttempt,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const text = `the handler of "${handler.name}" did not end within ${timeoutMs} ms`
        const error = new MqttError('TIMEOUT', text)
        attempt.abort(error)
        reject(error)
      }, timeoutMs)
      work.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }
}

const ignore = (): void => {}

function startSafely(run: HandlerRun, host: RunHost, attempt: HandlerAttempt, { aroundRun }: ClientEvents) {
  const { handler, delivery } = run
  const work = () => callAs(run, host, () => handler.run(delivery.packet, attempt))
  try {
    if (aroundRun === undefined) return work()
    const { topic } = delivery.packet
    return aroundRun({ pattern: handler.name, topic, attempt: attempt.number }, work)
  } catch (error) {
    return Promise.reject(error)
  }
}

function retryDelayMs({ retries }: InboundHandler, failures: number): number {
  if (retries === undefined) return 0
  const cause = new MqttError('TIMEOUT', 'a handler failed')
  return reconnectDelayMs(retries.delayMs, failures, cause, 0, Math.random())
}

function giveBackError({ name }: InboundHandler, failures: number, cause: unknown): MqttError {
  const times = failures === 1 ? '' : ` for delivery ${failures} of a message`
  const text = `the handler of "${name}" failed${times}, and onFailure is "disconnect"`
  return new MqttError('CONNECTION_LOST', text, { cause, reasonCode: IMPLEMENTATION_SPECIFIC_ERROR })
}

const LONGEST_GIVE_BACK_MS = 60_000

function giveBackDelayMs(failures: number): number {
  return Math.min(LONGEST_GIVE_BACK_MS, 1_000 * 2 ** (failures - 2))
}

const IMPLEMENTATION_SPECIFIC_ERROR = 0x83

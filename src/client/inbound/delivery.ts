import { AsyncLocalStorage } from 'node:async_hooks'
import type { ResolvedBackoff } from '../../core/connection/reconnect-rules.js'
import type { MqttError } from '../../core/errors.js'
import type { BlockableRequest } from '../../core/inbound/blocked-requests.js'
import type { FailurePolicy, RunOutcome } from '../../core/inbound/inbound-count.js'
import { bytesOf, type OpenMessage } from '../../core/inbound/open-messages.js'
import type { RunState, ScheduledRun } from '../../core/inbound/run-scheduler.js'
import type { PublishPacket } from '../../core/protocol/packets.js'
import type { ClientEvents, DeliveryFacts, DeliveryKind, RunWrapper } from '../events.js'

/** The batch of a message failed, and is not repeated. */
export class BatchFailed extends Error {
  constructor(
    readonly error: unknown,
    /** Number of attempts of the batch. */
    readonly attempts: number,
  ) {
    super('the batch failed')
  }
}

interface RetryRule {
  readonly attempts: number
  readonly delayMs: readonly number[] | ResolvedBackoff
}

/** A receiver of messages. */
export interface InboundHandler {
  /** Unique among all handlers. */
  readonly id: number
  /** Used in errors and logs. */
  readonly name: string
  readonly kind: DeliveryKind
  /** Maximum number of concurrent runs. */
  readonly concurrency: number
  /** Waits for its consumer, and does not occupy a slot of handlers that do work. */
  readonly isPassive: boolean
  /** Also runs before the application is ready and while it closes, because running work may need it. */
  readonly isInternal: boolean
  /** Set for a handler that runs for batches. Returns the messages of the batch that starts with this one. */
  readonly batchOf: ((packet: PublishPacket) => readonly PublishPacket[]) | undefined
  /**
   * Whether its pattern ends with a wildcard. Such a handler does not receive the responses of this connection as events.
   */
  readonly isOpenEnded: boolean
  /**
   * Messages with the same key are handled in order, one at a time: those of a topic, or those with a key of the
   * application.
   */
  readonly orderKey: 'topic' | 'none' | ((topic: string) => string)
  readonly timeoutMs: number | undefined
  readonly retries: RetryRule | undefined
  readonly onFailure: FailurePolicy
  /** The message is acknowledged when the handler calls `ack()`, not when it ends. */
  readonly acknowledges: 'at-end' | 'manually'
  /** Rejects if the handler failed. */
  readonly run: (packet: PublishPacket, attempt: HandlerAttempt) => Promise<unknown>
  /** Reports the final failure, for the log. */
  readonly onFailed: (packet: PublishPacket, error: unknown) => void
}

/** A message that no handler could handle. */
export interface DeadLetter {
  readonly topic: string
  readonly packet: PublishPacket
  readonly pattern: string
  readonly reason: string
  readonly attempts: number
}

/** Reports the run of a handler. */
export class DeliveryObservation {
  private readonly facts: DeliveryFacts
  private error: unknown
  private wrapper: RunWrapper = work => work()

  constructor(
    private readonly events: ClientEvents,
    { name: pattern, kind, batchOf }: InboundHandler,
    packet: PublishPacket,
  ) {
    const { topic, qos, retain, dup, payload, properties = {} } = packet
    const facts = { topic, qos, retain, dup, bytes: payload.length, properties, batch: batchOf?.(packet) }
    this.facts = { client: events.client, key: this, kind, pattern, ...facts }
  }

  /** Reports the start, and runs `work` once, whatever listeners do. */
  start<T>(work: () => T): T {
    let done: { readonly result: T } | undefined
    const once = (): T => {
      done ??= { result: work() }
      return done.result
    }
    const wrap = (wrapper: RunWrapper): void => {
      const outer = this.wrapper
      this.wrapper = call => outer(() => wrapper(call))
    }
    try {
      this.events.delivery.emitAround({ ...this.facts, type: 'start', wrap }, () => this.wrapper(once))
    } catch (error) {
      this.events.onListenerError(error)
    }
    return once()
  }

  attemptFailed(attempt: number, error: unknown): void {
    this.error = error
    this.events.delivery.emit({ ...this.facts, type: 'attempt-failed', attempt, error })
  }

  end(outcome: RunOutcome): void {
    this.events.delivery.emit({ ...this.facts, type: 'end', outcome, error: this.error })
  }
}

let last = 0

/** The id of the newest handler. */
export const lastHandlerId = (): number => last

/** Creates a handler with the given rules, and defaults for the others. */
export function newHandler(
  fields: Pick<InboundHandler, 'name' | 'run'> & Partial<Omit<InboundHandler, 'id'>>,
): InboundHandler {
  last += 1
  return {
    kind: 'event',
    concurrency: Number.POSITIVE_INFINITY,
    isPassive: false,
    isInternal: false,
    batchOf: undefined,
    isOpenEnded: false,
    orderKey: 'topic',
    timeoutMs: undefined,
    retries: undefined,
    onFailure: 'ack',
    acknowledges: 'at-end',
    onFailed: () => {},
    ...fields,
    id: last,
  }
}

/** Rank of the outcomes: with several handlers, the highest is the outcome of the message. Below them: `duplicate`. */
const GRAVITY: readonly RunOutcome[] = ['handled', 'failed', 'deadLettered', 'dropped', 'givenBack']

/** One message and the state of its handlers. */
export class Delivery implements OpenMessage {
  runs: readonly HandlerRun[] = []
  /** Number of handlers that have started. */
  started = 0
  private ended = 0
  /** Highest-ranked outcome of its handlers. */
  outcome: RunOutcome = 'handled'
  /** All handlers have ended. */
  isDone = false
  connection = 0
  mayBeAcknowledged = false
  isHeld = false
  readonly bytes: number

  constructor(readonly packet: PublishPacket) {
    this.bytes = bytesOf(packet)
  }

  /** A handler has ended. @returns whether it was the last one */
  end(outcome: RunOutcome): boolean {
    this.ended += 1
    const isFirst = this.ended === 1 && this.outcome === 'handled'
    if (outcome !== this.outcome && (isFirst || GRAVITY.indexOf(outcome) > GRAVITY.indexOf(this.outcome)))
      this.outcome = outcome
    return this.ended === this.runs.length
  }

  /** The client no longer waits for the running handlers. */
  giveUp(): void {
    this.outcome = 'givenBack'
  }

  isSameAs({ topic, payload }: PublishPacket): boolean {
    const own = this.packet
    return own.topic === topic && Buffer.from(own.payload).equals(Buffer.from(payload))
  }
}

/** One handler that runs for one message. */
export class HandlerRun implements ScheduledRun<InboundHandler> {
  state: RunState = 'waiting'
  openRequests = 0
  holdsLane = false
  isTracked = false
  /** As far as this handler is concerned, the message may be acknowledged. */
  isEnded = false
  /** The current call of the handler. */
  attempt: HandlerAttempt | undefined
  observation: DeliveryObservation | undefined
  /** Set when the handler is called while runs are tracked. */
  context: RunContext | undefined
  /** Set while the run was paused and waits for a slot. */
  goOn: (() => void) | undefined

  constructor(
    readonly delivery: Delivery,
    readonly handler: InboundHandler,
    readonly key: string | undefined,
  ) {}
}

/** One call of a handler: its context, and what it can report. */
export class HandlerAttempt {
  /**
   * Set by a handler that responds to a requester. Sends the failure to the requester, even if the run is no longer waited
   * for. Such a failure is not retried, and gets no dead letter.
   */
  reportFailure: ((error: unknown) => void) | undefined
  /** Set for a handler with manual acknowledgement. */
  onAck: (() => void) | undefined
  private controller: AbortController | undefined
  private abortedWith: MqttError | undefined

  constructor(
    /** Starts at 1. */
    readonly number: number,
    private readonly run: HandlerRun,
    private readonly host: { returned(run: HandlerRun): void },
  ) {}

  /** Created on demand, because most handlers do not use it. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController()
    if (this.abortedWith !== undefined && !this.controller.signal.aborted)
      this.controller.abort(this.abortedWith)
    return this.controller.signal
  }

  /** The client no longer waits for this call. */
  get isAborted(): boolean {
    return this.abortedWith !== undefined
  }

  ack(): void {
    this.onAck?.()
  }

  /**
   * The handler has returned and the rest is not its code: its slot is free, and the next message with the same key may
   * start.
   */
  returned(): void {
    this.host.returned(this.run)
  }

  /** The client no longer waits for this call. */
  abort(reason: MqttError): void {
    this.abortedWith ??= reason
    this.controller?.abort(reason)
  }
}

/**
 * The run that code belongs to. The reference is removed when the run ends, because code that the run started may live
 * longer.
 */
export interface RunContext {
  countRequest: ((difference: 1 | -1) => void) | undefined
  /** Open requests of this run that wait for a delivery at QoS 1. */
  readonly blockable: Set<BlockableRequest>
}

interface Run {
  /** Set when the handler is called while runs are tracked. */
  context: RunContext | undefined
}

/** Counts the requests of a run. */
export interface RequestCounter<R> {
  countRequest(run: R, difference: 1 | -1): void
}

const storage = new AsyncLocalStorage<RunContext>()

/** Whether code knows its run. Starts with the first request, because on Node 20 it doubles the cost of every promise. */
export const tracking = { isOn: false }

/** Calls a handler so that its requests are associated with this run. */
export function callAs<R extends Run, T>(run: R, counter: RequestCounter<R>, work: () => T): T {
  if (!tracking.isOn) return work()
  run.context ??= {
    countRequest: difference => counter.countRequest(run, difference),
    blockable: new Set(),
  }
  return storage.run(run.context, work)
}

/** The run of the calling code; undefined for code that was not called by a tracked run. */
export function currentContext(): RunContext | undefined {
  return tracking.isOn ? storage.getStore() : undefined
}

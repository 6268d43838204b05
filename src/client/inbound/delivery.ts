import { AsyncLocalStorage } from 'node:async_hooks'
import type { MqttError } from '../../core/errors.js'
import type { BlockableRequest } from '../../core/inbound/blocked-requests.js'
import type { FailurePolicy, RunOutcome } from '../../core/inbound/inbound-count.js'
import { bytesOf, type OpenMessage } from '../../core/inbound/open-messages.js'
import type { RunState, ScheduledRun } from '../../core/inbound/run-scheduler.js'
import type { PublishPacket } from '../../core/protocol/packets.js'
import type { ResolvedBackoff } from '../../options/resolved-options.js'

/** Thrown by a handler that has not taken the message: the broker may deliver it again. */
export class NotTaken extends Error {}

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

/** A message that no handler could handle. */
export interface DeadLetter {
  readonly topic: string
  readonly packet: PublishPacket
  readonly pattern: string
  readonly reason: string
  readonly attempts: number
}

let last = 0

/** A handler with the rules that are given, and the plainest for the others. */
export function newHandler(
  fields: Pick<InboundHandler, 'name' | 'run'> & Partial<Omit<InboundHandler, 'id'>>,
): InboundHandler {
  last += 1
  return {
    concurrency: Number.POSITIVE_INFINITY,
    isPassive: false,
    isInternal: false,
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

/** Which outcome of several handlers is the one of the message. */
const GRAVITY: readonly RunOutcome[] = ['handled', 'failed', 'deadLettered', 'dropped', 'givenBack']

/** One message on its way through all its handlers. */
export class Delivery implements OpenMessage {
  runs: readonly HandlerRun[] = []
  /** Handlers that have begun. */
  started = 0
  private ended = 0
  /** The gravest one of its handlers. */
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
    if (outcome !== 'handled' && GRAVITY.indexOf(outcome) > GRAVITY.indexOf(this.outcome))
      this.outcome = outcome
    return this.ended === this.runs.length
  }

  /** Nobody waits for the handlers that run. */
  giveUp(): void {
    this.outcome = 'givenBack'
  }

  isSameAs({ topic, payload }: PublishPacket): boolean {
    const own = this.packet
    return own.topic === topic && Buffer.from(own.payload).equals(Buffer.from(payload))
  }
}

/** One handler that is to run for one message. */
export class HandlerRun implements ScheduledRun<InboundHandler> {
  state: RunState = 'waiting'
  openRequests = 0
  holdsLane = false
  isTracked = false
  /** The message may be acknowledged, as far as this handler is concerned. */
  isEnded = false
  /** The present call of the handler. */
  attempt: HandlerAttempt | undefined
  /** Set once the handler was called while runs are tracked. */
  context: RunContext | undefined
  /** Set while the run was paused and waits for a slot. */
  goOn: (() => void) | undefined

  constructor(
    readonly delivery: Delivery,
    readonly handler: InboundHandler,
    readonly key: string | undefined,
  ) {}
}

/** One call of a handler: what it may be told, and what it may tell. */
export class HandlerAttempt {
  /**
   * Set by a handler that responds to somebody: tells them of the failure, also where nobody waits for the handler any
   * more. A failure that was told is not repeated, nor put aside.
   */
  reportFailure: ((error: unknown) => void) | undefined
  /** Set for a handler that acknowledges by hand. */
  onAck: (() => void) | undefined
  private controller: AbortController | undefined
  private abortedWith: MqttError | undefined

  constructor(
    /** From 1. */
    readonly number: number,
    private readonly run: HandlerRun,
    private readonly host: { returned(run: HandlerRun): void },
  ) {}

  /** Made only for a handler that asks: most do not. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController()
    if (this.abortedWith !== undefined && !this.controller.signal.aborted)
      this.controller.abort(this.abortedWith)
    return this.controller.signal
  }

  /** Nobody waits for this call any more. */
  get isAborted(): boolean {
    return this.abortedWith !== undefined
  }

  ack(): void {
    this.onAck?.()
  }

  /**
   * The handler has returned, and what is still to come is no code of it: its slot is free, and the next message of
   * the same key may begin.
   */
  returned(): void {
    this.host.returned(this.run)
  }

  /** Nobody waits for this call any more. */
  abort(reason: MqttError): void {
    this.abortedWith ??= reason
    this.controller?.abort(reason)
  }
}

/** The run that code belongs to. It lets go of the run when that ends, since code that the run began may live on. */
export interface RunContext {
  countRequest: ((difference: 1 | -1) => void) | undefined
  /** Open requests of this run that wait for a delivery at QoS 1. */
  readonly blockable: Set<BlockableRequest>
}

interface Run {
  /** Set once the handler was called while runs are tracked. */
  context: RunContext | undefined
}

/** Who counts the requests of a run. */
export interface RequestCounter<R> {
  countRequest(run: R, difference: 1 | -1): void
}

const storage = new AsyncLocalStorage<RunContext>()

/** Whether code knows its run. Begins with the first request: on Node 20 it doubles the cost of every promise. */
export const tracking = { isOn: false }

/** Calls a handler so that its requests are known to be those of this run. */
export function callAs<R extends Run, T>(run: R, counter: RequestCounter<R>, work: () => T): T {
  if (!tracking.isOn) return work()
  run.context ??= {
    countRequest: difference => counter.countRequest(run, difference),
    blockable: new Set(),
  }
  return storage.run(run.context, work)
}

/** That of the code that asks; undefined for code that no tracked run has called. */
export function currentContext(): RunContext | undefined {
  return tracking.isOn ? storage.getStore() : undefined
}

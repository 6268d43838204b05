import type { RunState } from './run-scheduler.js'

/** A request whose response may be blocked by the broker's Receive Maximum. */
export interface BlockableRequest {
  /**
   * What is delivered to this connection at QoS 1: the request, because this process handles it; the response, if the
   * responder sends it at QoS 1; or certainly both.
   */
  readonly delivery: 'request' | 'response' | 'both'
  /** Fails the request. */
  block(): void
}

interface RequestingRun {
  readonly state: RunState
  readonly isEnded: boolean
  /** Open requests of the run that wait for a delivery at QoS 1. */
  readonly context: { readonly blockable: ReadonlySet<BlockableRequest> } | undefined
}

interface WindowMessage<R> {
  readonly runs: readonly R[]
  readonly started: number
  readonly mayBeAcknowledged: boolean
}

/** No broker has a window that is full with fewer unacknowledged messages. */
const SMALLEST_WINDOW = 10
/** A broker that may deliver more has done so within this time. */
const QUIET_MS = 1_000
const LONGEST_QUIET_MS = 30_000
const NONE: readonly BlockableRequest[] = []

/**
 * Finds requests whose response cannot arrive: the broker delivers it at QoS 1, and its window is full of messages whose
 * handlers wait for such responses. Acknowledgements are sent in order of arrival, so the oldest message decides.
 *
 * Silence alone is no proof, because the responder may be slow and respond at QoS 0, and on MQTT 3.1.1 the window is
 * unknown. So after one second of silence only the requests of the oldest message fail, which makes room for one message.
 * If the broker then delivers another message at once, its window was full, and the requests of all messages fail at the
 * next silence.
 */
export class BlockedRequests<R extends RequestingRun> {
  /** Time at which the silence is long enough for `look`. */
  dueMs: number | undefined
  private seen = 0
  private most = 0
  private isWindowKnown = false
  private quietMs = QUIET_MS
  /** Requests have failed. The next delivery of the broker shows whether its window was full. */
  private blocked: { readonly added: number; readonly atMs: number } | undefined
  private isProven = false

  /** @param maxInFlight the window of the broker, on MQTT 5 */
  constructor(
    private readonly maxInFlight: number,
    private readonly messages: {
      readonly unacknowledged: readonly WindowMessage<R>[]
      /** Number of QoS 1 messages so far. */
      readonly added: number
    },
    private readonly pool: {
      /** Open requests of runs that wait for a delivery at QoS 1. */
      readonly blockable: number
      /** Number of requests of runs, and of runs, that have ended so far. */
      readonly endedCount: number
      /** Returns the run that a run which has not started waits for. */
      ahead(run: R): R | undefined
    },
  ) {}

  /** A message arrived, or a run has ended or waits. @returns the requests that are certainly blocked */
  check(isWindowKnown: boolean, nowMs: number): readonly BlockableRequest[] {
    const { unacknowledged } = this.messages
    this.judge(nowMs)
    // A broker that has delivered more messages before is not at its limit.
    this.most = Math.max(this.most, unacknowledged.length)
    this.isWindowKnown = isWindowKnown
    const [oldest] = unacknowledged
    if (oldest === undefined || unacknowledged.length < this.windowSize) return NONE
    const waiting = isWindowKnown ? this.waitingOf(oldest) : undefined
    if (waiting?.every(run => hasRequest(run, 'both'))) return requestsOf(waiting)
    if (this.hasChanged() || this.dueMs === undefined) this.dueMs = nowMs + this.quietMs
    return NONE
  }

  /** Nothing has changed until `dueMs`. @returns the requests that are considered blocked */
  look(nowMs: number): readonly BlockableRequest[] {
    const { unacknowledged } = this.messages
    this.dueMs = undefined
    const [oldest] = unacknowledged
    if (oldest === undefined || this.pool.blockable === 0) return NONE
    if (unacknowledged.length < this.windowSize) return NONE
    const waiting = this.hasChanged() ? undefined : this.allWaiting(unacknowledged)
    if (waiting === undefined) {
      this.dueMs = nowMs + this.quietMs
      return NONE
    }
    this.blocked = { added: this.messages.added, atMs: nowMs }
    return requestsOf(this.isProven ? waiting : (this.waitingOf(oldest) ?? []))
  }

  /** The connection has ended. */
  forget(): void {
    this.dueMs = undefined
    this.most = 0
    this.blocked = undefined
    this.isProven = false
    this.quietMs = QUIET_MS
  }

  private get windowSize(): number {
    return this.isWindowKnown ? this.maxInFlight : Math.max(SMALLEST_WINDOW, this.most)
  }

  private judge(nowMs: number): void {
    if (this.blocked === undefined || this.blocked.added === this.messages.added) return
    const hadMore = nowMs - this.blocked.atMs < QUIET_MS
    if (hadMore) this.quietMs = QUIET_MS
    else if (!this.isProven) this.quietMs = Math.min(2 * this.quietMs, LONGEST_QUIET_MS)
    this.blocked = undefined
    this.isProven = hadMore
  }

  /** Returns the runs that wait for responses; undefined if something else may make room in the window. */
  private allWaiting(messages: readonly WindowMessage<R>[]): R[] | undefined {
    const waiting: R[] = []
    let mustAllWait = true
    for (const [place, message] of messages.entries()) {
      // Behind the oldest message, it does not matter why a message waits whose handlers have not started.
      if (message.mayBeAcknowledged || (place > 0 && message.started === 0)) continue
      const runs = this.waitingOf(message)
      if (runs === undefined && mustAllWait) return undefined
      waiting.push(...(runs ?? []))
      // Another message may hold the handler that should respond.
      if (place === 0 && this.isWindowKnown) mustAllWait = waiting.some(run => hasRequest(run, 'request'))
    }
    return waiting
  }

  private hasChanged(): boolean {
    const now = this.messages.added + this.pool.endedCount
    const hasChanged = now !== this.seen
    this.seen = now
    return hasChanged
  }

  /** Returns the runs whose requests prevent the message from being acknowledged; undefined if there is another cause. */
  private waitingOf({ runs }: WindowMessage<R>): R[] | undefined {
    const waiting: R[] = []
    for (const run of runs) {
      if (run.isEnded) continue
      const begun = run.state === 'waiting' ? this.pool.ahead(run) : run
      if (begun === undefined || (begun.context?.blockable.size ?? 0) === 0) return undefined
      waiting.push(begun)
    }
    return waiting.length > 0 ? waiting : undefined
  }
}

function hasRequest(run: RequestingRun, kind: BlockableRequest['delivery']): boolean {
  return requestsOf([run]).some(({ delivery }) => delivery === kind)
}

function requestsOf(runs: readonly RequestingRun[]): BlockableRequest[] {
  return runs.flatMap(({ context }) => [...(context?.blockable ?? [])])
}

import type { Link } from '../connection/link.js'
import type { BlockableRequest, Delivery, HandlerRun } from './delivery.js'

/** Fewer unacknowledged messages fill the window of no broker. */
const SMALLEST_WINDOW = 10
/** A broker that may deliver more has done so by then. */
const QUIET_MS = 1_000
const LONGEST_QUIET_MS = 30_000

/**
 * Fails requests whose response cannot come: the broker delivers it at QoS 1, and its window is full of messages whose
 * handlers wait for such responses. Their acknowledgements leave in order of arrival, so the oldest message decides.
 *
 * Silence alone is no proof: the responder may be slow and respond at QoS 0, and on MQTT 3.1.1 the window is unknown. So
 * after a second of silence only the requests of the oldest message fail, which makes room for one message. A broker that
 * delivers another one at once was held back by its window, and the requests of all messages fail at the next silence.
 */
export class BlockedRequests {
  private seen = 0
  private most = 0
  private isWindowKnown = false
  private timer: NodeJS.Timeout | undefined
  private quietMs = QUIET_MS
  /** Requests have failed, and what the broker delivers next shows whether its window was full. */
  private blocked: { readonly added: number; readonly atMs: number } | undefined
  private isProven = false

  /** @param maxInFlight the window of the broker, on MQTT 5 */
  constructor(
    private readonly maxInFlight: number,
    private readonly messages: { readonly unacknowledged: readonly Delivery[]; readonly added: number },
    private readonly pool: {
      readonly blockable: number
      readonly endedCount: number
      ahead(run: HandlerRun): HandlerRun | undefined
    },
  ) {}

  /** Requests of runs are open that wait for a delivery at QoS 1. */
  check(link: Pick<Link, 'protocolVersion'> | undefined): void {
    const open = this.messages.unacknowledged
    this.judge()
    // A broker that has delivered more before is not at its limit.
    this.most = Math.max(this.most, open.length)
    this.isWindowKnown = link?.protocolVersion === 5
    const [oldest] = open
    if (oldest === undefined || open.length < this.windowSize) return
    const waiting = this.isWindowKnown ? this.waitingOf(oldest) : undefined
    if (waiting?.every(run => hasRequest(run, 'both'))) return block(waiting)
    this.timer ??= setTimeout(() => this.quiet(), this.quietMs)
    if (this.hasChanged()) this.timer.refresh()
  }

  /** The connection is gone. */
  forget(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.most = 0
    this.blocked = undefined
    this.isProven = false
    this.quietMs = QUIET_MS
  }

  private get windowSize(): number {
    return this.isWindowKnown ? this.maxInFlight : Math.max(SMALLEST_WINDOW, this.most)
  }

  private quiet(): void {
    this.timer = undefined
    const open = this.messages.unacknowledged
    if (this.pool.blockable === 0 || open.length < this.windowSize) return
    const waiting = this.hasChanged() ? undefined : this.allWaiting(open)
    const [oldest] = open
    if (waiting === undefined || oldest === undefined) {
      this.timer = setTimeout(() => this.quiet(), this.quietMs)
      return
    }
    this.blocked = { added: this.messages.added, atMs: performance.now() }
    block(this.isProven ? waiting : (this.waitingOf(oldest) ?? []))
  }

  private judge(): void {
    if (this.blocked === undefined || this.blocked.added === this.messages.added) return
    const hadMore = performance.now() - this.blocked.atMs < QUIET_MS
    if (hadMore) this.quietMs = QUIET_MS
    else if (!this.isProven) this.quietMs = Math.min(2 * this.quietMs, LONGEST_QUIET_MS)
    this.blocked = undefined
    this.isProven = hadMore
  }

  /** The runs that wait for responses; undefined when something else may make room in the window. */
  private allWaiting(open: readonly Delivery[]): HandlerRun[] | undefined {
    const waiting: HandlerRun[] = []
    let mustAllWait = true
    for (const [place, message] of open.entries()) {
      // Behind the oldest one it does not matter what a message waits for that no handler has begun.
      if (message.mayBeAcknowledged || (place > 0 && message.started === 0)) continue
      const runs = this.waitingOf(message)
      if (runs === undefined && mustAllWait) return undefined
      waiting.push(...(runs ?? []))
      // Another message can hold the handler that is to respond.
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

  /** The runs whose requests keep the message from its end; undefined when something else does. */
  private waitingOf({ runs }: Delivery): HandlerRun[] | undefined {
    const waiting: HandlerRun[] = []
    for (const run of runs) {
      if (run.isEnded) continue
      const begun = run.state === 'waiting' ? this.pool.ahead(run) : run
      if (begun === undefined || (begun.context?.blockable.size ?? 0) === 0) return undefined
      waiting.push(begun)
    }
    return waiting.length > 0 ? waiting : undefined
  }
}

function hasRequest({ context }: HandlerRun, kind: BlockableRequest['delivery']): boolean {
  return [...(context?.blockable ?? [])].some(({ delivery }) => delivery === kind)
}

function block(runs: readonly HandlerRun[]): void {
  for (const { context } of runs) for (const request of [...(context?.blockable ?? [])]) request.block()
}

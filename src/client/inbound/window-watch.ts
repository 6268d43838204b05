import type { BlockableRequest, BlockedRequests } from '../../core/inbound/blocked-requests.js'
import type { Link } from '../connection/link.js'
import type { HeldUp, Hook, Notice } from '../events.js'
import type { Delivery, HandlerRun } from './delivery.js'

const LOOK_MS = 1_000
const LONG_MS = 10_000

/**
 * Detects an unacknowledged message that remains the oldest for a long time. Uses one timer and has no cost per message.
 */
export class AckWatch {
  isRunning = false
  private timer: NodeJS.Timeout | undefined
  private oldest: Delivery | undefined
  private sinceMs = 0
  private held: HeldUp | undefined

  constructor(
    private readonly messages: { readonly unacknowledged: readonly Delivery[] },
    private readonly notice: Hook<Notice>,
  ) {}

  /** How long the oldest message has been the oldest, measured once per second. */
  get oldestMs(): number {
    const [oldest] = this.messages.unacknowledged
    return oldest === undefined || oldest !== this.oldest ? 0 : Math.round(performance.now() - this.sinceMs)
  }

  /** Set while the oldest message holds back the acknowledgements of others, measured once per second. */
  get heldUp(): HeldUp | undefined {
    return this.messages.unacknowledged[0] === this.oldest ? this.held : undefined
  }

  /** Starts the timer. Called when a message arrives and the timer is not running. */
  start(): void {
    this.isRunning = true
    this.timer = setTimeout(this.look, LOOK_MS).unref()
  }

  /** The connection has ended. */
  stop(): void {
    clearTimeout(this.timer)
    this.isRunning = false
    this.oldest = undefined
    this.held = undefined
  }

  private readonly look = (): void => {
    const [oldest, ...behind] = this.messages.unacknowledged
    if (oldest === undefined) return this.stop()
    this.timer?.refresh()
    this.held = undefined
    if (oldest !== this.oldest) {
      this.oldest = oldest
      this.sinceMs = performance.now()
    }
    if (this.oldestMs < LONG_MS || !behind.some(isIdle)) return
    const { packet, runs } = oldest
    const patterns = runs.flatMap(({ isEnded, handler }) => (isEnded ? [] : [handler.name]))
    this.held = { topic: packet.topic, patterns, ageMs: this.oldestMs, behind: behind.length }
    this.notice.emit({ type: 'acknowledgements-held-up', heldUp: this.held })
  }
}

/** None of its code is executing: it waits for its acknowledgement, a retry, a dead letter or `ack()`. */
function isIdle({ mayBeAcknowledged, runs }: Delivery): boolean {
  return (
    mayBeAcknowledged ||
    runs.some(({ state, isEnded }) => !isEnded && (state === 'paused' || state === 'returned'))
  )
}

/** Fails blocked requests, at once or after a period without messages. */
export class BlockedRequestsWatch {
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly requests: BlockedRequests<HandlerRun>) {}

  /** Something has changed while open requests wait for a delivery at QoS 1. */
  check(isWindowKnown: boolean): void {
    this.block(this.requests.check(isWindowKnown, performance.now()))
  }

  /** The connection has ended. */
  forget(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.requests.forget()
  }

  private readonly look = (): void => {
    const nowMs = performance.now()
    const { dueMs } = this.requests
    this.timer = undefined
    // Something has changed since the timer was set.
    this.block(dueMs === undefined || nowMs < dueMs ? [] : this.requests.look(nowMs))
  }

  private block(requests: readonly BlockableRequest[]): void {
    for (const request of requests) request.block()
    const { dueMs } = this.requests
    if (dueMs !== undefined && this.timer === undefined)
      this.timer = setTimeout(this.look, Math.max(1, Math.ceil(dueMs - performance.now())))
  }
}

/** If no handler ends within this time, the running handlers may wait for data that is not read. */
const PATIENCE_MS = 250

/**
 * Stops reading, so that the broker does not send more than the handlers process. Responses to requests and QoS 1 publishes
 * of handlers on the same connection arrive behind the unread messages. If handlers may be waiting for these, reading
 * resumes. Messages for which there is no room are then dropped (QoS 0), or left to the broker.
 */
export class Stall {
  private paused: Link | undefined
  private isYielding = false
  private hasProgressed = false
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly session: {
      /** Whether this client waits for a response from the broker. */
      readonly awaitsResponses: boolean
    },
  ) {}

  /** @returns false if reading must continue */
  pause(link: Link): boolean {
    if (this.isYielding) return false
    if (this.paused === undefined) {
      link.pauseIntake()
      this.paused = link
      this.watch()
    }
    return true
  }

  /** Nothing that is unread is awaited any more. */
  pauseAgain(link: Link): void {
    this.isYielding = false
    this.pause(link)
  }

  /** A handler has ended. */
  progressed(): void {
    this.hasProgressed = true
  }

  /** There is room again. */
  release(): void {
    this.isYielding = false
    if (this.paused === undefined) return
    const link = this.paused
    this.forget()
    link.resumeIntake()
  }

  /** The connection has ended. */
  forget(): void {
    clearTimeout(this.timer)
    this.paused = undefined
    this.isYielding = false
  }

  private watch(): void {
    this.hasProgressed = false
    this.timer = setTimeout(() => {
      if (this.hasProgressed || !this.session.awaitsResponses) return this.watch()
      const link = this.paused
      this.forget()
      this.isYielding = true
      link?.resumeIntake()
    }, PATIENCE_MS)
  }
}

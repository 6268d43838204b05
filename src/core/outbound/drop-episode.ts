import type { DropReason } from './publish-outcome.js'

/** What the caller asked for needs no line in the log. */
const AS_ASKED: readonly DropReason[] = ['superseded', 'aborted', 'closed']
/** Without a drop for so long, the trouble is over. */
const CALM_MS = 1_000

/** Tells of drops once when they begin, and once, with their number, when they are over. */
export class DropEpisode {
  private counts = new Map<DropReason, number>()
  private startedMs = 0
  private lastMs = 0

  /** Whether drops were told of whose end was not. */
  get isOpen(): boolean {
    return this.counts.size > 0
  }

  /** @returns what to log */
  dropped(reason: DropReason, nowMs: number): string | undefined {
    if (this.counts.size === 0 && AS_ASKED.includes(reason)) return undefined
    const isFirst = this.counts.size === 0
    if (isFirst) this.startedMs = nowMs
    this.lastMs = nowMs
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1)
    return isFirst ? BEGINNING[reason] : undefined
  }

  /** Nothing waits. @returns what to log */
  caughtUp(nowMs: number): string | undefined {
    return this.counts.size > 0 && nowMs - this.lastMs >= CALM_MS ? this.ended(nowMs) : undefined
  }

  /** The connection came or went. @returns what to log */
  ended(nowMs: number): string | undefined {
    if (this.counts.size === 0) return undefined
    const reasons = [...this.counts]
    this.counts = new Map()
    const total = reasons.reduce((sum, [, count]) => sum + count, 0)
    const seconds = ((nowMs - this.startedMs) / 1_000).toFixed(1)
    const list = reasons.map(([reason, count]) => `${reason} ${count}`).join(', ')
    return `${total} publishes were dropped within ${seconds} s: ${list}`
  }
}

const BEGINNING: Partial<Record<DropReason, string>> = {
  offline: 'publishes are dropped while there is no connection',
  backlog: 'publishes are dropped: the link is slower than they come',
  'in-flight-full': 'publishes are dropped: the broker acknowledges more slowly than they come',
  'queue-full': 'publishes are dropped: outbound.maxQueued or outbound.maxQueuedBytes is reached',
  expired: 'publishes are dropped: they waited longer than they may',
}

import type { ConnectionState } from './connection/connection-state.js'
import type { DropReason } from './outbound/publish-outcome.js'

/** How long repeats of one line are collected. */
const WINDOW_MS = 10_000
/** So many different lines at a time; what else comes meanwhile is collected as one. */
const MAX_OPEN = 100
const OTHERS = 'failures of other causes'

/** What was collected behind one line. */
export interface Repeats<T> {
  readonly line: string
  readonly tag: T
  readonly count: number
  /** From the line, or the last count, until now. */
  readonly withinMs: number
}

interface Window<T> {
  readonly tag: T
  startedMs: number
  count: number
}

/**
 * Which lines a log takes at once, and which it counts: the first of each at once, its repeats once in 10 s with their
 * number. Decides only; its owner has the clock and the timer.
 */
export class LogWindows<T> {
  /** In the order in which they end. */
  private readonly open = new Map<string, Window<T>>()

  /** @returns whether to log it now */
  happened(line: string, tag: T, nowMs: number): boolean {
    const key = this.open.has(line) || this.open.size < MAX_OPEN ? line : OTHERS
    const window = this.open.get(key)
    if (window === undefined) this.open.set(key, { tag, startedMs: nowMs, count: 0 })
    else window.count += 1
    return window === undefined
  }

  /** When something has to be looked at next. */
  get nextEndMs(): number {
    const [first] = this.open.values()
    return first === undefined ? Number.POSITIVE_INFINITY : first.startedMs + WINDOW_MS
  }

  /** What ended by now. What was repeated goes on being collected. */
  ended(nowMs: number): Repeats<T>[] {
    const repeats: Repeats<T>[] = []
    for (const [line, window] of this.open) {
      if (window.startedMs + WINDOW_MS > nowMs) break
      this.open.delete(line)
      const { tag, count, startedMs } = window
      if (count === 0) continue
      repeats.push({ line, tag, count, withinMs: nowMs - startedMs })
      this.open.set(line, { tag, startedMs: nowMs, count: 0 })
    }
    return repeats
  }

  /** All that was collected; nothing is open any more. */
  flush(nowMs: number): Repeats<T>[] {
    const repeats = [...this.open]
      .filter(([, { count }]) => count > 0)
      .map(([line, { tag, count, startedMs }]) => ({ line, tag, count, withinMs: nowMs - startedMs }))
    this.open.clear()
    return repeats
  }
}

const LONGEST = 200

/** A text from outside for a log: quoted, without control characters, and not longer than a line may be. */
export function printable(text: string): string {
  return JSON.stringify(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text)
}

const LONGEST_FAILURE = 500

/** The text of an error as a part of one line. */
export function oneLine(text: string): string {
  const short = text.length > LONGEST_FAILURE ? `${text.slice(0, LONGEST_FAILURE)}…` : text
  return short.replace(/[\p{Cc}\s]+/gu, ' ')
}

export type LogLevel = 'error' | 'warn' | 'log' | 'debug'

export type SessionLog = Record<LogLevel, (text: string) => void>

export interface LogLine {
  readonly level: LogLevel
  readonly text: string
}

const versionName = (protocolVersion: 4 | 5): string => (protocolVersion === 5 ? 'MQTT 5' : 'MQTT 3.1.1')

/** Returns the log line for a change of state. */
export function describeTransition(state: ConnectionState, before: ConnectionState, target: string): LogLine {
  switch (state.status) {
    case 'connecting':
      return describeConnecting(state, target)
    case 'connected': {
      const { protocolVersion, sessionPresent, broker } = state.session
      const attempts = state.attempt > 1 ? ` at attempt ${state.attempt}` : ''
      const session = sessionPresent ? 'session resumed' : 'new session'
      return {
        level: 'log',
        text: `connected to ${broker} with ${versionName(protocolVersion)}${attempts}, ${session}`,
      }
    }
    case 'waiting': {
      const what = before.status === 'connected' ? 'connection lost' : `attempt ${state.attempt} failed`
      return { level: 'warn', text: `${what}: ${state.cause.message}; next attempt in ${state.delayMs} ms` }
    }
    case 'closed':
      return state.cause === undefined
        ? { level: 'log', text: `connection to ${target} closed` }
        : { level: 'error', text: `stopped for good: ${state.cause.message}` }
    case 'closing':
    case 'idle':
      return { level: 'debug', text: `${state.status} (${target})` }
  }
}

function describeConnecting(
  { attempt, cause }: Extract<ConnectionState, { status: 'connecting' }>,
  target: string,
): LogLine {
  if (cause === undefined) return { level: 'debug', text: `connecting to ${target}, attempt ${attempt}` }
  return cause.serverReference === undefined
    ? {
        level: 'debug',
        text: `connecting with ${versionName(4)}, because ${versionName(5)} failed: ${cause.message}`,
      }
    : {
        level: 'warn',
        text: `${cause.message}; redirected to ${printable(cause.serverReference).slice(1, -1)}`,
      }
}

/** What the caller asked for needs no line in the log. */
const AS_ASKED: readonly DropReason[] = ['superseded', 'aborted', 'closed']
/** Log lines for dropped publishes: one when drops begin, and one, with their number, when they are over. */
export class DropLines {
  private counts = new Map<DropReason, number>()
  private startedMs = 0

  /** @returns what to log */
  dropped(reason: DropReason, nowMs: number): string | undefined {
    if (this.counts.size === 0 && AS_ASKED.includes(reason)) return undefined
    const isFirst = this.counts.size === 0
    if (isFirst) this.startedMs = nowMs
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1)
    return isFirst ? BEGINNING[reason] : undefined
  }

  /** The drops are over, or the connection came or went. @returns what to log */
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

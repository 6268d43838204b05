import type { ConnectionState } from './connection/connection-state.js'
import { type MqttError, readSafely } from './errors.js'
import type { StoredOutcome } from './outbound/message-store.js'
import type { DropReason } from './outbound/publish-outcome.js'

/** Messages that hold back the acknowledgements of others. */
export interface HeldUp {
  readonly topic: string
  readonly patterns: readonly string[]
  readonly ageMs: number
  /** Number of messages that wait behind it. */
  readonly behind: number
}

/** What was unfinished when a shutdown reached its time limit. */
export interface LeftBehind {
  readonly running: number
  readonly waiting: number
  readonly streams: number
  readonly unacknowledged: number
  readonly queued: number
}

/** Events for an operator. The journal turns them into log lines. */
export type Notice =
  | {
      readonly type: 'handler-failed'
      readonly pattern: string
      readonly topic: string
      readonly error: unknown
    }
  | { readonly type: 'unmatched'; readonly topic: string }
  | { readonly type: 'inbound-dropped' }
  | { readonly type: 'acknowledgements-held-up'; readonly heldUp: HeldUp }
  | { readonly type: 'publish-dropped'; readonly reason: DropReason }
  /** Nothing was dropped for a while, and nothing waits. */
  | { readonly type: 'drops-over' }
  | {
      readonly type: 'publish-refused'
      readonly topic: string
      readonly reasonCode: number
      readonly reasonString: string | undefined
    }
  | { readonly type: 'dead-letters-downgraded'; readonly topic: string }
  | { readonly type: 'dead-letter-refused'; readonly topic: string; readonly why: string }
  | { readonly type: 'dead-letter-without-subscriber'; readonly topic: string }
  | { readonly type: 'response-not-delivered'; readonly topic: string; readonly why: string }
  | { readonly type: 'stream-evicted'; readonly topic: string }
  /** It was not delivered. */
  | {
      readonly type: 'stored-message-ended'
      readonly topic: string
      readonly status: StoredOutcome['status']
    }
  | { readonly type: 'store-failed'; readonly why: string }
  | { readonly type: 'store-repaired'; readonly text: string }
  | { readonly type: 'subscription-refused'; readonly error: MqttError }
  | { readonly type: 'subscription-recovered'; readonly subscription: string }
  | { readonly type: 'subscription-warning'; readonly text: string }
  | { readonly type: 'presence-failed'; readonly text: string }
  | { readonly type: 'connection-warning'; readonly text: string }
  | { readonly type: 'state'; readonly state: ConnectionState; readonly before: ConnectionState }
  | { readonly type: 'connection-lost'; readonly wasShort: boolean }
  | { readonly type: 'session-lost' }
  | { readonly type: 'credentials-not-renewed'; readonly why: string }
  | { readonly type: 'failure-while-ending'; readonly cause: MqttError }
  | { readonly type: 'shutdown-gave-up'; readonly afterMs: number; readonly left: LeftBehind }

/** How long repeats of one line are counted, in milliseconds. */
const WINDOW_MS = 10_000
/** Number of different lines that are counted separately. Further lines are counted together. */
const MAX_OPEN = 100
const OTHERS = 'other failures'

/** Repeats of one line. */
export interface Repeats<T> {
  readonly line: string
  readonly tag: T
  readonly count: number
  /** Time since the line, or since the last count. */
  readonly withinMs: number
}

interface Window<T> {
  readonly tag: T
  startedMs: number
  count: number
}

/**
 * Decides which lines are logged at once and which are counted: the first of each is logged at once, its repeats are
 * counted in one line per 10 s.
 */
export class LogWindows<T> {
  /** In the order in which they end. */
  private readonly open = new Map<string, Window<T>>()

  /** @returns whether to log the line now */
  happened(line: string, tag: T, nowMs: number): boolean {
    const key = this.open.has(line) || this.open.size < MAX_OPEN ? line : OTHERS
    const window = this.open.get(key)
    if (window === undefined) this.open.set(key, { tag, startedMs: nowMs, count: 0 })
    else window.count += 1
    return window === undefined
  }

  /** Time at which the next window ends. */
  get nextEndMs(): number {
    const [first] = this.open.values()
    return first === undefined ? Number.POSITIVE_INFINITY : first.startedMs + WINDOW_MS
  }

  /** Ends the windows that are over. A line with repeats gets a new window. */
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

  /** Ends all windows. */
  flush(nowMs: number): Repeats<T>[] {
    const repeats = [...this.open]
      .filter(([, { count }]) => count > 0)
      .map(([line, { tag, count, startedMs }]) => ({ line, tag, count, withinMs: nowMs - startedMs }))
    this.open.clear()
    return repeats
  }
}

const MAX_LENGTH = 200
const MAX_FAILURE_LENGTH = 500
/** JSON does not escape these: U+009B starts a command of a terminal, and U+202E reverses the rest of a line. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
const shortened = (text: string, max: number): string => (text.length > max ? `${text.slice(0, max)}…` : text)

/** Quotes a string from outside for a log line, without control characters and with a limited length. */
export function printable(text: string): string {
  return JSON.stringify(shortened(text, MAX_LENGTH)).replace(UNPRINTABLE, encodeURIComponent)
}

/** Shortens the text of an error to a part of one line. */
export function oneLine(text: string): string {
  return shortened(text, MAX_FAILURE_LENGTH).replace(/[\p{Cc}\s]+/gu, ' ')
}

/** A number with its noun: `1 message`, `2 messages`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
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

/** Reasons for drops that the application causes. They are not reported as problems. */
export const INTENDED: ReadonlySet<DropReason> = new Set<DropReason>(['superseded', 'aborted', 'closed'])

/** Creates the log lines for dropped publishes: one when drops start, and one with their number when they are over. */
export class DropLines {
  private counts = new Map<DropReason, number>()
  private startedMs = 0

  /** @returns what to log */
  dropped(reason: DropReason, nowMs: number): string | undefined {
    if (this.counts.size === 0 && INTENDED.has(reason)) return undefined
    const isFirst = this.counts.size === 0
    if (isFirst) this.startedMs = nowMs
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1)
    return isFirst ? BEGINNING[reason] : undefined
  }

  /** The drops are over, or the connection was established or lost. @returns what to log */
  ended(nowMs: number): string | undefined {
    if (this.counts.size === 0) return undefined
    const reasons = [...this.counts]
    this.counts = new Map()
    const total = reasons.reduce((sum, [, count]) => sum + count, 0)
    const seconds = ((nowMs - this.startedMs) / 1_000).toFixed(1)
    const list = reasons.map(([reason, count]) => `${reason} ${count}`).join(', ')
    return `${counted(total, 'publish was', 'publishes were')} dropped within ${seconds} s: ${list}`
  }
}

const BEGINNING: Partial<Record<DropReason, string>> = {
  offline: 'publishes are dropped while there is no connection',
  backlog: 'publishes are dropped: the link is slower than the data',
  'in-flight-full': 'publishes are dropped: the broker acknowledges them too slowly',
  'queue-full': 'publishes are dropped: outbound.maxQueued or outbound.maxQueuedBytes is reached',
  expired: 'publishes are dropped: they waited longer than allowed',
  'store-failed': 'publishes are dropped: the store could not write them',
  'store-full': 'publishes are dropped: the store is full',
}

/** Parts of the period of a `RecentCount`. */
const RECENT_PARTS = 12

/** Counts how often something happened within the last period, in twelve parts of it, with constant memory. */
export class RecentCount {
  private readonly counts = new Array<number>(RECENT_PARTS).fill(0)
  private readonly partMs: number
  /** The current part: the number of parts since time 0. */
  private part = 0

  /** @param periodMs length of the period */
  constructor(periodMs: number) {
    this.partMs = periodMs / RECENT_PARTS
  }

  happened(nowMs: number): void {
    this.advance(nowMs)
    const index = this.part % RECENT_PARTS
    this.counts[index] = (this.counts[index] ?? 0) + 1
  }

  /** @returns how often it happened in the current part and the eleven before it */
  within(nowMs: number): number {
    this.advance(nowMs)
    return this.counts.reduce((sum, count) => sum + count, 0)
  }

  private advance(nowMs: number): void {
    const part = Math.floor(nowMs / this.partMs)
    const passed = Math.min(RECENT_PARTS, part - this.part)
    for (let step = 1; step <= passed; step += 1) this.counts[(this.part + step) % RECENT_PARTS] = 0
    this.part = Math.max(this.part, part)
  }
}

const ORIGINAL = Symbol('original')

/** Attaches the original error to the error that is sent to others. Only the log of this process shows it. */
export function withOriginal<T extends object>(sent: T, original: unknown): T {
  return Object.defineProperty(sent, ORIGINAL, { value: original })
}

/** Returns the original error, or the error itself. */
export function originalOf(error: unknown): unknown {
  return readSafely(
    () => (typeof error === 'object' && error !== null && ORIGINAL in error ? error[ORIGINAL] : error),
    error,
  )
}

import { describeCause, describeFailure, isMqttError } from '../core/errors.js'
import {
  counted,
  DropLines,
  describeTransition,
  type LogLevel,
  LogWindows,
  oneLine,
  originalOf,
  printable,
  type Repeats,
  type SessionLog,
} from '../core/log-lines.js'
import { ENDED } from '../core/outbound/replay-rules.js'
import { describeReasonCode } from '../core/protocol/packets.js'
import { describeTarget } from '../options/option-checks.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import type { HeldUp, LeftBehind, Notice } from './events.js'

/** A broker that disconnects the older client when two use one Client Identifier disconnects both in turn. */
const SUSPICIOUS_CONNECTIONS = 3

/** Writes log lines for the events of a client: one when a problem starts, and its extent afterwards. */
export class Journal {
  private drops: DropLines | undefined
  private thinned: ThinnedLog | undefined
  private shortConnections = 0

  constructor(
    private readonly log: SessionLog,
    private readonly options: ResolvedOptions,
  ) {}

  readonly write = (notice: Notice): void => {
    switch (notice.type) {
      case 'state':
        return this.state(notice)
      case 'connection-lost':
        return this.connectionLost(notice.wasShort)
      case 'session-lost':
        return this.warn('the broker has lost the session: messages that it stored for this client are lost')
      case 'failure-while-ending':
        return this.log.debug(`after the connection ended: ${notice.cause.message}`)
      case 'publish-dropped':
        this.drops ??= new DropLines()
        return this.warn(this.drops.dropped(notice.reason, performance.now()))
      case 'drops-over':
        return this.warn(this.drops?.ended(performance.now()))
      case 'dead-letters-downgraded':
        return this.warn(
          `dead letters for "${notice.topic}" are published at QoS 0, because the broker does not support QoS 1; they may be lost`,
        )
      case 'subscription-refused':
        return this.log[this.options.refusedSubscription === 'warn' ? 'warn' : 'error'](notice.error.message)
      case 'subscription-recovered':
        return this.log.log(`the broker now grants the subscription "${notice.subscription}"`)
      case 'subscription-warning':
      case 'presence-failed':
      case 'connection-warning':
      case 'store-repaired':
        return this.warn(notice.text)
      case 'shutdown-gave-up':
        return this.warn(gaveUp(notice.afterMs, notice.left))
      default: {
        const { level, line, first } = thinnedLine(notice)
        this.thinned ??= new ThinnedLog(this.log)
        this.thinned.say(level, line, first)
      }
    }
  }

  /** Writes the collected lines. */
  flush(): void {
    this.thinned?.flush()
  }

  private state({ state, before }: Extract<Notice, { type: 'state' }>): void {
    const { level, text } = describeTransition(state, before, describeTarget(this.options))
    this.log[level](text)
    if (state.status === 'closed') this.flush()
    if ((state.status === 'connected') !== (before.status === 'connected'))
      this.warn(this.drops?.ended(performance.now()))
  }

  private connectionLost(wasShort: boolean): void {
    this.shortConnections = wasShort ? this.shortConnections + 1 : 0
    if (this.shortConnections !== SUSPICIOUS_CONNECTIONS) return
    this.warn(
      `${SUSPICIOUS_CONNECTIONS} consecutive connections ended early: is the Client Identifier "${this.options.clientId}" in use by another client?`,
    )
  }

  private warn(text: string | undefined): void {
    if (text !== undefined) this.log.warn(text)
  }
}

type ThinnedNotice = Exclude<
  Notice,
  {
    type:
      | 'state'
      | 'connection-lost'
      | 'session-lost'
      | 'failure-while-ending'
      | 'publish-dropped'
      | 'drops-over'
      | 'dead-letters-downgraded'
      | 'subscription-refused'
      | 'subscription-recovered'
      | 'subscription-warning'
      | 'presence-failed'
      | 'connection-warning'
      | 'store-repaired'
      | 'shutdown-gave-up'
  }
>

interface ThinnedLine {
  readonly level: LogLevel
  /** The part that all repeats have in common. */
  readonly line: string
  /** The line with the details of this event, such as its topic. */
  readonly first?: string
}

function thinnedLine(notice: ThinnedNotice): ThinnedLine {
  switch (notice.type) {
    case 'handler-failed':
      return handlerFailed(notice)
    case 'unmatched': {
      const first = `no handler matches ${printable(notice.topic)}`
      return { level: 'warn', line: 'messages without a matching handler', first }
    }
    case 'inbound-dropped':
      return { level: 'warn', line: INBOUND_DROPPED }
    case 'acknowledgements-held-up':
      return heldUp(notice.heldUp)
    case 'publish-refused':
      return publishRefused(notice)
    case 'response-not-delivered': {
      const { topic, why } = notice
      const first = `the response to ${printable(topic)} was not delivered: ${why}`
      return { level: 'warn', line: `responses that were not delivered: ${why}`, first }
    }
    case 'stream-evicted': {
      const first = `the oldest response stream, to ${printable(notice.topic)}, was ended to make room (requests.maxStreams)`
      return { level: 'warn', line: STREAM_EVICTED, first }
    }
    case 'stored-message-ended': {
      const first = `a stored message for ${printable(notice.topic)} ${ENDED[notice.status]}`
      const level = notice.status === 'set-aside' ? 'error' : 'warn'
      return { level, line: `stored messages: each ${ENDED[notice.status]}`, first }
    }
    case 'store-failed':
      return { level: 'error', line: `the message store failed: ${oneLine(notice.why)}` }
    case 'credentials-not-renewed':
      return { level: 'warn', line: `the credentials were not renewed: ${oneLine(notice.why)}` }
    case 'dead-letter-without-subscriber': {
      const line = `nobody subscribes to the dead letter topic "${notice.topic}"; its dead letters are lost`
      return { level: 'warn', line }
    }
    case 'dead-letter-refused': {
      const line = `a dead letter cannot be published to "${notice.topic}": ${oneLine(notice.why)}`
      return { level: 'error', line }
    }
  }
}

const INBOUND_DROPPED =
  'QoS 0 messages were dropped, because they arrive faster than handlers run; raise inbound.concurrency, inbound.maxQueued or inbound.maxQueuedBytes'
const STREAM_EVICTED = 'response streams were ended to make room for others (requests.maxStreams)'

/** The handler failed for the last time. */
function handlerFailed({ pattern, topic, error }: Extract<Notice, { type: 'handler-failed' }>): ThinnedLine {
  const who = `the handler of ${printable(pattern)} failed`
  const cause = oneLine(describeFailure(originalOf(error)))
  const common = commonCause(error)
  const message =
    common !== undefined && cause.includes(`"${topic}"`) ? '' : ` for a message on ${printable(topic)}`
  return { level: 'error', line: `${who}: ${common ?? cause}`, first: `${who}${message}: ${cause}` }
}

/** The texts of these errors name the topic, which differs between messages. */
function commonCause(error: unknown): string | undefined {
  if (isMqttError(error, 'PAYLOAD_NOT_DECODABLE')) return 'the payload could not be decoded'
  if (isMqttError(error, 'PAYLOAD_INVALID')) return 'a payload or a response is not valid'
  return undefined
}

function heldUp({ topic, patterns, ageMs, behind }: HeldUp): ThinnedLine {
  const who = `the handler of ${patterns.map(printable).join(', ')}`
  const why = 'acknowledgements are sent in order of arrival; shorten its timeoutMs or retries'
  const first = `${who} has not finished a message on ${printable(topic)} after ${Math.round(ageMs / 1_000)} s, and holds back the acknowledgements of ${counted(behind, 'message')}: ${why}`
  return { level: 'warn', line: `${who} holds back acknowledgements: ${why}`, first }
}

function publishRefused(notice: Extract<Notice, { type: 'publish-refused' }>): ThinnedLine {
  const code = describeReasonCode(notice.reasonCode)
  const said = notice.reasonString === undefined ? '' : `, ${printable(notice.reasonString)}`
  const first = `the broker refused the publish to ${printable(notice.topic)}: ${code}${said}`
  return { level: 'error', line: `publishes that the broker refused with ${code}`, first }
}

function gaveUp(afterMs: number, left: LeftBehind): string {
  const running = `${counted(left.running, 'message')} in handlers or waiting for ack(), ${left.waiting} waiting for a handler`
  const streams = counted(left.streams, 'open response stream')
  const publishes = `${counted(left.unacknowledged, 'publish', 'publishes')} without an acknowledgement, ${left.queued} not written`
  return `shutdown stopped waiting after ${Math.round(afterMs)} ms: ${running}, ${streams}, ${publishes}`
}

/** A log that counts repeats, so that a failure in a flood of messages produces one line in 10 s. */
export class ThinnedLog {
  private readonly windows = new LogWindows<LogLevel>()
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly log: SessionLog,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /**
   * @param line the part that all repeats have in common
   * @param first the line with the details of this event, such as its topic
   */
  say(level: LogLevel, line: string, first = line): void {
    const nowMs = this.nowMs()
    // Timers of a busy process are late.
    if (this.windows.nextEndMs <= nowMs) this.report(this.windows.ended(nowMs))
    if (!this.windows.happened(line, level, nowMs)) return
    this.log[level](first)
    this.wait(nowMs)
  }

  /** Writes the collected lines. */
  flush(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.report(this.windows.flush(this.nowMs()))
  }

  private wait(nowMs: number): void {
    if (this.timer !== undefined || this.windows.nextEndMs === Number.POSITIVE_INFINITY) return
    this.timer = setTimeout(
      () => {
        this.timer = undefined
        const endMs = this.nowMs()
        this.report(this.windows.ended(endMs))
        this.wait(endMs)
      },
      Math.ceil(this.windows.nextEndMs - nowMs),
    )
    this.timer.unref()
  }

  private report(repeats: readonly Repeats<LogLevel>[]): void {
    for (const { line, tag, count, withinMs } of repeats)
      this.log[tag](`${line}: ${count} more within ${(withinMs / 1_000).toFixed(1)} s`)
  }
}

/** A logger that tolerates failures of the original: the first failure is reported as a process warning. */
export class GuardedLog implements SessionLog {
  private hasFailed = false

  constructor(private readonly original: SessionLog) {}

  error(text: string): void {
    this.write('error', text)
  }

  warn(text: string): void {
    this.write('warn', text)
  }

  log(text: string): void {
    this.write('log', text)
  }

  debug(text: string): void {
    this.write('debug', text)
  }

  private write(level: LogLevel, text: string): void {
    try {
      // The logger of an application may also be asynchronous.
      const written: unknown = this.original[level](text)
      if (written instanceof Promise) written.catch(error => this.failed(error))
    } catch (error) {
      this.failed(error)
    }
  }

  private failed(error: unknown): void {
    if (!this.hasFailed) process.emitWarning(`the logger of the client failed: ${describeCause(error)}`)
    this.hasFailed = true
  }
}

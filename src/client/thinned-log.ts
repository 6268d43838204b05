import { describeCause } from '../core/errors.js'
import { type LogLevel, LogWindows, type Repeats, type SessionLog } from '../core/log-lines.js'

/** A log whose repeats are counted, so that a failure in a flood of messages costs a line in 10 s. */
export class ThinnedLog {
  private readonly windows = new LogWindows<LogLevel>()
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly log: SessionLog,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /**
   * @param line what all repeats have in common
   * @param first the same with what belongs to this one alone, such as its topic
   */
  say(level: LogLevel, line: string, first = line): void {
    const nowMs = this.nowMs()
    // A process that is busy has late timers.
    if (this.windows.nextEndMs <= nowMs) this.report(this.windows.ended(nowMs))
    if (!this.windows.happened(line, level, nowMs)) return
    this.log[level](first)
    this.wait(nowMs)
  }

  /** Logs what is collected. */
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

/** The same log, but one that fails stops nothing: it is reported once as a warning of the process. */
export function guardedLog(log: SessionLog): SessionLog {
  let hasFailed = false
  const failed = (error: unknown): void => {
    if (!hasFailed) process.emitWarning(`the logger of the client failed: ${describeCause(error)}`)
    hasFailed = true
  }
  const guarded = (level: LogLevel) => (text: string) => {
    try {
      // The logger of an application may be asynchronous all the same.
      const written: unknown = log[level](text)
      if (written instanceof Promise) written.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
  return { error: guarded('error'), warn: guarded('warn'), log: guarded('log'), debug: guarded('debug') }
}

import type { SessionLog } from '../../src/core/log-lines.js'

export interface RecordedLine {
  readonly level: keyof SessionLog
  readonly text: string
}

/** A log that keeps its lines. */
export class RecordingLog implements SessionLog {
  readonly lines: RecordedLine[] = []
  readonly error = this.recorder('error')
  readonly warn = this.recorder('warn')
  readonly log = this.recorder('log')
  readonly debug = this.recorder('debug')

  /** Lines that a person sees with the usual log level. */
  get visible(): string[] {
    return this.lines.filter(line => line.level !== 'debug').map(line => line.text)
  }

  private recorder(level: keyof SessionLog) {
    return (text: string): void => {
      this.lines.push({ level, text })
    }
  }
}

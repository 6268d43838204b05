import { counted } from '../../core/log-lines.js'
import type { Examined } from './examine.js'
import type { Finding } from './finding.js'
import { findingsOf } from './findings.js'
import type { Observations } from './observations.js'
import type { Traffic } from './raw-connection.js'
import type { NoConnection } from './target.js'

/** Exit codes of `nestjs-mqtt doctor`. 1 means that the arguments are wrong; after a signal, it is 128 plus the number of the signal. */
export const EXIT = { healthy: 0, noConnection: 2, warnings: 3, incomplete: 4 } as const

/** What `--json` writes. Fields are added in minor versions only, and never removed. */
export interface DoctorReport {
  readonly schemaVersion: 1
  /** The URL without user, password and query. */
  readonly target: string
  readonly exitCode: number
  readonly durationMs: number
  /** Whether there was time for every check. */
  readonly isComplete: boolean
  readonly protocolVersion: 4 | 5 | null
  readonly brokerVersion: string | null
  readonly findings: readonly Finding[]
  readonly observations: Observations | null
  readonly traffic: Traffic
  /** Retained messages and sessions that could not be removed. */
  readonly leftBehind: readonly string[]
  /** Why there is no connection. */
  readonly error: { readonly kind: NoConnection['kind'] | 'interrupted'; readonly message: string } | null
}

interface Run {
  readonly target: string
  readonly durationMs: number
  readonly traffic: Traffic
  readonly leftBehind: readonly string[]
  /** Exit code after a signal. */
  readonly interruptedWith?: number | undefined
}

export function reportOf({ observations, isComplete }: Examined, run: Run): DoctorReport {
  const findings = findingsOf(observations)
  const hasWarnings = findings.some(({ level }) => level === 'warning')
  return {
    schemaVersion: 1,
    target: run.target,
    exitCode:
      run.interruptedWith ?? (!isComplete ? EXIT.incomplete : hasWarnings ? EXIT.warnings : EXIT.healthy),
    durationMs: run.durationMs,
    isComplete,
    protocolVersion: observations.protocolVersion,
    brokerVersion: observations.brokerVersion ?? null,
    findings,
    observations,
    traffic: run.traffic,
    leftBehind: run.leftBehind,
    error: null,
  }
}

export function reportOfFailure(error: NonNullable<DoctorReport['error']>, run: Run): DoctorReport {
  const { kind, message } = error
  return {
    schemaVersion: 1,
    target: run.target,
    exitCode: run.interruptedWith ?? EXIT.noConnection,
    durationMs: run.durationMs,
    isComplete: false,
    protocolVersion: null,
    brokerVersion: null,
    findings: [],
    observations: null,
    traffic: run.traffic,
    leftBehind: run.leftBehind,
    error: { kind, message },
  }
}

/** Higher exit codes stand for a signal. */
export const AFTER_SIGNAL = 128

const WIDTH = 9
const TITLE_WIDTH = 26
const INDENT = ' '.repeat(WIDTH)

/** The report for a person. */
export function textOf(report: DoctorReport): string {
  const { target, protocolVersion, brokerVersion, findings, traffic, durationMs } = report
  const name = protocolVersion === 5 ? 'MQTT 5' : 'MQTT 3.1.1'
  const version = brokerVersion === null ? '' : ` (${brokerVersion})`
  const lines = [`${target}${version}, checked with ${name}`, '']
  for (const { level, title, text, advice, options } of findings) {
    lines.push(`${level.padEnd(WIDTH)}${title.padEnd(TITLE_WIDTH)}${text}`)
    if (level === 'ok') continue
    if (advice !== undefined) lines.push(`${INDENT}-> ${advice}`)
    if (options !== undefined) lines.push(`${INDENT}   options: ${options.join(', ')}`)
  }
  const count = (level: Finding['level']): number => findings.filter(found => found.level === level).length
  lines.push(
    '',
    `${count('ok')} ok, ${counted(count('note'), 'note')}, ${counted(count('warning'), 'warning')}, ${count('unknown')} unknown; ` +
      `${traffic.packetsOut} packets sent (${Math.ceil(traffic.bytesOut / 1_024)} KiB), ${traffic.packetsIn} received, ${(durationMs / 1_000).toFixed(1)} s`,
  )
  if (report.exitCode > AFTER_SIGNAL) lines.push('A signal ended the run before all checks.')
  else if (!report.isComplete)
    lines.push('The time limit ended the run before all checks; raise it with --timeout.')
  if (report.leftBehind.length > 0)
    lines.push(`Not removed from the broker: ${report.leftBehind.join(', ')}.`)
  return `${lines.join('\n')}\n`
}

import { printable } from '../log-thinning.js'
import type { ConnectionState } from './connection-state.js'

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
    ? { level: 'debug', text: `${cause.message}; trying ${versionName(4)}` }
    : {
        level: 'warn',
        text: `${cause.message}; redirected to ${printable(cause.serverReference).slice(1, -1)}`,
      }
}

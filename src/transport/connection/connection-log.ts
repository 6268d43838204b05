import type { ConnectionState } from './connection-state.js'

export type LogLevel = 'error' | 'warn' | 'log' | 'debug'

export interface LogLine {
  readonly level: LogLevel
  readonly text: string
}

const versionName = (protocolVersion: 4 | 5): string => (protocolVersion === 5 ? 'MQTT 5' : 'MQTT 3.1.1')

/** The one line that a change of state is worth, for a person who reads the log of a bad night. */
export function describeTransition(state: ConnectionState, before: ConnectionState, target: string): LogLine {
  switch (state.status) {
    case 'connecting':
      return before.status === 'connecting'
        ? {
            level: 'debug',
            text: `${target} does not take MQTT 5; trying ${versionName(state.protocolVersion)}`,
          }
        : {
            level: 'debug',
            text: `connecting to ${target} with ${versionName(state.protocolVersion)}, attempt ${state.attempt}`,
          }
    case 'connected': {
      const { protocolVersion, sessionPresent } = state.session
      const attempts = state.attempt > 1 ? ` at attempt ${state.attempt}` : ''
      const session = sessionPresent ? 'session resumed' : 'new session'
      return {
        level: 'log',
        text: `connected to ${target} with ${versionName(protocolVersion)}${attempts}, ${session}`,
      }
    }
    case 'waiting': {
      const what = before.status === 'connected' ? 'connection lost' : `attempt ${state.attempt} failed`
      return { level: 'warn', text: `${what}: ${state.cause.message}; next attempt in ${state.delayMs} ms` }
    }
    case 'closed':
      return state.cause === undefined
        ? { level: 'log', text: `connection to ${target} closed` }
        : { level: 'error', text: `gave up: ${state.cause.message}` }
    case 'closing':
    case 'idle':
      return { level: 'debug', text: `${state.status} (${target})` }
  }
}

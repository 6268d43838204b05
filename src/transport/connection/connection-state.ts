import type { MqttError } from '../../errors.js'
import type { BrokerLimits } from './broker-limits.js'

/** 5, or 4 for MQTT 3.1.1, as the protocol counts (MQTT 5, 3.1.2.2). */
export type ProtocolVersion = 4 | 5

/** What CONNACK settled for one network connection. */
export interface ConnectedSession {
  readonly protocolVersion: ProtocolVersion
  /** Session Present (MQTT 5, 3.2.2.1.1): the broker kept subscriptions and unacknowledged messages. */
  readonly sessionPresent: boolean
  readonly limits: BrokerLimits
}

/**
 * The life of a connection.
 *
 * ```
 *            open                accepted
 *   idle ───────────► connecting ─────────► connected
 *                      ▲  │  │                │  │
 *         delay elapsed│  │  │close           │  │close
 *                      │  │lost              │lost│
 *                      │  ▼  │                │  ▼
 *                     waiting│ ◄──────────────┘ closing
 *                      │close└──────────────────►│
 *                      ▼                         ▼ lost
 *                    closed ◄────────────────────┘
 * ```
 * A first attempt that fails under `fail-fast` goes from connecting to closed with its cause.
 * From closed, `open` starts again.
 */
export type ConnectionState =
  | { readonly status: 'idle' }
  | ({ readonly status: 'connecting' } & Progress)
  | ({
      readonly status: 'connected'
      readonly sinceMs: number
      readonly session: ConnectedSession
    } & Progress)
  | ({ readonly status: 'waiting'; readonly delayMs: number; readonly cause: MqttError } & Progress)
  | { readonly status: 'closing' }
  | { readonly status: 'closed'; readonly cause?: MqttError }

/** What the next attempt has to know about the ones before it. */
interface Progress {
  /** Attempts since the last good connection, from 1. */
  readonly attempt: number
  readonly protocolVersion: ProtocolVersion
  /** A connection succeeded with `protocolVersion`, so it is no guess any more. */
  readonly versionKnown: boolean
  readonly previousDelayMs: number
}

export type ConnectionEvent =
  | { readonly type: 'open' }
  | { readonly type: 'accepted'; readonly session: ConnectedSession; readonly nowMs: number }
  /** The network connection is gone, or never came to be. */
  | { readonly type: 'lost'; readonly cause: MqttError; readonly nowMs: number }
  | { readonly type: 'delay-elapsed' }
  | { readonly type: 'close' }

export type ConnectionEffect =
  | { readonly type: 'dial'; readonly protocolVersion: ProtocolVersion }
  | { readonly type: 'wait'; readonly delayMs: number }
  | { readonly type: 'cancel-wait' }
  /** Send DISCONNECT and end the network connection. */
  | { readonly type: 'disconnect' }
  /** Destroy a network connection that has no CONNACK yet. */
  | { readonly type: 'abort' }

export interface ConnectionRules {
  readonly protocolVersion: 'auto' | ProtocolVersion
  readonly failFast: boolean
  readonly resetAfterMs: number
  readonly delayMs: (attempt: number, cause: MqttError, previousMs: number) => number
}

export interface Transition {
  readonly state: ConnectionState
  readonly effects: readonly ConnectionEffect[]
}

const stay = (state: ConnectionState): Transition => ({ state, effects: [] })

const connecting = (progress: Progress): Transition => ({
  state: { ...progress, status: 'connecting' },
  effects: [{ type: 'dial', protocolVersion: progress.protocolVersion }],
})

function firstAttempt(rules: ConnectionRules): Transition {
  return connecting({
    attempt: 1,
    protocolVersion: rules.protocolVersion === 'auto' ? 5 : rules.protocolVersion,
    versionKnown: rules.protocolVersion !== 'auto',
    previousDelayMs: 0,
  })
}

/** The one place where the state of a connection changes. An event that a state does not know leaves it as it is. */
export function transition(
  state: ConnectionState,
  event: ConnectionEvent,
  rules: ConnectionRules,
): Transition {
  switch (state.status) {
    case 'idle':
    case 'closed':
      if (event.type === 'open') return firstAttempt(rules)
      return event.type === 'close' && state.status === 'idle' ? stay({ status: 'closed' }) : stay(state)
    case 'connecting':
      return whileConnecting(state, event, rules)
    case 'connected':
      if (event.type === 'lost') return lostConnection(state, event, rules)
      return event.type === 'close'
        ? { state: { status: 'closing' }, effects: [{ type: 'disconnect' }] }
        : stay(state)
    case 'waiting':
      if (event.type === 'delay-elapsed')
        return connecting({ ...progressOf(state), attempt: state.attempt + 1 })
      return event.type === 'close'
        ? { state: { status: 'closed' }, effects: [{ type: 'cancel-wait' }] }
        : stay(state)
    case 'closing':
      return event.type === 'lost' ? stay({ status: 'closed' }) : stay(state)
  }
}

function whileConnecting(
  state: Extract<ConnectionState, { status: 'connecting' }>,
  event: ConnectionEvent,
  rules: ConnectionRules,
): Transition {
  switch (event.type) {
    case 'accepted': {
      const progress = { ...progressOf(state), versionKnown: true }
      return stay({ ...progress, status: 'connected', session: event.session, sinceMs: event.nowMs })
    }
    case 'lost':
      return failedAttempt(state, event.cause, rules)
    case 'close':
      return { state: { status: 'closing' }, effects: [{ type: 'abort' }] }
    default:
      return stay(state)
  }
}

function failedAttempt(
  state: Extract<ConnectionState, { status: 'connecting' }>,
  cause: MqttError,
  rules: ConnectionRules,
): Transition {
  const progress = progressOf(state)
  if (rules.protocolVersion === 'auto' && state.protocolVersion === 5 && suggestsOlderBroker(cause, state)) {
    return connecting({ ...progress, protocolVersion: 4, versionKnown: false })
  }
  const neverConnected = state.attempt === 1 && state.previousDelayMs === 0
  if (rules.failFast && neverConnected) return stay({ status: 'closed', cause })
  const guess = rules.protocolVersion === 'auto' && (!state.versionKnown || refusesVersion(cause))
  return wait({ ...progress, ...(guess ? { protocolVersion: 5, versionKnown: false } : {}) }, cause, rules)
}

function lostConnection(
  state: Extract<ConnectionState, { status: 'connected' }>,
  event: Extract<ConnectionEvent, { type: 'lost' }>,
  rules: ConnectionRules,
): Transition {
  const wasGood = event.nowMs - state.sinceMs >= rules.resetAfterMs
  const progress = progressOf(state)
  const counted = wasGood ? { ...progress, attempt: 1, previousDelayMs: 0 } : progress
  return wait(counted, event.cause, rules)
}

function wait(progress: Progress, cause: MqttError, rules: ConnectionRules): Transition {
  const delayMs = rules.delayMs(progress.attempt, cause, progress.previousDelayMs)
  return {
    state: { ...progress, status: 'waiting', delayMs, cause, previousDelayMs: delayMs },
    effects: [{ type: 'wait', delayMs }],
  }
}

function progressOf(state: Progress): Progress {
  const { attempt, protocolVersion, versionKnown, previousDelayMs } = state
  return { attempt, protocolVersion, versionKnown, previousDelayMs }
}

const UNACCEPTABLE_PROTOCOL_VERSION = 0x01
const UNSUPPORTED_PROTOCOL_VERSION = 0x84

function refusesVersion(cause: MqttError): boolean {
  return (
    cause.reasonCode === UNACCEPTABLE_PROTOCOL_VERSION || cause.reasonCode === UNSUPPORTED_PROTOCOL_VERSION
  )
}

/** A broker that knows only 3.1.1 says so in CONNACK, or just hangs up on a CONNECT that it cannot read. */
function suggestsOlderBroker(cause: MqttError, state: Progress): boolean {
  if (refusesVersion(cause)) return true
  return !state.versionKnown && cause.code === 'CONNECT_FAILED' && hungUp(cause.cause)
}

function hungUp(cause: unknown): boolean {
  return cause === undefined || (cause instanceof Error && 'code' in cause && cause.code === 'ECONNRESET')
}

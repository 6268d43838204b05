import type { MqttError } from '../errors.js'
import type { BrokerLimits } from '../protocol/packets.js'
import type { Verdict } from './reconnect-rules.js'

/** 5, or 4 for MQTT 3.1.1, as the protocol counts (MQTT 5, 3.1.2.2). */
export type ProtocolVersion = 4 | 5

/** What CONNACK settled for one network connection. */
export interface ConnectedSession {
  /** The broker: its URL without user, password and query. */
  readonly broker: string
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
 *                      │  │lost              lost│
 *                      │  ▼  │                │  ▼
 *                     waiting│ ◄──────────────┘ closing
 *                      │close└──────────────────►│
 *                      ▼                         ▼ lost
 *                    closed ◄────────────────────┘
 * ```
 * `lost` leads from connecting and connected to closed where the verdict on its cause is to stop, and where the
 * first round of attempts fails under `fail-fast`; straight to connecting where the broker names another one, or
 * refuses MQTT 5 under `auto`. Nothing leads out of closed.
 */
export type ConnectionState =
  | { readonly status: 'idle' }
  /**
   * `attempt` counts from 1, since the start or since the last connection. `cause` is there when an end led here
   * without a delay: the broker named another one, or refuses MQTT 5.
   */
  | { readonly status: 'connecting'; readonly attempt: number; readonly cause?: MqttError }
  | { readonly status: 'connected'; readonly attempt: number; readonly session: ConnectedSession }
  /** `attempt` is the one that failed; 0 when it was a connection that ended. */
  | {
      readonly status: 'waiting'
      readonly attempt: number
      readonly delayMs: number
      readonly cause: MqttError
    }
  | { readonly status: 'closing' }
  /** With a cause: the connection stopped for good by itself, and why. */
  | { readonly status: 'closed'; readonly cause?: MqttError }

/** What the next attempt has to know about those before it. */
interface Progress {
  /** Ends of a connection or an attempt in a row, since the last connection that lasted. */
  readonly failures: number
  readonly previousDelayMs: number
  /** Which of the URLs is dialled. */
  readonly target: number
  /** Server Reference of the broker, dialled in place of the URL. */
  readonly reference: string | undefined
  readonly protocolVersion: ProtocolVersion
  /** The broker took `protocolVersion`, or refused the other one, so it is no guess any more. */
  readonly isVersionKnown: boolean
  readonly wasConnected: boolean
  readonly connectedAtMs: number
}

/** State and progress together: all that a transition depends on. */
export interface ConnectionMachine {
  readonly state: ConnectionState
  readonly progress: Progress
}

export type ConnectionEvent =
  | { readonly type: 'open' }
  | { readonly type: 'accepted'; readonly session: ConnectedSession; readonly nowMs: number }
  /** The network connection is gone, or never came to be. */
  | { readonly type: 'lost'; readonly cause: MqttError; readonly nowMs: number }
  | { readonly type: 'delay-elapsed' }
  | { readonly type: 'close' }

export type ConnectionEffect =
  | {
      readonly type: 'dial'
      readonly target: number
      readonly reference: string | undefined
      readonly protocolVersion: ProtocolVersion
    }
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
  /** How many URLs there are to try in order. */
  readonly targets: number
  /** @param round rounds of failures over all targets, from 1 */
  readonly delayMs: (round: number, cause: MqttError, previousMs: number) => number
  readonly verdict: (cause: MqttError) => Verdict
}

export interface Transition {
  readonly machine: ConnectionMachine
  readonly effects: readonly ConnectionEffect[]
}

export function newMachine(rules: ConnectionRules): ConnectionMachine {
  return { state: { status: 'idle' }, progress: newProgress(rules) }
}

function newProgress(rules: ConnectionRules): Progress {
  return {
    failures: 0,
    previousDelayMs: 0,
    target: 0,
    reference: undefined,
    protocolVersion: rules.protocolVersion === 'auto' ? 5 : rules.protocolVersion,
    isVersionKnown: rules.protocolVersion !== 'auto',
    wasConnected: false,
    connectedAtMs: 0,
  }
}

/** The one place where a connection changes. An event that a state does not know leaves it as it is. */
export function transition(
  machine: ConnectionMachine,
  event: ConnectionEvent,
  rules: ConnectionRules,
): Transition {
  const { state, progress } = machine
  switch (state.status) {
    case 'idle':
      if (event.type === 'open') return dial(progress, 1)
      if (event.type === 'close') return to(machine, { status: 'closed' })
      break
    case 'connecting':
      if (event.type === 'accepted') return accept(machine, state.attempt, event)
      if (event.type === 'lost') return failedAttempt(machine, state.attempt, event.cause, rules)
      if (event.type === 'close') return to(machine, { status: 'closing' }, { type: 'abort' })
      break
    case 'connected':
      if (event.type === 'lost') return lostConnection(machine, event, rules)
      if (event.type === 'close') return to(machine, { status: 'closing' }, { type: 'disconnect' })
      break
    case 'waiting':
      if (event.type === 'delay-elapsed') return dial(progress, state.attempt + 1)
      if (event.type === 'close') return to(machine, { status: 'closed' }, { type: 'cancel-wait' })
      break
    case 'closing':
      if (event.type === 'lost') return to(machine, { status: 'closed' })
  }
  return { machine, effects: [] }
}

function to(machine: ConnectionMachine, state: ConnectionState, ...effects: ConnectionEffect[]): Transition {
  return { machine: { ...machine, state }, effects }
}

function dial(progress: Progress, attempt: number, cause?: MqttError): Transition {
  const { target, reference, protocolVersion } = progress
  const state = { status: 'connecting', attempt, ...(cause === undefined ? {} : { cause }) } as const
  return {
    machine: { state, progress },
    effects: [{ type: 'dial', target, reference, protocolVersion }],
  }
}

function accept(
  { progress }: ConnectionMachine,
  attempt: number,
  { session, nowMs }: Extract<ConnectionEvent, { type: 'accepted' }>,
): Transition {
  return {
    machine: {
      state: { status: 'connected', attempt, session },
      progress: {
        ...progress,
        isVersionKnown: progress.isVersionKnown || progress.protocolVersion === 5,
        wasConnected: true,
        connectedAtMs: nowMs,
      },
    },
    effects: [],
  }
}

function failedAttempt(
  machine: ConnectionMachine,
  attempt: number,
  cause: MqttError,
  rules: ConnectionRules,
): Transition {
  const { progress } = machine
  const isAuto = rules.protocolVersion === 'auto'
  if (isAuto && progress.protocolVersion === 5 && suggestsOlderBroker(cause, progress)) {
    // A refusal is knowledge, a hang-up is a guess: a load balancer hangs up too, while the broker starts.
    return dial({ ...progress, protocolVersion: 4, isVersionKnown: refusesVersion(cause) }, attempt, cause)
  }
  const verdict = rules.verdict(cause)
  const isFallBack = 'cause' in machine.state && refusesVersion(machine.state.cause)
  // A version that was right before and is refused now is worth another guess.
  const isStale = isAuto && progress.wasConnected && refusesVersion(cause) && !isFallBack
  if (verdict === 'stop' && !isStale) return to(machine, { status: 'closed', cause })
  // A broker that names another one has not failed: only where that one fails, too, it is the next one's turn.
  if (namesAnother(verdict, cause) && progress.reference === undefined) {
    return goTo(progress, attempt + 1, cause, rules)
  }
  const failed = { ...progress, failures: progress.failures + 1 }
  if (rules.failFast && !progress.wasConnected && failed.failures >= rules.targets) {
    return to(machine, { status: 'closed', cause })
  }
  return wait(nextTarget(failed, cause, rules), attempt, cause, rules)
}

function lostConnection(
  machine: ConnectionMachine,
  { cause, nowMs }: Extract<ConnectionEvent, { type: 'lost' }>,
  rules: ConnectionRules,
): Transition {
  const { progress } = machine
  const verdict = rules.verdict(cause)
  if (verdict === 'stop') return to(machine, { status: 'closed', cause })
  const isGood = nowMs - progress.connectedAtMs >= rules.resetAfterMs
  const since = isGood ? { ...progress, failures: 0, previousDelayMs: 0 } : progress
  const known = since.isVersionKnown ? since : guessVersion(since, rules)
  const lost = { ...known, failures: since.failures + 1 }
  if (!namesAnother(verdict, cause)) return wait(lost, 0, cause, rules)
  // Two brokers that send this client to each other must not make it run in circles.
  if (isGood || progress.reference === undefined) return goTo(lost, 1, cause, rules)
  return wait({ ...guessVersion(lost, rules), reference: cause.serverReference }, 0, cause, rules)
}

/** "Elsewhere" without a Server Reference is no place to go, whoever says so. */
function namesAnother(verdict: Verdict, cause: MqttError): boolean {
  return verdict === 'go-elsewhere' && cause.serverReference !== undefined
}

function goTo(progress: Progress, attempt: number, cause: MqttError, rules: ConnectionRules): Transition {
  return dial({ ...guessVersion(progress, rules), reference: cause.serverReference }, attempt, cause)
}

/** The last good broker is tried first; one that fails gives way to the next in the list. */
function nextTarget(progress: Progress, cause: MqttError, rules: ConnectionRules): Progress {
  const next = { ...progress, reference: undefined, target: (progress.target + 1) % rules.targets }
  const isOther = next.target !== progress.target || progress.reference !== undefined
  const isGuess = isOther || !progress.isVersionKnown || refusesVersion(cause)
  return isGuess ? guessVersion(next, rules) : next
}

function guessVersion(progress: Progress, rules: ConnectionRules): Progress {
  if (rules.protocolVersion !== 'auto') return progress
  return { ...progress, protocolVersion: 5, isVersionKnown: false }
}

function wait(progress: Progress, attempt: number, cause: MqttError, rules: ConnectionRules): Transition {
  const round = Math.ceil(progress.failures / rules.targets)
  const delayMs = rules.delayMs(round, cause, progress.previousDelayMs)
  return {
    machine: {
      state: { status: 'waiting', attempt, delayMs, cause },
      // A delay that grows from the one before it grows once in a round, too.
      progress:
        progress.failures % rules.targets === 0 ? { ...progress, previousDelayMs: delayMs } : progress,
    },
    effects: [{ type: 'wait', delayMs }],
  }
}

const UNACCEPTABLE_PROTOCOL_VERSION = 0x01
const UNSUPPORTED_PROTOCOL_VERSION = 0x84

function refusesVersion(cause: MqttError | undefined): boolean {
  if (cause?.code !== 'CONNECT_REFUSED') return false
  return (
    cause.reasonCode === UNACCEPTABLE_PROTOCOL_VERSION || cause.reasonCode === UNSUPPORTED_PROTOCOL_VERSION
  )
}

/** A broker that knows only 3.1.1 says so in CONNACK, or just hangs up on a CONNECT that it cannot read. */
function suggestsOlderBroker(cause: MqttError, progress: Progress): boolean {
  if (refusesVersion(cause)) return true
  return !progress.isVersionKnown && cause.code === 'CONNECT_FAILED' && hungUp(cause.cause)
}

function hungUp(cause: unknown): boolean {
  return cause === undefined || (cause instanceof Error && 'code' in cause && cause.code === 'ECONNRESET')
}

import type { MqttError } from '../errors.js'
import type { BrokerLimits } from '../protocol/packets.js'
import { refusesVersion, suggestsOlderBroker, type Verdict } from './reconnect-rules.js'

/** 5, or 4 for MQTT 3.1.1; the number in CONNECT (MQTT 5, 3.1.2.2). */
export type ProtocolVersion = 4 | 5

/** Properties of one network connection, known after CONNACK. */
export interface ConnectedSession {
  /** URL of the broker, without user, password and query. */
  readonly broker: string
  readonly protocolVersion: ProtocolVersion
  /** Session Present (MQTT 5, 3.2.2.1.1): the broker has kept subscriptions and unacknowledged messages. */
  readonly sessionPresent: boolean
  readonly limits: BrokerLimits
}

/**
 * State of a connection.
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
 * Not shown: `replace` leads from `connected` to `connecting`, once the connection has ended. `lost` leads to `closed` if the
 * verdict is `stop`, or if the first round of attempts fails with `fail-fast`. It leads directly to `connecting` if the broker
 * redirects the client, or refuses MQTT 5 with `protocolVersion: 'auto'`. `closed` is final.
 */
export type ConnectionState =
  | { readonly status: 'idle' }
  /**
   * `attempt` counts from 1, since the start or the last connection. `cause` is set if this attempt follows without a
   * delay, because the broker redirected the client or refused MQTT 5.
   */
  | { readonly status: 'connecting'; readonly attempt: number; readonly cause?: MqttError }
  | { readonly status: 'connected'; readonly attempt: number; readonly session: ConnectedSession }
  /** `attempt` is the failed attempt, or 0 if an established connection ended. */
  | {
      readonly status: 'waiting'
      readonly attempt: number
      readonly delayMs: number
      readonly cause: MqttError
    }
  | { readonly status: 'closing' }
  /** `cause` is set if the connection stopped for good by itself. */
  | { readonly status: 'closed'; readonly cause?: MqttError }

/** What the next attempt depends on. */
interface Progress {
  /** Consecutive failures since the last connection that lasted for `resetAfterMs`. */
  readonly failures: number
  readonly previousDelayMs: number
  /** Index of the URL to connect to. */
  readonly target: number
  /** Server Reference to connect to, in place of the URL. */
  readonly reference: string | undefined
  readonly protocolVersion: ProtocolVersion
  /** Whether the broker has accepted `protocolVersion`, or has refused the other version. */
  readonly isVersionKnown: boolean
  readonly wasConnected: boolean
  readonly connectedAtMs: number
  /** This client ends the connection to replace it with a new one at once. */
  readonly isReplacing: boolean
}

/** State and progress of a connection. */
export interface ConnectionMachine {
  readonly state: ConnectionState
  readonly progress: Progress
}

export type ConnectionEvent =
  | { readonly type: 'open' }
  | { readonly type: 'accepted'; readonly session: ConnectedSession; readonly nowMs: number }
  /** The network connection has ended, or could not be opened. */
  | { readonly type: 'lost'; readonly cause: MqttError; readonly nowMs: number }
  | { readonly type: 'delay-elapsed' }
  | { readonly type: 'close' }
  | { readonly type: 'replace' }

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
  /** Destroy a network connection before CONNACK. */
  | { readonly type: 'abort' }

export interface ConnectionRules {
  readonly protocolVersion: 'auto' | ProtocolVersion
  readonly failFast: boolean
  readonly resetAfterMs: number
  /** Number of URLs to try in order. */
  readonly targets: number
  /** @param round consecutive failed rounds over all targets, from 1 */
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
    isReplacing: false,
  }
}

/** Returns the next state and the effects of an event. Events that a state does not handle change nothing. */
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
      if (event.type === 'replace') return replace(machine)
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
        isReplacing: false,
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
  if (isAuto && progress.protocolVersion === 5 && suggestsOlderBroker(cause, progress.isVersionKnown)) {
    // Only a refusal proves that the broker does not support MQTT 5: a load balancer also hangs up while the broker starts.
    return dial({ ...progress, protocolVersion: 4, isVersionKnown: refusesVersion(cause) }, attempt, cause)
  }
  const verdict = rules.verdict(cause)
  const isFallBack = 'cause' in machine.state && refusesVersion(machine.state.cause)
  // The broker accepted this version before, so the other version may work now.
  const isStale = isAuto && progress.wasConnected && refusesVersion(cause) && !isFallBack
  if (verdict === 'stop' && !isStale) return to(machine, { status: 'closed', cause })
  // A redirect is not a failure: the next target is tried only if the referenced broker fails too.
  if (namesAnother(verdict, cause) && progress.reference === undefined) {
    return goTo(progress, attempt + 1, cause, rules)
  }
  const failed = { ...progress, failures: progress.failures + 1 }
  if (rules.failFast && !progress.wasConnected && failed.failures >= rules.targets) {
    return to(machine, { status: 'closed', cause })
  }
  return wait(nextTarget(failed, cause, rules), attempt, cause, rules)
}

/** Ends the connection. The next one follows without a delay, and is no failure. */
function replace(machine: ConnectionMachine): Transition {
  const { state, progress } = machine
  if (progress.isReplacing) return { machine, effects: [] }
  return {
    machine: { state, progress: { ...progress, isReplacing: true } },
    effects: [{ type: 'disconnect' }],
  }
}

/** Whether a new connection is being opened in place of one that worked. */
export function isReplaced(state: ConnectionState, before: ConnectionState): boolean {
  return before.status === 'connected' && state.status === 'connecting' && state.cause === undefined
}

function lostConnection(
  machine: ConnectionMachine,
  { cause, nowMs }: Extract<ConnectionEvent, { type: 'lost' }>,
  rules: ConnectionRules,
): Transition {
  const progress = { ...machine.progress, isReplacing: false }
  if (machine.progress.isReplacing && cause.code === 'CONNECTION_CLOSED') return dial(progress, 1)
  const verdict = rules.verdict(cause)
  if (verdict === 'stop') return to(machine, { status: 'closed', cause })
  const isGood = nowMs - progress.connectedAtMs >= rules.resetAfterMs
  const since = isGood ? { ...progress, failures: 0, previousDelayMs: 0 } : progress
  const known = since.isVersionKnown ? since : guessVersion(since, rules)
  const lost = { ...known, failures: since.failures + 1 }
  if (!namesAnother(verdict, cause)) return wait(lost, 0, cause, rules)
  // Prevents two brokers from redirecting the client back and forth without a delay.
  if (isGood || progress.reference === undefined) return goTo(lost, 1, cause, rules)
  return wait({ ...guessVersion(lost, rules), reference: cause.serverReference }, 0, cause, rules)
}

/** The `verdict` option may return `go-elsewhere` without a Server Reference, which leaves no address to connect to. */
function namesAnother(verdict: Verdict, cause: MqttError): boolean {
  return verdict === 'go-elsewhere' && cause.serverReference !== undefined
}

function goTo(progress: Progress, attempt: number, cause: MqttError, rules: ConnectionRules): Transition {
  return dial({ ...guessVersion(progress, rules), reference: cause.serverReference }, attempt, cause)
}

/** After a failed attempt the next target is tried. */
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
      // The previous delay changes once per round, like the delay itself.
      progress:
        progress.failures % rules.targets === 0 ? { ...progress, previousDelayMs: delayMs } : progress,
    },
    effects: [{ type: 'wait', delayMs }],
  }
}

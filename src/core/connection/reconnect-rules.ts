import { isError, MqttError } from '../errors.js'

/** PUBACK and PUBREC success code: the broker has the message, but nobody subscribes to its topic (MQTT 5, 3.4.2.1). */
export const NO_MATCHING_SUBSCRIBERS = 0x10
const IMPLEMENTATION_SPECIFIC_ERROR = 0x83

/**
 * What the client does after a connection was refused or has ended:
 *
 * - `retry` reconnects after the delay;
 * - `retry-with-fresh-credentials` does the same and names the credentials as the likely cause;
 * - `go-elsewhere` connects to the Server Reference of the broker at once;
 * - `stop` closes the connection for good.
 */
export type Verdict = 'retry' | 'retry-with-fresh-credentials' | 'go-elsewhere' | 'stop'

/** One row of the tables in `docs/reconnect.md`. */
export interface ReasonCodeRule {
  readonly reasonCode: number
  readonly verdict: Verdict
  readonly why: string
}

const FRESH = 'retry-with-fresh-credentials'

const rule = (reasonCode: number, verdict: Verdict, why: string): ReasonCodeRule => ({
  reasonCode,
  verdict,
  why,
})

/** CONNACK (MQTT 5, 3.2.2.2). Causes that can never succeed stop the connection; all others are retried. */
export const CONNACK_RULES: readonly ReasonCodeRule[] = [
  rule(0x80, 'retry', 'the cause is unknown; the next attempt may succeed'),
  rule(0x81, 'stop', 'the same CONNECT would be malformed again'),
  rule(0x82, 'stop', 'the same CONNECT would be a protocol error again'),
  rule(0x83, 'retry', 'the cause is unknown; the next attempt may succeed'),
  rule(0x84, 'stop', 'the broker does not support this version; "auto" tries 3.1.1 first'),
  rule(0x85, 'stop', 'the next attempt would use the same Client Identifier'),
  rule(0x86, FRESH, 'the credentials may have been rotated, or the user directory may be available again'),
  rule(0x87, FRESH, 'a token may have expired, or access may be granted later'),
  rule(0x88, 'retry', 'the outage is temporary'),
  rule(0x89, 'retry', 'the load is temporary'),
  rule(0x8a, 'stop', 'an administrator has banned this client'),
  rule(0x8c, 'stop', 'the next attempt would use the same authentication method'),
  rule(0x90, 'stop', 'the next attempt would have the same will topic'),
  rule(0x95, 'stop', 'the same CONNECT would be too large again'),
  rule(0x97, 'retry', 'quotas are usually reset after a period'),
  rule(0x99, 'stop', 'the next attempt would have the same will payload'),
  rule(0x9a, 'stop', 'the will is retained, and the broker does not support retained messages'),
  rule(0x9b, 'stop', 'the next attempt would have the same will QoS'),
  rule(0x9c, 'go-elsewhere', 'the broker redirects the client for now'),
  rule(0x9d, 'go-elsewhere', 'the broker redirects the client permanently'),
  rule(0x9f, 'retry', 'the limit applies to a period of time'),
]

/** CONNACK return codes (MQTT 3.1.1, 3.2.2.3). */
export const CONNACK_RULES_3_1_1: readonly ReasonCodeRule[] = [
  rule(0x01, 'stop', 'the broker does not support this version'),
  rule(0x02, 'stop', 'the next attempt would use the same Client Identifier'),
  rule(0x03, 'retry', 'the outage is temporary'),
  rule(0x04, FRESH, 'the credentials may have been rotated, or the user directory may be available again'),
  rule(0x05, FRESH, 'a token may have expired, or access may be granted later'),
]

/** DISCONNECT from the broker (MQTT 5, 3.14.2.1). */
export const DISCONNECT_RULES: readonly ReasonCodeRule[] = [
  rule(0x00, 'stop', 'the broker ended the connection on purpose and reported no error'),
  rule(0x80, 'retry', 'the cause is unknown; the next connection may last'),
  rule(0x81, 'retry', 'only that packet was malformed'),
  rule(0x82, 'retry', 'only that packet violated the protocol'),
  rule(0x83, 'retry', 'the cause is unknown; the next connection may last'),
  rule(0x87, FRESH, 'a token may have expired, or access may be granted later'),
  rule(0x89, 'retry', 'the load is temporary'),
  rule(0x8b, 'retry', 'the broker is likely to restart'),
  rule(0x8d, 'retry', 'the broker received nothing in time; a new connection may work'),
  rule(0x8e, 'stop', 'another client uses the same Client Identifier; reconnecting would disconnect it'),
  rule(0x8f, 'retry', 'only that filter was invalid'),
  rule(0x90, 'retry', 'only that topic was invalid'),
  rule(0x93, 'retry', 'the next connection starts with an empty window'),
  rule(0x94, 'retry', 'the next connection starts without aliases'),
  rule(0x95, 'retry', 'only that packet was too large'),
  rule(0x96, 'retry', 'the rate was too high temporarily'),
  rule(0x97, 'retry', 'quotas are usually reset after a period'),
  rule(0x98, 'retry', 'an administrator ended this connection but did not ban the client'),
  rule(0x99, 'retry', 'only that payload was invalid'),
  rule(0x9a, 'retry', 'only that message was retained'),
  rule(0x9b, 'retry', 'only that message used an unsupported QoS'),
  rule(0x9c, 'go-elsewhere', 'the broker redirects the client for now'),
  rule(0x9d, 'go-elsewhere', 'the broker redirects the client permanently'),
  rule(0x9e, 'retry', 'only that subscription was shared'),
  rule(0x9f, 'retry', 'the limit applies to a period of time'),
  rule(0xa0, FRESH, 'the limit on connection time is often tied to the lifetime of a token'),
  rule(0xa1, 'retry', 'only that subscription had an identifier'),
  rule(0xa2, 'retry', 'only that subscription had a wildcard'),
]

const byCode = (rules: readonly ReasonCodeRule[]) =>
  new Map(rules.map(entry => [entry.reasonCode, entry.verdict]))
// The codes of both versions do not overlap: 3.1.1 uses 0x01 to 0x05, MQTT 5 from 0x80 on.
const CONNACK = byCode([...CONNACK_RULES, ...CONNACK_RULES_3_1_1])
const DISCONNECT = byCode(DISCONNECT_RULES)

/**
 * Returns what follows the end of a connection, unless `reconnect.verdict` decides. An end without a Reason Code, or
 * with one that is in no table, is a `retry`.
 */
export function verdictOf(cause: MqttError): Verdict {
  if (cause.reasonCode === undefined) return 'retry'
  const table = cause.code === 'CONNECT_REFUSED' ? CONNACK : DISCONNECT
  const verdict = table.get(cause.reasonCode) ?? 'retry'
  // Without a Server Reference there is no address to connect to.
  return verdict === 'go-elsewhere' && !cause.serverReference?.trim() ? 'retry' : verdict
}

/** What to do when the broker refuses CONNECT with this Reason Code. Empty if that is not known. */
export function refusalAdvice(reasonCode: number): string {
  const isAboutUser = CONNACK.get(reasonCode) === FRESH
  return isAboutUser ? '; check the user name, the password and the access rules of the broker' : ''
}

const VERDICTS: readonly Verdict[] = ['retry', 'retry-with-fresh-credentials', 'go-elsewhere', 'stop']

/** What the option `reconnect.verdict` decides. An error in it must not stop the client from reconnecting. */
export function ownVerdict(
  verdict: ((cause: MqttError) => Verdict | undefined) | undefined,
  cause: MqttError,
): Verdict | undefined {
  try {
    const own = verdict?.(cause)
    return own !== undefined && VERDICTS.includes(own) ? own : undefined
  } catch {
    return undefined
  }
}

/** Options of a growing delay, with all defaults. */
export interface ResolvedBackoff {
  readonly min: number
  readonly max: number
  readonly jitter: 'full' | 'decorrelated' | 'none'
}

/** A list of delays whose last value repeats, a function of consecutive failures and the cause, or a growing delay. */
export type DelayRule = readonly number[] | ((attempt: number, cause: MqttError) => number) | ResolvedBackoff

const FALLBACK: ResolvedBackoff = { min: 500, max: 30_000, jitter: 'full' }
const MAX_DELAY_MS = 86_400_000

/**
 * Returns the delay before the next attempt to connect, in milliseconds.
 * @param attempt consecutive failures, from 1
 * @param previousMs previous delay, 0 for the first
 * @param random a number from 0 to 1 (exclusive)
 */
export function reconnectDelayMs(
  rule: DelayRule,
  attempt: number,
  cause: MqttError,
  previousMs: number,
  random: number,
): number {
  if (typeof rule === 'function') return delayByFunction(rule, attempt, cause, random)
  if ('jitter' in rule) return Math.round(backoffMs(rule, attempt, previousMs, random))
  return rule[Math.min(attempt, rule.length) - 1] ?? 0
}

function delayByFunction(
  rule: (attempt: number, cause: MqttError) => number,
  attempt: number,
  cause: MqttError,
  random: number,
): number {
  // An error in the application's function must not stop the client from reconnecting.
  let delayMs = Number.NaN
  try {
    delayMs = rule(attempt, cause)
  } catch {}
  return Number.isFinite(delayMs)
    ? Math.min(MAX_DELAY_MS, Math.max(0, delayMs))
    : Math.round(backoffMs(FALLBACK, attempt, 0, random))
}

function backoffMs(rule: ResolvedBackoff, attempt: number, previousMs: number, random: number): number {
  const doubled = Math.min(rule.max, rule.min * 2 ** (attempt - 1))
  switch (rule.jitter) {
    case 'none':
      return doubled
    case 'full':
      return rule.min / 2 + random * (doubled - rule.min / 2)
    case 'decorrelated':
      return Math.min(rule.max, rule.min + random * (Math.max(rule.min, previousMs * 3) - rule.min))
  }
}

const LONGEST_GIVE_BACK_MS = 60_000

/** How long the connection stays open for a message that has failed again after a redelivery, in milliseconds. */
export function giveBackDelayMs(failures: number): number {
  return Math.min(LONGEST_GIVE_BACK_MS, 1_000 * 2 ** (failures - 2))
}

/** The reason for which the client ends a connection so that the broker delivers a message again. */
export function giveBackError(pattern: string, failures: number, cause: unknown): MqttError {
  const times = failures === 1 ? '' : ` for delivery ${failures} of a message`
  const text = `the handler of "${pattern}" failed${times}, and onFailure is "disconnect"`
  return new MqttError('CONNECTION_LOST', text, { cause, reasonCode: IMPLEMENTATION_SPECIFIC_ERROR })
}

const UNACCEPTABLE_PROTOCOL_VERSION = 0x01
const UNSUPPORTED_PROTOCOL_VERSION = 0x84

/** Whether the broker does not support the version of MQTT. */
export function refusesVersion(cause: MqttError | undefined): boolean {
  if (cause?.code !== 'CONNECT_REFUSED') return false
  return (
    cause.reasonCode === UNACCEPTABLE_PROTOCOL_VERSION || cause.reasonCode === UNSUPPORTED_PROTOCOL_VERSION
  )
}

/** A broker that only supports 3.1.1 refuses in CONNACK, or hangs up because it cannot parse CONNECT. */
export function suggestsOlderBroker(cause: MqttError, isVersionKnown: boolean): boolean {
  if (refusesVersion(cause)) return true
  return !isVersionKnown && cause.code === 'CONNECT_FAILED' && hungUp(cause.cause)
}

function hungUp(cause: unknown): boolean {
  return cause === undefined || (isError(cause) && 'code' in cause && cause.code === 'ECONNRESET')
}

/** One DNS SRV record (RFC 2782). */
export interface SrvRecord {
  readonly name: string
  readonly port: number
  /** Records with a lower number are tried first. */
  readonly priority: number
  /** Share of the clients among the records of one priority. */
  readonly weight: number
}

/** Identifies a record in `tried`. */
export const srvKey = ({ name, port }: SrvRecord): string => `${name}:${port}`

/**
 * Chooses the next SRV record (RFC 2782): of those that are not tried, one of the lowest priority, at random by weight.
 * @param random a number from 0 to 1 (exclusive)
 * @returns undefined if all are tried
 */
export function nextSrvRecord(
  records: readonly SrvRecord[],
  tried: ReadonlySet<string>,
  random: number,
): SrvRecord | undefined {
  const left = records.filter(record => !tried.has(srvKey(record)))
  const priority = Math.min(...left.map(record => record.priority))
  const group = left.filter(record => record.priority === priority)
  const weightless = group.filter(({ weight }) => weight === 0)
  const sum = group.reduce((total, { weight }) => total + weight, 0)
  // Records without a weight share one chance of sum + 1.
  const reserved = Math.min(1, weightless.length)
  const chosen = random * (sum + reserved)
  if (chosen < reserved) return weightless[Math.floor(chosen * weightless.length)]
  let running = reserved
  return group.find(({ weight }) => {
    running += weight
    return chosen < running
  })
}

import type { MqttError } from '../errors.js'

/** A success of PUBACK and PUBREC: the broker has the message, and nobody subscribes to its topic (MQTT 5, 3.4.2.1). */
export const NO_MATCHING_SUBSCRIBERS = 0x10

/**
 * What follows a connection that ended, or was refused: `retry` dials again after the delay;
 * `retry-with-fresh-credentials` too, and asks for credentials again; `go-elsewhere` dials the broker's Server
 * Reference at once; `stop` ends the connection for good.
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

/** CONNACK of MQTT 5 (3.2.2.2): what can never succeed stops, everything else is tried again. */
export const CONNACK_RULES: readonly ReasonCodeRule[] = [
  rule(0x80, 'retry', 'says nothing of the next attempt'),
  rule(0x81, 'stop', 'the same CONNECT would be malformed again'),
  rule(0x82, 'stop', 'the same CONNECT would be a protocol error again'),
  rule(0x83, 'retry', 'says nothing of the next attempt'),
  rule(0x84, 'stop', 'the broker does not speak this version; "auto" tries 3.1.1 first'),
  rule(0x85, 'stop', 'the Client Identifier does not change'),
  rule(0x86, FRESH, 'credentials may have been rotated, or the directory behind the broker may be back'),
  rule(0x87, FRESH, 'tokens expire, and rights are granted'),
  rule(0x88, 'retry', 'the broker will be available again'),
  rule(0x89, 'retry', 'the broker will be less busy'),
  rule(0x8a, 'stop', 'an administrator has banned this client'),
  rule(0x8c, 'stop', 'the authentication method does not change'),
  rule(0x90, 'stop', 'the topic of the will does not change'),
  rule(0x95, 'stop', 'the same CONNECT would be too large again'),
  rule(0x97, 'retry', 'quotas are renewed'),
  rule(0x99, 'stop', 'the payload of the will does not change'),
  rule(0x9a, 'stop', 'the will is retained, and the broker keeps no retained messages'),
  rule(0x9b, 'stop', 'the QoS of the will does not change'),
  rule(0x9c, 'go-elsewhere', 'the broker names another one for now'),
  rule(0x9d, 'go-elsewhere', 'the broker names another one for good'),
  rule(0x9f, 'retry', 'the limit is on connections per time'),
]

/** Return codes of CONNACK in MQTT 3.1.1 (3.2.2.3). */
export const CONNACK_RULES_3_1_1: readonly ReasonCodeRule[] = [
  rule(0x01, 'stop', 'the broker does not speak this version'),
  rule(0x02, 'stop', 'the Client Identifier does not change'),
  rule(0x03, 'retry', 'the broker will be available again'),
  rule(0x04, FRESH, 'credentials may have been rotated, or the directory behind the broker may be back'),
  rule(0x05, FRESH, 'tokens expire, and rights are granted'),
]

/** DISCONNECT of the broker (MQTT 5, 3.14.2.1). */
export const DISCONNECT_RULES: readonly ReasonCodeRule[] = [
  rule(0x00, 'stop', 'the broker ended the connection on purpose, and without a complaint'),
  rule(0x80, 'retry', 'says nothing of the next connection'),
  rule(0x81, 'retry', 'one packet was malformed, not the connection'),
  rule(0x82, 'retry', 'one packet was a protocol error, not the connection'),
  rule(0x83, 'retry', 'says nothing of the next connection'),
  rule(0x87, FRESH, 'tokens expire, and rights are granted'),
  rule(0x89, 'retry', 'the broker will be less busy'),
  rule(0x8b, 'retry', 'the broker will be started again'),
  rule(0x8d, 'retry', 'the link was silent for too long'),
  rule(0x8e, 'stop', 'another client has the same Client Identifier; coming back would end that one'),
  rule(0x8f, 'retry', 'one filter was invalid, not the connection'),
  rule(0x90, 'retry', 'one topic was invalid, not the connection'),
  rule(0x93, 'retry', 'the next connection starts with an empty window'),
  rule(0x94, 'retry', 'the next connection starts without aliases'),
  rule(0x95, 'retry', 'one packet was too large, not the connection'),
  rule(0x96, 'retry', 'the rate was too high for a time'),
  rule(0x97, 'retry', 'quotas are renewed'),
  rule(0x98, 'retry', 'an administrator ended this connection, and has not banned the client'),
  rule(0x99, 'retry', 'one payload was invalid, not the connection'),
  rule(0x9a, 'retry', 'one message was retained, not the connection'),
  rule(0x9b, 'retry', 'one message had too high a QoS, not the connection'),
  rule(0x9c, 'go-elsewhere', 'the broker names another one for now'),
  rule(0x9d, 'go-elsewhere', 'the broker names another one for good'),
  rule(0x9e, 'retry', 'one subscription was shared, not the connection'),
  rule(0x9f, 'retry', 'the limit is on connections per time'),
  rule(0xa0, FRESH, 'the connection was as old as it may get, as tokens are'),
  rule(0xa1, 'retry', 'one subscription had an identifier, not the connection'),
  rule(0xa2, 'retry', 'one subscription had a wildcard, not the connection'),
]

const byCode = (rules: readonly ReasonCodeRule[]) =>
  new Map(rules.map(entry => [entry.reasonCode, entry.verdict]))
// The codes of both versions do not overlap: 3.1.1 uses 0x01 to 0x05, MQTT 5 from 0x80 on.
const CONNACK = byCode([...CONNACK_RULES, ...CONNACK_RULES_3_1_1])
const DISCONNECT = byCode(DISCONNECT_RULES)

/**
 * What follows this end of a connection, unless the application's own rule says otherwise. An end without a
 * Reason Code, or with one that no table knows, is tried again.
 */
export function verdictOf(cause: MqttError): Verdict {
  if (cause.reasonCode === undefined) return 'retry'
  const table = cause.code === 'CONNECT_REFUSED' ? CONNACK : DISCONNECT
  const verdict = table.get(cause.reasonCode) ?? 'retry'
  // "Elsewhere" without a Server Reference is no place to go.
  return verdict === 'go-elsewhere' && !cause.serverReference?.trim() ? 'retry' : verdict
}

import { MqttError } from '../errors.js'
import { printable } from '../log-lines.js'
import { describeReasonCode } from '../protocol/packets.js'

/** Reason Codes of AUTH (MQTT 5, 3.15.2.1). */
const AUTH_SUCCESS = 0x00
export const AUTH_CONTINUE = 0x18
export const AUTH_AGAIN = 0x19
const UNSPECIFIED_ERROR = 0x80
const PROTOCOL_ERROR = 0x82

/** Which exchanges of AUTH packets a client accepts. */
export interface AuthenticationRules {
  readonly method: string
  readonly maxRounds: number
}

/** What follows an AUTH packet: the client responds to the challenge, the exchange has succeeded, or the connection ends. */
export type AuthenticationStep = 'challenge' | 'success' | MqttError

/** The order of packets in one exchange (MQTT 5, 4.12): challenges and responses alternate until the broker reports success. */
export class AuthenticationRounds {
  private rounds = 0
  private isClientsTurn = false

  constructor(
    private readonly rules: AuthenticationRules,
    /** The exchange takes place after CONNACK, and ends with AUTH instead of CONNACK. */
    private readonly isReauthentication: boolean,
  ) {}

  /** AUTH has arrived. */
  received(reasonCode: number, method: string | undefined): AuthenticationStep {
    if (method !== this.rules.method) return this.wrongMethod('AUTH', method)
    if (reasonCode !== AUTH_CONTINUE && reasonCode !== AUTH_SUCCESS)
      return violation(
        `the broker sent AUTH with ${describeReasonCode(reasonCode)}, which only a client may send`,
      )
    if (this.isClientsTurn)
      return violation('the broker sent AUTH before this client had responded to its challenge')
    if (reasonCode === AUTH_SUCCESS)
      return this.isReauthentication
        ? 'success'
        : violation('the broker sent AUTH with success before CONNACK; CONNACK reports the success')
    this.rounds += 1
    if (this.rounds > this.rules.maxRounds)
      return authenticationFailed(
        `the broker sent more than ${this.rules.maxRounds} challenges (authentication.maxRounds)`,
      )
    this.isClientsTurn = true
    return 'challenge'
  }

  /** The response to the challenge is being sent. */
  responded(): void {
    this.isClientsTurn = false
  }

  /** CONNACK with success has arrived. @returns what is wrong with it */
  accepted(method: string | undefined): MqttError | undefined {
    if (method !== this.rules.method) return this.wrongMethod('CONNACK', method)
    if (this.isClientsTurn)
      return violation('the broker sent CONNACK before this client had responded to its challenge')
    return undefined
  }

  /** Who is to act next, for the error of an exchange that took too long. */
  get awaited(): string {
    return this.isClientsTurn ? 'onChallenge did not settle' : 'the broker did not respond to AUTH'
  }

  private wrongMethod(packet: 'AUTH' | 'CONNACK', method: string | undefined): MqttError {
    const sent =
      method === undefined
        ? 'without an Authentication Method'
        : `with the Authentication Method ${printable(method)}`
    return violation(`the broker sent ${packet} ${sent}; this client uses ${printable(this.rules.method)}`)
  }
}

/** Fractions of the remaining lifetime between which credentials are renewed. Clients of a fleet must not renew at once. */
const RENEW_FROM = 0.75
const RENEW_UNTIL = 0.9
const FIRST_RETRY_MS = 1_000
const LONGEST_RETRY_MS = 60_000
const SHORTEST_RETRY_MS = 500
/** As milliseconds, times before 1973; as seconds, all that matter. */
const LOOKS_LIKE_SECONDS = 100_000_000_000
/** A clean session is only ended with publishes in flight if the broker would end it soon. */
const URGENT_MS = 5_000

/**
 * Returns how long credentials are used before they are renewed, in milliseconds.
 * @param remainingMs time until they expire
 * @param random a number from 0 to 1 (exclusive)
 */
export function renewalDelayMs(remainingMs: number, random: number): number {
  return Math.max(0, Math.round(remainingMs * (RENEW_FROM + random * (RENEW_UNTIL - RENEW_FROM))))
}

/** Returns the delay before another attempt to renew credentials. @param failures consecutive ones, from 1 */
export function renewalRetryMs(failures: number, remainingMs: number, random: number): number {
  const backoffMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1)) * (0.5 + random / 2)
  const mostMs = remainingMs > 0 ? remainingMs / 2 : LONGEST_RETRY_MS
  return Math.round(Math.max(SHORTEST_RETRY_MS, Math.min(backoffMs, mostMs)))
}

/** Describes what is wrong with `expiresAtMs` of credentials; undefined if nothing is. */
export function expiryProblem(expiresAtMs: unknown): string | undefined {
  if (expiresAtMs === undefined) return undefined
  const name = 'credentials: "expiresAtMs" must be a time in milliseconds since 1970'
  if (typeof expiresAtMs !== 'number' || !Number.isFinite(expiresAtMs))
    return `${name}, such as Date.now() + 3600000`
  return expiresAtMs < LOOKS_LIKE_SECONDS ? `${name}, but ${expiresAtMs} looks like seconds` : undefined
}

/** Whether a connection may be replaced while publishes wait for their acknowledgement. */
export function mayReplace(inFlight: number, keepsSession: boolean, remainingMs: number): boolean {
  return inFlight === 0 || keepsSession || remainingMs <= URGENT_MS
}

/** The broker sent an AUTH packet that belongs to no exchange. */
export function unexpectedAuth(isConfigured: boolean): MqttError {
  return isConfigured
    ? violation('the broker sent AUTH, but no authentication is in progress')
    : violation(
        'the broker sent AUTH, but this client uses no enhanced authentication; set the option "authentication"',
      )
}

function violation(text: string): MqttError {
  return authenticationFailed(text, { reasonCode: PROTOCOL_ERROR })
}

/** The error of an exchange that has failed. The Reason Code is sent in DISCONNECT. */
export function authenticationFailed(
  text: string,
  { cause, reasonCode = UNSPECIFIED_ERROR }: { readonly cause?: unknown; readonly reasonCode?: number } = {},
): MqttError {
  const details = cause === undefined ? { reasonCode } : { cause, reasonCode }
  return new MqttError('AUTHENTICATION_FAILED', `authentication failed: ${text}`, details)
}

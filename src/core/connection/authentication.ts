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

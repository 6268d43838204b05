import * as v from 'valibot'
import type { MqttCredentials } from './pass-through.js'
import {
  aFunction,
  integer,
  invalidOption,
  MAX_TIMEOUT_MS,
  parseOptions,
  strictObject,
  text,
  utf8String,
} from './schema.js'

/** What an exchange of AUTH packets begins with. */
export interface AuthenticationStart {
  /** The result of the option `credentials`; an empty object without it. */
  readonly credentials: MqttCredentials
  /** Whether the exchange takes place on an established connection (MQTT 5, 4.12.1). */
  readonly isReauthentication: boolean
}

/** One exchange of AUTH packets, from its first data to the response of the broker (MQTT 5, 4.12). */
export interface AuthenticationExchange {
  /** Authentication Data of CONNECT, or of the AUTH that begins a re-authentication. At most 65,535 bytes. @default none */
  readonly data?: string | Buffer
  /**
   * Responds to a challenge: receives the Authentication Data of the broker and returns that of the response, at most
   * 65,535 bytes, or undefined to send none. If it throws or rejects, the connection ends. Must settle within
   * `authentication.timeoutMs`. @default a challenge ends the connection
   */
  onChallenge?(data: Buffer | undefined): string | Buffer | undefined | Promise<string | Buffer | undefined>
  /**
   * Checks the final data of the broker, for methods with which the broker proves its identity too. Called when the broker
   * reports success, before the connection is used. If it throws, the connection ends. Must not return a promise.
   * @default every success is accepted
   */
  onSuccess?(data: Buffer | undefined): void
}

/** Enhanced authentication with AUTH packets (MQTT 5, 4.12). */
export interface AuthenticationOptions {
  /** Authentication Method (MQTT 5, 3.1.2.11.9), such as `SCRAM-SHA-256`. */
  readonly method: string
  /**
   * Begins an exchange. Called before every attempt to connect and for every re-authentication, after `credentials`.
   * @default the data is `authenticationData` of `credentials`, and a challenge ends the connection
   */
  readonly start?: (start: AuthenticationStart) => AuthenticationExchange | Promise<AuthenticationExchange>
  /**
   * Time limit for the challenges of one exchange, or for a re-authentication, in milliseconds. While connecting,
   * `connectTimeoutMs` applies too. 1 to 3,600,000. @default 5000
   */
  readonly timeoutMs?: number
  /** Number of challenges that the broker may send in one exchange. 1 to 1,000. @default 10 */
  readonly maxRounds?: number
}

/** Validated options with all defaults. */
export interface ResolvedAuthentication {
  readonly method: string
  readonly start: NonNullable<AuthenticationOptions['start']>
  readonly timeoutMs: number
  readonly maxRounds: number
}

const schema = strictObject({
  authentication: strictObject(
    {
      method: v.pipe(text('the name of an Authentication Method, such as "SCRAM-SHA-256"'), utf8String),
      start: v.optional(aFunction<ResolvedAuthentication['start']>('a function that returns an exchange')),
      timeoutMs: v.optional(integer(1, MAX_TIMEOUT_MS), 5_000),
      maxRounds: v.optional(integer(1, 1_000), 10),
    },
    'an object with method and start',
  ),
})

const startWithData: ResolvedAuthentication['start'] = ({ credentials: { authenticationData: data } }) =>
  data === undefined ? {} : { data }

interface AuthenticatedOptions {
  readonly authentication?: AuthenticationOptions
  readonly protocolVersion?: 'auto' | 4 | 5
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveAuthentication(
  owner: string,
  { authentication, protocolVersion }: AuthenticatedOptions,
): ResolvedAuthentication | undefined {
  if (authentication === undefined) return undefined
  const { start = startWithData, ...checked } = parseOptions(owner, schema, { authentication }).authentication
  if (protocolVersion === 4)
    throw invalidOption(
      owner,
      '"authentication" needs MQTT 5, but "protocolVersion" is 4 (MQTT 3.1.1 has no AUTH packet); remove one of them',
    )
  return { ...checked, start }
}

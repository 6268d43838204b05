import { describeCause, type MqttError } from '../errors.js'
import { verdictOf } from './reconnect-rules.js'

const UNTRUSTED =
  'the certificate of the broker was not issued by a trusted authority: set "caPath" to the certificate of its authority'
const NEEDS_OURS =
  'the broker does not accept the certificate of this client, or requires one: check "certPath" and "keyPath"'

/** What to do about a failure of TLS, by the error code of Node or OpenSSL. */
const ADVICE: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'the broker needs a new certificate; if it is valid, the clock of this machine is wrong',
  CERT_NOT_YET_VALID: 'check the clock of this machine',
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: NEEDS_OURS,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: 'the certificate of this client has expired: renew "certPath"',
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: NEEDS_OURS,
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: NEEDS_OURS,
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: NEEDS_OURS,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: NEEDS_OURS,
  ERR_SSL_WRONG_VERSION_NUMBER: 'this port does not use TLS: check the port and the scheme of "url"',
  ERR_TLS_CERT_ALTNAME_INVALID:
    'use a host name from the certificate in "url", or set "servername" to one of its names',
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
}

/** Describes a failure of TLS, and what to do about it. Undefined for another failure. */
export function tlsFailure(cause: Error): string | undefined {
  // The message of OpenSSL has several lines with the place in its source, also in an EPROTO of a write.
  const reason = /:SSL routines:[^:]*:([^:\n]+)/.exec(cause.message)?.[1]
  const given = 'code' in cause ? cause.code : undefined
  const code = reason === undefined ? given : `ERR_SSL_${reason.toUpperCase().replaceAll(' ', '_')}`
  const advice = typeof code === 'string' && Object.hasOwn(ADVICE, code) ? ADVICE[code] : undefined
  return advice === undefined ? undefined : `${reason ?? cause.message}; ${advice}`
}

/** The connection ended before the broker sent CONNACK. */
export const HUNG_UP = 'the connection was closed before CONNACK; check the port and the scheme of "url"'

/**
 * Describes why an attempt to connect failed, and what to do if that is known.
 * @param isParsed whether the parser of MQTT packets threw the error
 */
export function connectFailure(cause: Error, isParsed: boolean): string {
  const what = tlsFailure(cause) ?? upgradeFailure(cause) ?? describeCause(cause)
  if (isParsed)
    return `the first bytes from the broker are not valid MQTT (${what}); check the port and the scheme of "url"`
  return 'code' in cause && cause.code === 'ECONNRESET' ? `${what}: ${HUNG_UP}` : what
}

/** Describes a refused WebSocket handshake. Undefined for another failure. */
function upgradeFailure({ message }: Error): string | undefined {
  // The text of `ws`.
  const status = /^Unexpected server response: (\d+)$/.exec(message)?.[1]
  if (status === undefined) return undefined
  const advice = ['401', '403'].includes(status)
    ? 'the HTTP headers and the query of "url"'
    : 'the port and the path of "url"'
  return `the WebSocket handshake failed with HTTP status ${status}; check ${advice}`
}

/** Whether a later attempt may succeed although nobody changes certificates, credentials or options. */
export function mayRecover(failure: MqttError): boolean {
  const { cause } = failure
  return verdictOf(failure) === 'retry' && !(cause instanceof Error && tlsFailure(cause) !== undefined)
}

/** Logged at every start with `insecureTls: true`. */
export const INSECURE_TLS =
  'insecureTls is true: the certificate of the broker is not verified, and anyone on the path can read and change every message'

const DAY_MS = 86_400_000

/** A certificate of a connection. */
export interface CertificateDates {
  /** Whose it is, as in `the certificate of the broker`. */
  readonly of: 'the broker' | 'this client'
  readonly subject: string
  /** The day on which it ends, such as `2030-06-13`. */
  readonly lastDay: string
  readonly validToMs: number
}

/** Decides when to warn about certificates that expire soon: once a day for each of them. */
export class ExpiryWarnings {
  private readonly warnedMs = new Map<string, number>()

  /** @param days how long before its end a certificate is reported; 0: never */
  constructor(private readonly days: number) {}

  /** @returns the warnings that are due */
  due(certificates: readonly CertificateDates[], nowMs: number): string[] {
    const texts: string[] = []
    for (const certificate of certificates) {
      const { of, validToMs } = certificate
      if (validToMs - nowMs >= this.days * DAY_MS) continue
      if (nowMs - (this.warnedMs.get(of) ?? Number.NEGATIVE_INFINITY) < DAY_MS) continue
      this.warnedMs.set(of, nowMs)
      texts.push(describeExpiry(certificate, nowMs))
    }
    return texts
  }
}

function describeExpiry({ of, subject, lastDay, validToMs }: CertificateDates, nowMs: number): string {
  const days = Math.floor((validToMs - nowMs) / DAY_MS)
  const when =
    days < 0 ? `expired on ${lastDay}` : `expires on ${lastDay}, in ${days === 1 ? '1 day' : `${days} days`}`
  return `the certificate of ${of} (${subject}) ${when}`
}

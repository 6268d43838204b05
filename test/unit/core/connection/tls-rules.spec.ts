import { describe, expect, it } from 'vitest'
import {
  type CertificateDates,
  connectFailure,
  ExpiryWarnings,
  tlsFailure,
} from '../../../../src/core/connection/tls-rules.js'

const DAY_MS = 86_400_000
const NOW = Date.parse('2030-06-01T12:00:00Z')

const of = (whose: CertificateDates['of'], days: number): CertificateDates => ({
  of: whose,
  subject: 'CN=broker.example',
  validToMs: NOW + days * DAY_MS,
  lastDay: new Date(NOW + days * DAY_MS).toISOString().slice(0, 10),
})

describe('a warning about a certificate', () => {
  it('names its owner, its subject, the date and the days that are left', () => {
    expect(new ExpiryWarnings(30).due([of('the broker', 12)], NOW)).toEqual([
      'the certificate of the broker (CN=broker.example) expires on 2030-06-13, in 12 days',
    ])
    expect(new ExpiryWarnings(30).due([of('this client', 1.5)], NOW)).toEqual([
      'the certificate of this client (CN=broker.example) expires on 2030-06-03, in 1 day',
    ])
    expect(new ExpiryWarnings(30).due([of('the broker', 0)], NOW)).toEqual([
      'the certificate of the broker (CN=broker.example) expires on 2030-06-01, in 0 days',
    ])
    expect(new ExpiryWarnings(0).due([of('the broker', -2)], NOW)).toEqual([
      'the certificate of the broker (CN=broker.example) expired on 2030-05-30',
    ])
  })

  it('comes only within the configured days', () => {
    expect(new ExpiryWarnings(30).due([of('the broker', 30)], NOW)).toEqual([])
    expect(new ExpiryWarnings(30).due([of('the broker', 29.9)], NOW)).toHaveLength(1)
    expect(new ExpiryWarnings(0).due([of('the broker', 0.1)], NOW)).toEqual([])
  })

  it('comes once a day for each of the two, however often the client connects', () => {
    const warnings = new ExpiryWarnings(30)
    const both = [of('the broker', 10), of('this client', 10)]
    expect(warnings.due(both, NOW)).toHaveLength(2)
    expect(warnings.due(both, NOW + DAY_MS - 1)).toEqual([])
    expect(warnings.due(both, NOW + DAY_MS)).toHaveLength(2)
  })
})

describe('the advice for a failure of TLS', () => {
  it.each([
    ['SELF_SIGNED_CERT_IN_CHAIN', '"caPath"'],
    ['CERT_HAS_EXPIRED', 'new certificate'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', '"servername"'],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', '"certPath"'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'does not use TLS'],
  ])('of %s follows the cause and mentions %s', (code, text) => {
    const described = tlsFailure(Object.assign(new Error('the cause'), { code }))
    expect(described).toMatch(/^the cause; /)
    expect(described).toContain(text)
  })

  it.each([
    [
      'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
      '80BC:error:0A000418:SSL routines:ssl3_read_bytes:tlsv1 alert unknown ca:a.c:1601:\n',
      /^tlsv1 alert unknown ca; the broker does not accept the certificate of this client/,
    ],
    [
      'EPROTO',
      'write EPROTO 80DC:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:a.c:350:\n',
      /^wrong version number; this port does not use TLS/,
    ],
  ])('of %s follows the reason of OpenSSL, not its message of several lines', (code, text, expected) => {
    expect(tlsFailure(Object.assign(new Error(text), { code }))).toMatch(expected)
  })

  it.each(['ECONNREFUSED', 'toString', 'constructor', undefined, 5])('is none for %s', code => {
    expect(tlsFailure(Object.assign(new Error('x'), { code }))).toBeUndefined()
  })
})

describe('the cause of a failed WebSocket handshake', () => {
  it.each([
    [401, 'the HTTP headers and the query of "url"'],
    [403, 'the HTTP headers and the query of "url"'],
    [404, 'the port and the path of "url"'],
    [502, 'the port and the path of "url"'],
  ])('with HTTP status %i says what to check', (status, advice) => {
    const text = connectFailure(new Error(`Unexpected server response: ${status}`), false)
    expect(text).toBe(`the WebSocket handshake failed with HTTP status ${status}; check ${advice}`)
  })
})

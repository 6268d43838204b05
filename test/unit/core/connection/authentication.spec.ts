import { describe, expect, it } from 'vitest'
import {
  AuthenticationRounds,
  authenticationFailed,
  expiryProblem,
  mayReplace,
  renewalDelayMs,
  renewalRetryMs,
  unexpectedAuth,
} from '../../../../src/core/connection/authentication.js'

const SUCCESS = 0x00
const CONTINUE = 0x18
const AGAIN = 0x19
const METHOD = 'SCRAM-SHA-256'

const connecting = (maxRounds = 10) => new AuthenticationRounds({ method: METHOD, maxRounds }, false)
const established = () => new AuthenticationRounds({ method: METHOD, maxRounds: 10 }, true)

/** What is wrong, without the common part of the message. */
function problemOf(step: unknown): string {
  expect(step).toMatchObject({ code: 'AUTHENTICATION_FAILED' })
  return String(step).replace(/^MqttError: authentication failed: /, '')
}

describe('an exchange of AUTH packets while connecting', () => {
  it('alternates challenges and responses until CONNACK', () => {
    const rounds = connecting()
    for (let round = 0; round < 3; round += 1) {
      expect(rounds.received(CONTINUE, METHOD)).toBe('challenge')
      rounds.responded()
    }
    expect(rounds.accepted(METHOD)).toBeUndefined()
  })

  it('may consist of CONNECT and CONNACK only', () => {
    expect(connecting().accepted(METHOD)).toBeUndefined()
  })

  it('ends with CONNACK, not with AUTH', () => {
    expect(problemOf(connecting().received(SUCCESS, METHOD))).toBe(
      'the broker sent AUTH with success before CONNACK; CONNACK reports the success',
    )
  })

  it.each([
    [
      'another method',
      'PLAIN',
      'the broker sent CONNACK with the Authentication Method "PLAIN"; this client uses "SCRAM-SHA-256"',
    ],
    [
      'no method',
      undefined,
      'the broker sent CONNACK without an Authentication Method; this client uses "SCRAM-SHA-256"',
    ],
  ])('fails if CONNACK has %s', (_name, method, problem) => {
    expect(problemOf(connecting().accepted(method))).toBe(problem)
  })

  it('fails if CONNACK arrives before the response to a challenge was sent', () => {
    const rounds = connecting()
    rounds.received(CONTINUE, METHOD)
    expect(problemOf(rounds.accepted(METHOD))).toBe(
      'the broker sent CONNACK before this client had responded to its challenge',
    )
  })
})

describe('an exchange of AUTH packets on an established connection', () => {
  it('ends with AUTH', () => {
    const rounds = established()
    expect(rounds.received(CONTINUE, METHOD)).toBe('challenge')
    rounds.responded()
    expect(rounds.received(SUCCESS, METHOD)).toBe('success')
  })

  it('fails if success arrives before the response to a challenge was sent', () => {
    const rounds = established()
    rounds.received(CONTINUE, METHOD)
    expect(problemOf(rounds.received(SUCCESS, METHOD))).toBe(
      'the broker sent AUTH before this client had responded to its challenge',
    )
  })
})

describe.each([
  ['while connecting', connecting],
  ['on an established connection', established],
] as const)('AUTH %s', (_name, begin) => {
  it.each([
    [
      'PLAIN',
      'the broker sent AUTH with the Authentication Method "PLAIN"; this client uses "SCRAM-SHA-256"',
    ],
    ['a\nb', 'the broker sent AUTH with the Authentication Method "a\\nb"; this client uses "SCRAM-SHA-256"'],
    [undefined, 'the broker sent AUTH without an Authentication Method; this client uses "SCRAM-SHA-256"'],
  ])('with the method %j is a protocol error', (method, problem) => {
    const step = begin().received(CONTINUE, method)
    expect(problemOf(step)).toBe(problem)
    expect(step).toMatchObject({ reasonCode: 0x82 })
  })

  it('with a Reason Code of clients is a protocol error', () => {
    expect(problemOf(begin().received(AGAIN, METHOD))).toBe(
      'the broker sent AUTH with 0x19 Re-authenticate, which only a client may send',
    )
  })

  it('before the response to the previous one is a protocol error', () => {
    const rounds = begin()
    rounds.received(CONTINUE, METHOD)
    expect(problemOf(rounds.received(CONTINUE, METHOD))).toBe(
      'the broker sent AUTH before this client had responded to its challenge',
    )
  })
})

it('an exchange that takes too long says who did not act', () => {
  const rounds = connecting()
  expect(rounds.awaited).toBe('the broker did not respond to AUTH')
  rounds.received(CONTINUE, METHOD)
  expect(rounds.awaited).toBe('onChallenge did not settle')
  rounds.responded()
  expect(rounds.awaited).toBe('the broker did not respond to AUTH')
})

it('an exchange that fails has its cause, and an unspecified error unless another is known', () => {
  const cause = new Error('inner')
  const failed = authenticationFailed('no key', { cause })
  expect(failed).toMatchObject({ code: 'AUTHENTICATION_FAILED', cause, reasonCode: 0x80 })
  expect('cause' in authenticationFailed('no key')).toBe(false)
})

it('an exchange with more challenges than allowed fails', () => {
  const rounds = connecting(2)
  for (let round = 0; round < 2; round += 1) {
    expect(rounds.received(CONTINUE, METHOD)).toBe('challenge')
    rounds.responded()
  }
  expect(problemOf(rounds.received(CONTINUE, METHOD))).toBe(
    'the broker sent more than 2 challenges (authentication.maxRounds)',
  )
})

it('AUTH outside an exchange is a protocol error, and says what to set if nothing is', () => {
  expect(problemOf(unexpectedAuth(true))).toBe('the broker sent AUTH, but no authentication is in progress')
  expect(problemOf(unexpectedAuth(false))).toBe(
    'the broker sent AUTH, but this client uses no enhanced authentication; set the option "authentication"',
  )
})

describe('the renewal of credentials', () => {
  it('begins after 75 to 90 % of the remaining time', () => {
    expect(renewalDelayMs(100_000, 0)).toBe(75_000)
    expect(renewalDelayMs(100_000, 0.999_999)).toBe(90_000)
    expect(renewalDelayMs(-1, 0.5)).toBe(0)
  })

  it('is tried again with growing delays of at most a minute', () => {
    const delays = [1, 2, 3, 7, 50].map(failures => renewalRetryMs(failures, 1e9, 0.999_999))
    expect(delays).toEqual([1_000, 2_000, 4_000, 60_000, 60_000])
    expect(renewalRetryMs(3, 1e9, 0)).toBe(2_000)
  })

  it('is tried again before the credentials expire, if they hold long enough', () => {
    expect(renewalRetryMs(50, 20_000, 0.5)).toBe(10_000)
    expect(renewalRetryMs(50, 100, 0.5)).toBe(500)
    expect(renewalRetryMs(1, -5_000, 0)).toBe(500)
    expect([renewalRetryMs(50, -5_000, 0.999_999), renewalRetryMs(50, 0, 0.999_999)]).toEqual([
      60_000, 60_000,
    ])
  })

  it.each([
    [undefined, undefined],
    [1_900_000_000_000, undefined],
    [1_900_000_000, /but 1900000000 looks like seconds/],
    [100_000_000_000, undefined],
    [99_999_999_999, /looks like seconds/],
    [Number.NaN, /must be a time in milliseconds since 1970, such as/],
    ['soon', /must be a time in milliseconds since 1970, such as/],
  ])('checks "expiresAtMs": %s', (value, problem) => {
    if (problem === undefined) expect(expiryProblem(value)).toBeUndefined()
    else expect(expiryProblem(value)).toMatch(problem)
  })

  it('replaces a clean session only without publishes in flight, unless its end is near', () => {
    expect(mayReplace(0, false, 60_000)).toBe(true)
    expect(mayReplace(1, false, 60_000)).toBe(false)
    expect(mayReplace(1, true, 60_000)).toBe(true)
    expect(mayReplace(1, false, 5_000)).toBe(true)
  })
})

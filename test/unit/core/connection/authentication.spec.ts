import { describe, expect, it } from 'vitest'
import { AuthenticationRounds, unexpectedAuth } from '../../../../src/core/connection/authentication.js'

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

it('an exchange with more challenges than allowed fails', () => {
  const rounds = connecting(2)
  for (let round = 0; round < 2; round += 1) {
    rounds.received(CONTINUE, METHOD)
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

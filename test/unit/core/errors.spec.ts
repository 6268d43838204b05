import { inspect } from 'node:util'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { describeCause, isMqttError, MQTT_ERROR_CODES, MqttError } from '../../../src/core/errors.js'

describe('MqttError', () => {
  it('is an Error with a name, a code and a message', () => {
    const error = new MqttError('TIMEOUT', 'too late')
    expect(error).toBeInstanceOf(Error)
    expect(error.name).toBe('MqttError')
    expect(error.code).toBe('TIMEOUT')
    expect(error.message).toBe('too late')
    expect(String(error)).toBe('MqttError: too late')
    expect(error.stack).toContain('errors.spec')
  })

  it.each([[new Error('inner')], ['text'], [0], [null], [undefined]])(
    'keeps the cause %j unchanged',
    cause => {
      const error = new MqttError('CONNECT_FAILED', 'outer', { cause })
      expect(error.cause).toBe(cause)
      expect('cause' in error).toBe(true)
    },
  )

  it('has no cause and no Reason Code if none was passed', () => {
    const error = new MqttError('CONNECT_FAILED', 'outer')
    expect('cause' in error).toBe(false)
    expect(error.reasonCode).toBeUndefined()
    expect(error.serverReference).toBeUndefined()
    for (const name of ['reasonCode', 'serverReference']) expect(name in error).toBe(false)
  })

  it.each([0, 0x84, 0x9d])('has the Reason Code %i of the broker', reasonCode => {
    expect(new MqttError('CONNECT_REFUSED', 'no', { reasonCode }).reasonCode).toBe(reasonCode)
  })

  it.each([0x9c, 0x9d])('has the Server Reference that was sent with the Reason Code %i', reasonCode => {
    const error = new MqttError('CONNECT_REFUSED', 'no', {
      reasonCode,
      serverReference: 'other.example:1884',
    })
    expect(error).toMatchObject({ reasonCode, serverReference: 'other.example:1884' })
  })

  it('does not show its brand when its properties are listed or copied', () => {
    expect(Object.getOwnPropertySymbols({ ...new MqttError('TIMEOUT', 'too late') })).toEqual([])
  })
})

describe('MQTT_ERROR_CODES', () => {
  it('is the closed list of codes', () => {
    expect(MQTT_ERROR_CODES).toEqual([
      'INVALID_OPTION',
      'INVALID_TOPIC_NAME',
      'INVALID_TOPIC_FILTER',
      'PAYLOAD_NOT_ENCODABLE',
      'PAYLOAD_NOT_DECODABLE',
      'PAYLOAD_INVALID',
      'PACKET_TOO_LARGE',
      'QOS_NOT_SUPPORTED',
      'RETAIN_NOT_SUPPORTED',
      'CONNECT_FAILED',
      'CONNECT_REFUSED',
      'AUTHENTICATION_FAILED',
      'CONNECTION_LOST',
      'CONNECTION_CLOSED',
      'SUBSCRIBE_REFUSED',
      'UNSUBSCRIBE_REFUSED',
      'NOT_SENT',
      'NO_RESPONDER',
      'REQUEST_FAILED',
      'RESPONSE_LOST',
      'TOO_MANY_REQUESTS',
      'REQUEST_BLOCKED',
      'TIMEOUT',
      'ABORTED',
      'STORE_LOCKED',
      'STORE_VERSION',
      'STORE_CORRUPT',
      'STORE_FAILED',
    ])
  })
})

describe('isMqttError', () => {
  it.each(MQTT_ERROR_CODES)('recognises the code %s, and distinguishes it from the others', code => {
    const error = new MqttError(code, 'x')
    expect(isMqttError(error)).toBe(true)
    for (const other of MQTT_ERROR_CODES) expect(isMqttError(error, other)).toBe(other === code)
  })

  it('recognises an error of a second installed copy', async () => {
    vi.resetModules()
    const copy = await import('../../../src/core/errors.js')
    expect(copy.MqttError).not.toBe(MqttError)
    const foreign = new copy.MqttError('TIMEOUT', 'x')
    expect(foreign).not.toBeInstanceOf(MqttError)
    expect(isMqttError(foreign)).toBe(true)
    expect(isMqttError(foreign, 'TIMEOUT')).toBe(true)
  })

  it('returns false for everything else, and never throws', () => {
    const lookalike = Object.assign(new Error('x'), { name: 'MqttError', code: 'TIMEOUT' })
    const branded = { [Symbol.for('nestjs-mqtt.error')]: true, code: 'TIMEOUT' }
    for (const value of [lookalike, branded, new Error('x'), null, undefined, 'TIMEOUT', 0, {}, []]) {
      expect(isMqttError(value)).toBe(false)
    }
    fc.assert(fc.property(fc.anything(), value => !isMqttError(value) && !isMqttError(value, 'TIMEOUT')))
  })
})

describe('describeCause', () => {
  const inner = new Error('connect ECONNREFUSED 127.0.0.1:1883')

  it.each([
    ['the message of an error', inner, 'connect ECONNREFUSED 127.0.0.1:1883'],
    ['the name of an error without a message', new RangeError(), 'RangeError'],
    ['a text as it is', 'gone', 'gone'],
    [
      'the messages of an aggregate that has none itself',
      new AggregateError([new Error('a'), new Error('b')]),
      'a; b',
    ],
    [
      'the messages of nested aggregates',
      new AggregateError([new AggregateError(['a', new Error('b')])]),
      'a; b',
    ],
    [
      'the message of an aggregate that has one',
      new AggregateError([new Error('a')], 'all failed'),
      'all failed',
    ],
    ['nothing known for an object', { message: 'x' }, 'unknown cause'],
    ['nothing known for a number', 5, 'unknown cause'],
    ['nothing known for undefined', undefined, 'unknown cause'],
    ['nothing known for null', null, 'unknown cause'],
  ])('gives %s', (_what, cause, text) => {
    expect(describeCause(cause)).toBe(text)
  })

  it.each([
    ['null', null],
    ['an object', {}],
    ['an error without a message', new Error('')],
    ['an aggregate of nothing', new AggregateError([])],
  ])('returns the last readable message if the cause behind it is %s', (_what, unreadable) => {
    const chain = new Error('outer', { cause: new Error('readable', { cause: unreadable }) })
    expect(describeCause(chain)).toBe('readable')
  })

  it.each([
    ['error', `new Error('outer', { cause: new Error('inner') })`, 'inner'],
    ['aggregate', `new AggregateError([new Error('a'), new Error('b')])`, 'a; b'],
    ['error without a message', 'new RangeError()', 'RangeError'],
  ])('reads an %s of another realm, as Jest has one', (_what, source, text) => {
    const cause: unknown = runInNewContext(source)
    expect(cause).not.toBeInstanceOf(Error)
    expect(describeCause(cause)).toBe(text)
    expect(inspect(new MqttError('CONNECT_FAILED', 'x', { cause }))).toContain(String(cause))
  })

  it('ends in a circular chain', () => {
    const first = new Error('first')
    first.cause = new Error('second', { cause: first })
    expect(['first', 'second']).toContain(describeCause(first))
  })

  it('returns the innermost readable message of a chain', () => {
    const chain = new Error('fetch failed', { cause: new Error('no token', { cause: inner }) })
    expect(describeCause(chain)).toBe('connect ECONNREFUSED 127.0.0.1:1883')
  })
})

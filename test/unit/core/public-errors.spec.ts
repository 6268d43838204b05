import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import {
  asFailure,
  closedError,
  describeFailure,
  keyOf,
  MqttError,
  publicErrorOf,
  withoutValue,
} from '../../../src/core/errors.js'
import { originalOf, withOriginal } from '../../../src/core/log-lines.js'

class HttpLike extends Error {
  constructor(
    message: string,
    private readonly response: unknown,
    private readonly status = 400,
  ) {
    super(message)
  }

  getStatus(): number {
    return this.status
  }

  getResponse(): unknown {
    return this.response
  }
}

const revoked = (): object => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

const withThrowingGetter = (name: string): object =>
  Object.defineProperty({}, name, {
    enumerable: true,
    get: () => {
      throw new Error('not to be read')
    },
  })

describe('what a sender may learn', () => {
  it.each([
    ['a revoked proxy', revoked()],
    ['issues that throw', withThrowingGetter('issues')],
    [
      'a status that throws',
      Object.assign(new Error('x'), { getStatus: () => Number(revoked()), getResponse: () => '' }),
    ],
  ])('is nothing of an error that cannot be read: %s', (_what, error) => {
    expect(publicErrorOf(error)).toBeUndefined()
  })
})

const invalid = (message: string, issues?: { readonly path: string; readonly message: string }[]) =>
  new MqttError('PAYLOAD_INVALID', message, issues === undefined ? {} : { issues })

describe('what the sender of a message learns about its failure', () => {
  it.each([['text'], [5], [null], [undefined], [{}], [new Error('secret of the database')]])(
    'is nothing for %j',
    error => {
      expect(publicErrorOf(error)).toBeUndefined()
    },
  )

  it('is the message and status of an HttpException', () => {
    expect(publicErrorOf(new HttpLike('no', 'not found', 404))).toEqual({
      status: 'error',
      message: 'not found',
      statusCode: 404,
    })
    expect(publicErrorOf(new HttpLike('no', { message: 'of the response' }))).toMatchObject({
      message: 'of the response',
    })
  })

  it.each([[undefined], [null], [{ other: 1 }], [{ message: 5 }], [{ message: [] }], [{ message: [5] }]])(
    'is the message of an HttpException itself if its response is %j',
    response => {
      expect(publicErrorOf(new HttpLike('itself', response))).toEqual({
        status: 'error',
        message: 'itself',
        statusCode: 400,
      })
    },
  )

  it('is the list of texts of an HttpException, without what else is in it', () => {
    expect(publicErrorOf(new HttpLike('no', { message: ['a is missing', 5, 'b must be a number'] }))).toEqual(
      {
        status: 'error',
        message: 'Validation failed: a is missing; b must be a number',
        issues: ['a is missing', 'b must be a number'],
        statusCode: 400,
      },
    )
  })

  it.each(['getStatus', 'getResponse'])('is nothing for an error without the method %s', name => {
    expect(publicErrorOf(Object.assign(new HttpLike('no', 'text'), { [name]: 5 }))).toBeUndefined()
    const parts: Record<string, unknown> = { getStatus: () => 400, getResponse: () => 'text' }
    delete parts[name]
    expect(publicErrorOf(Object.assign(new Error('no'), parts))).toBeUndefined()
  })

  it('is nothing for an object that only looks like an HttpException', () => {
    expect(publicErrorOf({ message: 'no', getStatus: () => 400, getResponse: () => 'text' })).toBeUndefined()
  })

  it('is where and what is wrong, in the issues of a schema library', () => {
    const issues = [
      { path: ['readings', 0, 'celsius'], message: 'must be a number' },
      { path: [{ key: 'unit', value: 'secret' }], message: 'is missing' },
      { path: 'unknown', message: 'at large' },
      { message: 'without a path' },
    ]
    expect(publicErrorOf({ issues })).toEqual({
      status: 'error',
      message:
        'Validation failed: readings.0.celsius: must be a number; unit: is missing; at large; without a path',
      issues: ['readings.0.celsius: must be a number', 'unit: is missing', 'at large', 'without a path'],
    })
  })

  it.each([[[]], ['text'], [undefined], [[{ message: 'a' }, {}]], [[{ message: 5 }]], [['text']], [[null]]])(
    'is nothing for the issues %j',
    issues => {
      expect(publicErrorOf({ issues })).toBeUndefined()
    },
  )

  it('is the list of issues of an invalid payload, or its message if there are none', () => {
    const issues = [
      { path: '', message: 'must be an object' },
      { path: 'a.b', message: 'is missing' },
    ]
    expect(publicErrorOf(invalid('invalid', issues))).toEqual({
      status: 'error',
      message: 'Validation failed: must be an object; a.b: is missing',
      issues: ['must be an object', 'a.b: is missing'],
    })
    expect(publicErrorOf(invalid('the payload is invalid'))).toEqual({
      status: 'error',
      message: 'the payload is invalid',
    })
  })

  it('is at most 20 issues', () => {
    const issues = Array.from({ length: 21 }, (_, at) => ({ message: `issue ${at}` }))
    expect(publicErrorOf({ issues })?.issues).toEqual(issues.slice(0, 20).map(({ message }) => message))
  })

  it.each([
    ['Invalid type: Expected number but received "secret"', 'Invalid type: Expected number'],
    ['Expected number, received string', 'Expected number'],
    ['must be a number (was "secret")', 'must be a number'],
    ['Invalid: Received "secret"', 'Invalid'],
    ['must be a number, but the final value was: `"secret\nsecret"`.', 'must be a number'],
    ['must be a number', 'must be a number'],
  ])('does not contain the value that a library quotes: %j', (message, shown) => {
    expect(withoutValue(message)).toBe(shown)
    expect(publicErrorOf({ issues: [{ message }] })?.issues).toEqual([shown])
    expect(publicErrorOf(new HttpLike('no', { message: [message] }))?.issues).toEqual([shown])
  })

  it('has at most 200 characters for an issue', () => {
    expect(withoutValue('x'.repeat(201))).toBe('x'.repeat(200))
  })

  it('names the keys of zod and of valibot', () => {
    expect([keyOf('a'), keyOf(0), keyOf({ key: 'b' }), keyOf({ key: 1 }), keyOf(null)]).toEqual([
      'a',
      '0',
      'b',
      '1',
      'null',
    ])
    expect(keyOf({ other: 1 })).toBe('[object Object]')
  })
})

describe('the reason for which a handler failed, in a log line', () => {
  const cause = new Error('{"password":"secret"}')

  it.each(['PAYLOAD_NOT_DECODABLE', 'PAYLOAD_INVALID', 'STORE_FAILED'] as const)(
    'is the message of %s and not that of its cause',
    code => {
      expect(describeFailure(new MqttError(code, 'what is wrong', { cause }))).toBe('what is wrong')
    },
  )

  it('is the innermost message of any other error', () => {
    expect(describeFailure(new MqttError('TIMEOUT', 'outer', { cause: new Error('inner') }))).toBe('inner')
  })

  it('is the public message of an HttpException', () => {
    expect(describeFailure(new HttpLike('no', 'not found'))).toBe('not found')
  })

  it('is the message of a plain object, as filters throw it', () => {
    expect(describeFailure({ status: 'error', message: 'text' })).toBe('text')
    expect(describeFailure({ message: 5 })).toBe('5')
  })

  it.each([[{}], [null], [5], [undefined]])('is unknown for %j', error => {
    expect(describeFailure(error)).toBe('unknown cause')
  })

  it('is said to be unreadable if it cannot be read', () => {
    expect(describeFailure(revoked())).toBe('an error without a readable message')
    const error = Object.defineProperty(new Error('x'), 'message', {
      get: () => {
        throw new Error('no')
      },
    })
    expect(describeFailure(error)).toBe('an error without a readable message')
    expect(describeFailure({ message: { toString: 5 } })).toBe('an error without a readable message')
  })
})

describe('what a handler has thrown', () => {
  it.each([[new Error('a')], [{ message: 'a' }], [{}], ['text'], [undefined]])('is passed on: %j', thrown => {
    expect(asFailure(thrown)).toBe(thrown)
  })

  it('is replaced by an error if it cannot be read', () => {
    expect(asFailure(revoked())).toEqual(new Error('an error without a readable message'))
  })
})

describe('the original of an error', () => {
  it('stays with the error that is sent to others, unseen', () => {
    const original = new Error('original')
    const sent = withOriginal({ status: 'error' }, original)
    expect(originalOf(sent)).toBe(original)
    expect(Object.keys(sent)).toEqual(['status'])
  })

  it.each([['text'], [null], [undefined], [{}]])('is the error itself if there is no other: %j', error => {
    expect(originalOf(error)).toBe(error)
  })

  it('is an error that cannot be read', () => {
    const error = revoked()
    expect(originalOf(error)).toBe(error)
  })
})

describe('an MqttError in a log', () => {
  it('shows its code and Reason Code, and name, code and message of each cause', () => {
    const cause = Object.assign(new RangeError('inner'), { code: 'ECONNREFUSED', password: 'secret' })
    const error = new MqttError('CONNECT_REFUSED', 'outer', { cause, reasonCode: 0x87 })
    const text = inspect(error)
    expect(text).toMatch(/^MqttError: outer\n/)
    expect(text).toMatch(
      /\{CONNECT_REFUSED, Reason Code 135\}\n {2}\[cause\]: RangeError: inner \{ECONNREFUSED\}$/,
    )
    expect(text).not.toContain('secret')
  })

  it.each([
    ['a text', 'gone', '[cause]: gone'],
    ['a number', 5, '[cause]: number'],
    ['an object', { secret: 1 }, '[cause]: object'],
    ['an error without a code', new Error('x'), '[cause]: Error: x'],
  ])('shows %s as a cause', (_what, cause, shown) => {
    const text = inspect(new MqttError('TIMEOUT', 'late', { cause }))
    expect(text.split('\n').at(-1)).toBe(`  ${shown}`)
    expect(text).toContain(' {TIMEOUT}')
  })

  it('shows at most ten causes', () => {
    const chain = Array.from({ length: 20 }, (_, at) => at).reduce<Error | undefined>(
      (cause, at) => new Error(`${at}`, { cause }),
      undefined,
    )
    expect(inspect(new MqttError('TIMEOUT', 'late', { cause: chain })).match(/\[cause\]/g)).toHaveLength(10)
  })

  it('has its message in JSON, and neither cause nor response', () => {
    const error = new MqttError('CONNECT_REFUSED', 'no', {
      reasonCode: 0x87,
      cause: new Error('inner'),
      response: { secret: 1 },
    })
    expect(JSON.parse(JSON.stringify(error))).toEqual({
      name: 'MqttError',
      code: 'CONNECT_REFUSED',
      message: 'no',
      reasonCode: 0x87,
    })
    expect(JSON.parse(JSON.stringify(closedError()))).toEqual({
      name: 'MqttError',
      code: 'CONNECTION_CLOSED',
      message: 'the connection was closed by this application',
    })
    expect(error.response).toEqual({ secret: 1 })
    expect(Object.keys(error)).not.toContain('response')
  })

  it('has only the details that were passed', () => {
    const all = ['reasonCode', 'serverReference', 'issues', 'outcome', 'response', 'cause']
    const bare = new MqttError('TIMEOUT', 'late')
    expect(all.filter(name => name in bare)).toEqual([])
    const outcome = { status: 'dropped', reason: 'offline' } as const
    const issues = [{ path: 'a', message: 'b' }]
    expect(new MqttError('NOT_SENT', 'no', { outcome, issues })).toMatchObject({ outcome, issues })
  })
})

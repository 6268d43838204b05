import { describe, expect, it } from 'vitest'
import { handle, resolveHandlerOptions } from '../../../src/options/handler-options.js'
import { errorOf } from '../errors-of.js'

const handleAny = (options: unknown): unknown => Reflect.apply(handle, undefined, [options])

const PROBLEMS: readonly (readonly [name: string, value: unknown, problem: string])[] = [
  ['qos', 3, 'must be one of 0, 1, 2, but is 3'],
  ['qos', -1, 'must be one of 0, 1, 2, but is -1'],
  ['qos', '1', 'must be one of 0, 1, 2, but is "1"'],
  ['qos', null, 'must be one of 0, 1, 2, but is null'],
  ['retainHandling', 3, 'must be one of 0, 1, 2, but is 3'],
  ['retainHandling', true, 'must be one of 0, 1, 2, but is true'],
  ['noLocal', 1, 'must be true or false, but is 1'],
  ['noLocal', 'yes', 'must be true or false, but is "yes"'],
  [
    'codec',
    'xml',
    'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is "xml"',
  ],
  [
    'codec',
    {},
    'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is an object',
  ],
  ['sharedGroup', '', 'must be a non-empty name without "/", "+" and "#", but is ""'],
  ['sharedGroup', 'a/b', 'must be a non-empty name without "/", "+" and "#", but is "a/b"'],
  ['sharedGroup', 'a#', 'must be a non-empty name without "/", "+" and "#", but is "a#"'],
]

describe('handle', () => {
  it('returns the options unchanged', () => {
    const options = { qos: 0, noLocal: true } as const
    expect(handle(options)).toBe(options)
    expect(options).toEqual({ qos: 0, noLocal: true })
  })

  it.each(PROBLEMS)('refuses "%s": %j', (name, value, problem) => {
    const error = errorOf(() => handleAny({ [name]: value }))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toBe(`handle(): "${name}" ${problem}`)
  })

  it.each(['quality', 'maxQueued', 'retain'])('refuses the unknown key "%s"', name => {
    expect(errorOf(() => handleAny({ [name]: 1 })).message).toBe(`handle(): unknown option "${name}"`)
  })

  it.each([[undefined], [null], [1], ['devices/+id']])('refuses %j in place of the options', value => {
    expect(errorOf(() => handleAny(value)).message).toContain('must be an object with handler options')
  })

  it('names several problems in one error', () => {
    const { message } = errorOf(() => handleAny({ qos: 3, noLocal: 1, extra: 1 }))
    for (const name of ['qos', 'noLocal', 'extra']) expect(message).toContain(`"${name}"`)
  })
})

describe('resolveHandlerOptions', () => {
  const defaults = {
    qos: 1,
    noLocal: false,
    retainHandling: 0,
    order: 'topic',
    onFailure: 'ack',
    ack: 'auto',
  }

  it.each([[undefined], [null], [{}], [{ qos: undefined, noLocal: undefined, retainHandling: undefined }]])(
    'fills in the defaults for %j',
    extras => {
      const resolved = resolveHandlerOptions('a', extras)
      expect(resolved).toEqual(defaults)
      expect(resolved.codec).toBeUndefined()
      expect(resolved.sharedGroup).toBeUndefined()
    },
  )

  it.each([
    [{ qos: 0 }],
    [{ qos: 2 }],
    [{ noLocal: true }],
    [{ retainHandling: 1 }],
    [{ retainHandling: 2 }],
    [{ codec: 'text' }],
    [{ sharedGroup: 'group' }],
  ])('keeps %j', extras => {
    expect(resolveHandlerOptions('a', extras)).toEqual({ ...defaults, ...extras })
  })

  it('ignores keys of other packages, because they share the extras of a decorator', () => {
    expect(resolveHandlerOptions('a', { qos: 0, isDocumented: true })).toEqual({ ...defaults, qos: 0 })
  })

  it.each(PROBLEMS)('refuses "%s": %j and names the pattern', (name, value, problem) => {
    const error = errorOf(() => resolveHandlerOptions('devices/+id', { [name]: value }))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toBe(`handler of "devices/+id": "${name}" ${problem}`)
  })

  it('refuses extras that are not an object', () => {
    expect(errorOf(() => resolveHandlerOptions('a', 'qos')).message).toContain(
      'must be an object with handler options',
    )
  })
})

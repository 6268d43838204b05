import { describe, expect, it } from 'vitest'
import { handle, resolveHandlerOptions } from '../../../src/options/handler-options.js'
import { errorOf } from '../errors-of.js'

const handleAny = (options: unknown): unknown => Reflect.apply(handle, undefined, [options])

const PROBLEMS: readonly (readonly [name: string, value: unknown, problem: string])[] = [
  ['qos', 3, '3 was given, allowed is one of 0, 1, 2'],
  ['qos', -1, '-1 was given, allowed is one of 0, 1, 2'],
  ['qos', '1', '"1" was given, allowed is one of 0, 1, 2'],
  ['qos', null, 'null was given, allowed is one of 0, 1, 2'],
  ['retainHandling', 3, '3 was given, allowed is one of 0, 1, 2'],
  ['retainHandling', true, 'true was given, allowed is one of 0, 1, 2'],
  ['noLocal', 1, '1 was given, allowed is true or false'],
  ['noLocal', 'yes', '"yes" was given, allowed is true or false'],
  [
    'codec',
    'xml',
    '"xml" was given, allowed is "json", "text", "bytes", "content-type", or an object with the functions encode and decode',
  ],
  [
    'codec',
    {},
    'an object was given, allowed is "json", "text", "bytes", "content-type", or an object with the functions encode and decode',
  ],
  ['sharedGroup', '', '"" was given, allowed is a name without "/", "+" and "#"'],
  ['sharedGroup', 'a/b', '"a/b" was given, allowed is a name without "/", "+" and "#"'],
  ['sharedGroup', 'a#', '"a#" was given, allowed is a name without "/", "+" and "#"'],
]

describe('handle', () => {
  it('gives the options back as they were written', () => {
    const options = { qos: 0, noLocal: true } as const
    expect(handle(options)).toBe(options)
    expect(options).toEqual({ qos: 0, noLocal: true })
  })

  it.each(PROBLEMS)('refuses "%s": %j where it is written', (name, value, problem) => {
    const error = errorOf(() => handleAny({ [name]: value }))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toBe(`handle(): "${name}": ${problem}`)
  })

  it.each(['QoS', 'maxQueued', 'retain'])('refuses the unknown key "%s"', name => {
    expect(errorOf(() => handleAny({ [name]: 1 })).message).toBe(`handle(): "${name}" is not an option here`)
  })

  it.each([[undefined], [null], [1], ['devices/+id']])('refuses %j in place of the options', value => {
    expect(errorOf(() => handleAny(value)).message).toContain('allowed is an object with handler options')
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

  it('lets keys of others be, since the extras of a decorator belong to everybody', () => {
    expect(resolveHandlerOptions('a', { qos: 0, isDocumented: true })).toEqual({ ...defaults, qos: 0 })
  })

  it.each(PROBLEMS)('refuses "%s": %j and names the pattern', (name, value, problem) => {
    const error = errorOf(() => resolveHandlerOptions('devices/+id', { [name]: value }))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toBe(`handler of "devices/+id": "${name}": ${problem}`)
  })

  it('refuses extras that are no object', () => {
    expect(errorOf(() => resolveHandlerOptions('a', 'qos')).message).toContain(
      'allowed is an object with handler options',
    )
  })
})

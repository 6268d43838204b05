import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  fillTopic,
  fillVariables,
  matchesTopicFilter,
  parseTopicTemplate,
  readTopicParams,
} from '../../../../src/core/topic/topic-filter.js'
import { errorOf } from '../../errors-of.js'

describe('parseTopicTemplate', () => {
  it.each([
    ['a/b', 'a/b', []],
    ['a/+/#', 'a/+/#', []],
    ['+id', '+', [{ name: 'id', level: 0, rest: false }]],
    ['#all', '#', [{ name: 'all', level: 0, rest: true }]],
    ['devices/+deviceId/telemetry', 'devices/+/telemetry', [{ name: 'deviceId', level: 1, rest: false }]],
    [
      'a/+b/+/+c_2/#rest',
      'a/+/+/+/#',
      [
        { name: 'b', level: 1, rest: false },
        { name: 'c_2', level: 3, rest: false },
        { name: 'rest', level: 4, rest: true },
      ],
    ],
    ['/+_x', '/+', [{ name: '_x', level: 1, rest: false }]],
  ])('reads %j as the filter %j with its parameters', (pattern, filter, params) => {
    const template = parseTopicTemplate(pattern)
    expect(template.pattern).toBe(pattern)
    expect(template.topicFilter.filter).toBe(filter)
    expect(template.params).toEqual(params)
  })

  it('counts the levels of a Shared Subscription from its filter part', () => {
    const template = parseTopicTemplate('$share/group/a/+id/#rest')
    expect(template.topicFilter).toMatchObject({
      subscription: '$share/group/a/+/#',
      sharedGroup: 'group',
      filter: 'a/+/#',
    })
    expect(template.params).toEqual([
      { name: 'id', level: 1, rest: false },
      { name: 'rest', level: 2, rest: true },
    ])
  })

  it.each([
    ['a/+9', '"9" is not a valid parameter name; use letters, digits and "_", and do not start with a digit'],
    [
      'a/+b-c',
      '"b-c" is not a valid parameter name; use letters, digits and "_", and do not start with a digit',
    ],
    ['a/++', '"+" is not a valid parameter name; use letters, digits and "_", and do not start with a digit'],
    ['a/+ü', '"ü" is not a valid parameter name; use letters, digits and "_", and do not start with a digit'],
    [
      'a/#b c',
      '"b c" is not a valid parameter name; use letters, digits and "_", and do not start with a digit',
    ],
    ['+id/+id', 'it has two parameters named "id"'],
    ['+id/#id', 'it has two parameters named "id"'],
  ])('refuses %j: %s', (pattern, problem) => {
    const error = errorOf(() => parseTopicTemplate(pattern))
    expect(error.code).toBe('INVALID_TOPIC_FILTER')
    expect(error.message).toBe(`"${pattern}" is not a valid pattern: ${problem}`)
  })

  it.each([
    ['', 'it is empty'],
    ['a/#rest/b', '"#" must be a whole level, and the last one'],
    ['a/b+c', '"+" must be a whole level'],
    ['a/b#', '"#" must be a whole level, and the last one'],
    ['$share/+group/a', '"$share/+group/a" is not a valid Topic Filter: the name after "$share/"'],
    ['$share/group', 'a Topic Filter must follow'],
  ])('refuses %j as an invalid Topic Filter', (pattern, problem) => {
    const error = errorOf(() => parseTopicTemplate(pattern))
    expect(error.code).toBe('INVALID_TOPIC_FILTER')
    expect(error.message).toContain(problem)
  })
})

describe('readTopicParams', () => {
  it.each([
    ['a/b', 'a/b', {}],
    ['a/+/c', 'a/b/c', {}],
    ['a/+b/c', 'a/1/c', { b: '1' }],
    ['+a/+b', '1/2', { a: '1', b: '2' }],
    ['+a/b', '/b', { a: '' }],
    ['a/#rest', 'a/b/c', { rest: 'b/c' }],
    ['a/#rest', 'a//', { rest: '/' }],
    ['a/#rest', 'a', { rest: '' }],
    ['#all', 'a/b', { all: 'a/b' }],
    ['$share/g/a/+id', 'a/7', { id: '7' }],
    ['$share/g/#all', 'a/7', { all: 'a/7' }],
  ])('of %j in %j returns %j', (pattern, topic, params) => {
    expect(readTopicParams(parseTopicTemplate(pattern), topic)).toEqual(params)
  })

  it('treats a parameter named __proto__ as a plain value', () => {
    const params = readTopicParams(parseTopicTemplate('+__proto__'), 'x')
    expect(Object.entries(params)).toEqual([['__proto__', 'x']])
  })
})

describe('fillVariables', () => {
  it('fills every variable, also twice and inside a level', () => {
    const variables = { site: 'berlin', line: '7' }
    expect(fillVariables(`\${site}/line-\${line}/\${site}/+id`, variables)).toBe('berlin/line-7/berlin/+id')
  })

  it('accepts values with several levels', () => {
    expect(fillVariables(`\${prefix}/a`, { prefix: 'x/y' })).toBe('x/y/a')
  })

  it('accepts an empty value', () => {
    expect(fillVariables(`a\${suffix}/b`, { suffix: '' })).toBe('a/b')
  })

  it('does not fill variables within a value', () => {
    expect(fillVariables(`\${a}`, { a: `\${b}$&$1`, b: 'no' })).toBe(`\${b}$&$1`)
  })

  it.each(['a/b', '$SYS/#', 'a/$b/{c}', 'a/${open'])('does not change %j', pattern => {
    expect(fillVariables(pattern, {})).toBe(pattern)
  })

  it.each(['site', 'toString', '__proto__', ''])('refuses the variable %j without a value', name => {
    const pattern = `a/\${${name}}`
    const error = errorOf(() => fillVariables(pattern, {}))
    expect(error.code).toBe('INVALID_TOPIC_FILTER')
    expect(error.message).toBe(
      `"${pattern}" is not a valid pattern: \${${name}} has no value; set it in the option "variables"`,
    )
  })
})

describe('fillTopic', () => {
  it('fills every named wildcard', () => {
    expect(fillTopic('devices/+deviceId/config/#path', { deviceId: '7', path: 'a/b' })).toBe(
      'devices/7/config/a/b',
    )
  })

  it('returns a pattern without wildcards unchanged', () => {
    expect(fillTopic('a/b', {})).toBe('a/b')
  })

  it('allows an empty level', () => {
    expect(fillTopic('a/+b/c', { b: '' })).toBe('a//c')
  })

  it.each(['a/b', 'a+b', '#', 'a#'])('refuses the value %j for one level', value => {
    const error = errorOf(() => fillTopic('devices/+id', { id: value }))
    expect(error.code).toBe('INVALID_TOPIC_NAME')
    expect(error.message).toBe(
      `the value "${value}" of the parameter "id" of "devices/+id" must not contain "/", "+" or "#"`,
    )
  })

  it.each(['+', 'a/+', 'a/#'])('refuses the value %j for the rest of the topic', value => {
    expect(errorOf(() => fillTopic('devices/#rest', { rest: value })).code).toBe('INVALID_TOPIC_NAME')
  })

  it.each([
    ['NUL', '\u0000'],
    ['half of a surrogate pair', '\udc00'],
    ['more bytes than a topic can have', 'a'.repeat(65_535)],
  ])('refuses a value with %s', (_what, value) => {
    expect(errorOf(() => fillTopic('devices/+id', { id: value })).code).toBe('INVALID_TOPIC_NAME')
  })

  it.each([
    ['devices/+id', {}, 'id'],
    ['devices/+toString', {}, 'toString'],
  ])('refuses %j without a value', (pattern: string, params, name) => {
    const error = errorOf(() => fillTopic(pattern, params))
    expect(error.code).toBe('INVALID_TOPIC_NAME')
    expect(error.message).toBe(`the parameter "${name}" of "${pattern}" must be a string, but is missing`)
  })

  it('refuses a value that is not a string', () => {
    const fill: unknown = JSON.parse('{"id": 7}')
    expect(errorOf(() => Reflect.apply(fillTopic, undefined, ['devices/+id', fill])).code).toBe(
      'INVALID_TOPIC_NAME',
    )
  })

  it('refuses a wildcard without a name, whatever the names of the values', () => {
    const pattern: string = 'devices/+'
    expect(errorOf(() => fillTopic(pattern, { '': '7' })).code).toBe('INVALID_TOPIC_NAME')
  })

  it('builds the Topic Name that a handler with a Shared Subscription receives, without the share', () => {
    expect(fillTopic('$share/group/devices/+id', { id: '7' })).toBe('devices/7')
  })

  it('is the inverse of readTopicParams for a matching topic', () => {
    const level = fc.string({ unit: fc.constantFrom('a', 'b', 'ü', ' ', '.', '-'), maxLength: 4 })
    const rest = fc.array(level, { minLength: 1, maxLength: 3 }).map(levels => levels.join('/'))
    fc.assert(
      fc.property(level, level, rest, (first, second, path) => {
        const pattern = 'x/+first/y/+second/#path'
        const topic = fillTopic(pattern, { first, second, path })
        const template = parseTopicTemplate(pattern)
        expect(matchesTopicFilter(template.topicFilter, topic)).toBe(true)
        expect(readTopicParams(template, topic)).toEqual({ first, second, path })
      }),
    )
  })
})

import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { defineTopic, type StandardSchema } from '../../../src/client/index.js'
import { errorOf } from '../errors-of.js'

const Reading = z.object({ celsius: z.number() })
const telemetry = defineTopic('devices/+deviceId/telemetry', {
  schema: Reading,
  qos: 1,
  whenBlocked: 'latest',
  description: 'one reading',
})

describe('a topic contract', () => {
  it('has the pattern, the Topic Filter, the schema and the policy of its definition', () => {
    expect(telemetry).toMatchObject({
      pattern: 'devices/+deviceId/telemetry',
      filter: 'devices/+/telemetry',
      description: 'one reading',
      policy: { qos: 1, whenBlocked: 'latest' },
    })
    expect(telemetry.schema).toBe(Reading)
    expect(telemetry.response).toBeUndefined()
  })

  it('has no policy and no schema unless they are set', () => {
    const contract = defineTopic('a')
    expect(contract.policy).toEqual({})
    expect(contract.schema).toBeUndefined()
    expect(contract.description).toBeUndefined()
  })

  it('cannot be changed', () => {
    expect(Object.isFrozen(telemetry)).toBe(true)
    expect(Object.isFrozen(telemetry.policy)).toBe(true)
    expect(Object.isFrozen(telemetry.at({ deviceId: '7' }))).toBe(true)
  })

  it.each([
    ['zod', z.number()],
    ['valibot', v.number()],
    ['arktype', type('number')],
  ])('accepts a schema of %s', (_library, schema: StandardSchema) => {
    expect(defineTopic('a', { schema }).schema).toBe(schema)
  })
})

describe('at() of a topic contract', () => {
  it('returns the topic with these parameters, and the contract', () => {
    const address = telemetry.at({ deviceId: '7' })
    expect(address.topic).toBe('devices/7/telemetry')
    expect(address.contract).toBe(telemetry)
  })

  it('needs no parameters for a pattern without named wildcards', () => {
    expect(defineTopic('site/alarm').at().topic).toBe('site/alarm')
  })

  it('accepts several levels for the last wildcard', () => {
    expect(defineTopic('logs/+host/#path').at({ host: 'a', path: 'b/c' }).topic).toBe('logs/a/b/c')
  })

  it.each([
    ['', 'the parameter "deviceId" of "devices/+deviceId/telemetry" must not be empty'],
    ['a/b', 'must not contain "/", "+" or "#"'],
    ['+', 'must not contain "/", "+" or "#"'],
    ['#', 'must not contain "/", "+" or "#"'],
    ['a\u0000', 'it contains a NUL character'],
  ])('refuses the value %j', (deviceId, problem) => {
    const error = errorOf(() => telemetry.at({ deviceId }))
    expect(error).toMatchObject({ code: 'INVALID_TOPIC_NAME' })
    expect(error.message).toContain(problem)
  })

  it('refuses an empty value for several levels, because the topic would end with an empty level', () => {
    const contract = defineTopic('logs/#path')
    expect(errorOf(() => contract.at({ path: '' })).message).toContain('must not be empty')
  })

  it('refuses a pattern that has a wildcard without a name', () => {
    const contract = defineTopic('devices/+/telemetry')
    expect(errorOf(() => contract.at()).message).toContain('has a wildcard without a name')
  })
})

describe('match() of a topic contract', () => {
  it('returns the parameters of a topic that matches', () => {
    expect(telemetry.match('devices/7/telemetry')).toEqual({ deviceId: '7' })
    expect(defineTopic('a').match('a')).toEqual({})
    expect(defineTopic('logs/#path').match('logs/a/b')).toEqual({ path: 'a/b' })
  })

  it.each(['devices/7', 'devices/7/telemetry/x', 'devices/+/telemetry', '', 'other/7/telemetry'])(
    'returns undefined for %j',
    topic => {
      expect(telemetry.match(topic)).toBeUndefined()
    },
  )

  it('returns the parameters that at() was called with', () => {
    const params = { deviceId: 'Kälte 7' }
    expect(telemetry.match(telemetry.at(params).topic)).toEqual(params)
  })

  it('does not match a topic that starts with "$" to a leading wildcard [MQTT-4.7.2-1]', () => {
    expect(defineTopic('+first/a').match('$SYS/a')).toBeUndefined()
  })
})

describe('defineTopic', () => {
  it.each([
    ['a/#/b', '"#" must be a whole level, and the last one'],
    ['a/+1', '"1" is not a valid parameter name'],
    ['$share/group/a', 'set "sharedGroup" in the options of its handler'],
    [`a/\${site}`, 'insert the value into the pattern in your code'],
  ])('refuses the pattern %j', (pattern, problem) => {
    const error = errorOf(() => defineTopic(pattern))
    expect(error).toMatchObject({ code: 'INVALID_TOPIC_FILTER' })
    expect(error.message).toContain(problem)
  })

  it.each([
    [{ shema: v.number() }, 'unknown option "shema"; did you mean "schema"?'],
    [{ qos: 3 }, '"qos" must be one of 0, 1, 2'],
    [{ schema: { parse: () => 1 } }, '"schema" must be a Standard Schema V1'],
    [{ response: 'number' }, '"response" must be a Standard Schema V1'],
    [{ schema: { '~standard': { version: 2, validate: () => 1 } } }, '"schema" must be a Standard Schema V1'],
    [{ whenBlocked: 'never' }, '"whenBlocked" must be one of'],
    [{ properties: { contentTyp: 'x' } }, 'unknown option "properties.contentTyp"'],
    [{ timeoutMs: 1 }, 'unknown option "timeoutMs"'],
  ])('refuses the options %j', (options, problem) => {
    // Seam: what JavaScript may pass.
    const error = errorOf(() => defineTopic('a', options as object))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
    expect(error.message).toContain(`topic "a": ${problem}`)
  })
})

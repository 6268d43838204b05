import { describe, expect, it } from 'vitest'
import {
  assertTopicName,
  isTopicName,
  matchesTopicFilter,
  parseTopicFilter,
} from '../../../../src/core/topic/topic-filter.js'
import { errorOf } from '../../errors-of.js'

const NUL = '\u0000'
const HALF_A_PAIR = '\ud83d'

describe('parseTopicFilter', () => {
  it.each([
    ['a', ['a']],
    ['a/b', ['a', 'b']],
    ['/', ['', '']],
    ['/a', ['', 'a']],
    ['a/', ['a', '']],
    ['a//b', ['a', '', 'b']],
    ['+', ['+']],
    ['#', ['#']],
    ['+/+', ['+', '+']],
    ['+/a/#', ['+', 'a', '#']],
    ['/#', ['', '#']],
    ['$SYS/#', ['$SYS', '#']],
    ['Kälte/温度', ['Kälte', '温度']],
    [' a / b ', [' a ', ' b ']],
    ['$shared/a', ['$shared', 'a']],
    ['$SHARE/group/a', ['$SHARE', 'group', 'a']],
    ['a/$share/b', ['a', '$share', 'b']],
  ])('reads %j as the levels %j', (subscription, levels) => {
    expect(parseTopicFilter(subscription)).toEqual({ subscription, filter: subscription, levels })
  })

  it.each([
    ['$share/group/a', 'group', 'a', ['a']],
    ['$share/group/a/+/#', 'group', 'a/+/#', ['a', '+', '#']],
    ['$share/group/#', 'group', '#', ['#']],
    ['$share/group//', 'group', '/', ['', '']],
    ['$share/group//a', 'group', '/a', ['', 'a']],
    ['$share/group/$SYS/#', 'group', '$SYS/#', ['$SYS', '#']],
    ['$share/$share/a', '$share', 'a', ['a']],
    ['$share/$share/$share/a/b', '$share', '$share/a/b', ['$share', 'a', 'b']],
  ])('reads %j as a Shared Subscription', (subscription, sharedGroup, filter, levels) => {
    expect(parseTopicFilter(subscription)).toEqual({ subscription, sharedGroup, filter, levels })
  })

  it.each([
    ['', 'it is empty'],
    [`a/${NUL}`, 'it contains a NUL character'],
    [`a/${HALF_A_PAIR}`, 'it contains an unpaired surrogate, which UTF-8 cannot encode'],
    ['a'.repeat(65_536), 'it has 65536 bytes, but at most 65535 are allowed'],
    ['é'.repeat(32_768), 'it has 65536 bytes, but at most 65535 are allowed'],
    [`$share/g/${'a'.repeat(65_527)}`, 'it has 65536 bytes, but at most 65535 are allowed'],
    ['#/', '"#" must be a whole level, and the last one'],
    ['#/a', '"#" must be a whole level, and the last one'],
    ['a/#/b', '"#" must be a whole level, and the last one'],
    ['a#', '"#" must be a whole level, and the last one'],
    ['a/b#', '"#" must be a whole level, and the last one'],
    ['a/#b', '"#" must be a whole level, and the last one'],
    ['##', '"#" must be a whole level, and the last one'],
    ['+#', '"#" must be a whole level, and the last one'],
    ['#+', '"#" must be a whole level, and the last one'],
    ['a+', '"+" must be a whole level'],
    ['+a', '"+" must be a whole level'],
    ['a/b+/c', '"+" must be a whole level'],
    ['++', '"+" must be a whole level'],
    ['$share/group/a+', '"+" must be a whole level'],
    ['$share/group/#/a', '"#" must be a whole level, and the last one'],
    ['$share', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share/', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share//a', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share/+/a', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share/#', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share/g+/a', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share/g#/a', 'the name after "$share/" must not be empty or contain a wildcard'],
    ['$share/group', 'a Topic Filter must follow "$share/group/"'],
    ['$share/group/', 'a Topic Filter must follow "$share/group/"'],
  ])('refuses %.40j and names the violated rule', (subscription, problem) => {
    const error = errorOf(() => parseTopicFilter(subscription))
    expect(error.code).toBe('INVALID_TOPIC_FILTER')
    expect(error.message).toBe(`"${subscription}" is not a valid Topic Filter: ${problem} (MQTT 5, 4.7)`)
  })

  it.each([
    ['65,535 bytes of ASCII', 'a'.repeat(65_535)],
    ['65,535 bytes in fewer characters', `${'é'.repeat(32_767)}a`],
    ['65,535 empty-level separators', '/'.repeat(65_535)],
    ['a surrogate pair', 'a/😀'],
  ])('accepts %s', (_what, subscription) => {
    expect(parseTopicFilter(subscription).filter).toBe(subscription)
  })
})

describe('assertTopicName and isTopicName', () => {
  it.each([
    'a',
    'a/b',
    '/',
    '//',
    '/a',
    'a/',
    ' ',
    'a b',
    '$SYS/uptime',
    '$share/group/a',
    'Kälte/温度/😀',
    '\uFEFFa',
    'a'.repeat(65_535),
  ])('accept the Topic Name %.40j', topic => {
    expect(isTopicName(topic)).toBe(true)
    expect(() => assertTopicName(topic)).not.toThrow()
  })

  it.each([
    ['', 'it is empty'],
    ['a/+', 'it contains a wildcard'],
    ['a+b', 'it contains a wildcard'],
    ['#', 'it contains a wildcard'],
    ['a/b#', 'it contains a wildcard'],
    [`a${NUL}b`, 'it contains a NUL character'],
    [`${HALF_A_PAIR}/a`, 'it contains an unpaired surrogate, which UTF-8 cannot encode'],
    ['a'.repeat(65_536), 'it has 65536 bytes, but at most 65535 are allowed'],
    ['温'.repeat(21_846), 'it has 65538 bytes, but at most 65535 are allowed'],
  ])('refuse %.40j', (topic, problem) => {
    expect(isTopicName(topic)).toBe(false)
    const error = errorOf(() => assertTopicName(topic))
    expect(error.code).toBe('INVALID_TOPIC_NAME')
    expect(error.message).toBe(`"${topic}" is not a valid Topic Name: ${problem} (MQTT 5, 4.7)`)
  })
})

describe('matchesTopicFilter', () => {
  // The rules themselves are in test/contract/topic-matching.ts, for this matcher and the trie alike.
  it.each([
    ['a/+/c', 'a/b/c', true],
    ['a/+/c', 'a/b/d', false],
    ['a/#', 'a', true],
    ['a', 'a/b', false],
    ['#', '$SYS/a', false],
  ])('returns for filter %j and topic %j: %j', (filter, topic, expected) => {
    expect(matchesTopicFilter(parseTopicFilter(filter), topic)).toBe(expected)
  })
})

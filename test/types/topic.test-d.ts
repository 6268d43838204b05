import { describe, expectTypeOf, it } from 'vitest'
import { fillTopic, type TopicParams } from '../../src/index.js'

describe('TopicParams', () => {
  it('are the named wildcards of the pattern', () => {
    expectTypeOf<TopicParams<'a/+b/#c'>>().toEqualTypeOf<{ readonly b: string; readonly c: string }>()
    expectTypeOf<TopicParams<'+a'>>().toEqualTypeOf<{ readonly a: string }>()
    expectTypeOf<TopicParams<'#all'>>().toEqualTypeOf<{ readonly all: string }>()
    expectTypeOf<TopicParams<'devices/+deviceId/telemetry'>>().toEqualTypeOf<{ readonly deviceId: string }>()
    expectTypeOf<TopicParams<'$share/group/a/+id'>>().toEqualTypeOf<{ readonly id: string }>()
    expectTypeOf<TopicParams<'/+a//+b/'>>().toEqualTypeOf<{ readonly a: string; readonly b: string }>()
  })

  it('are none for a pattern without names', () => {
    expectTypeOf<keyof TopicParams<'a/b'>>().toBeNever()
    expectTypeOf<keyof TopicParams<'a/+/#'>>().toBeNever()
    expectTypeOf<keyof TopicParams<'#'>>().toBeNever()
    expectTypeOf<keyof TopicParams<'+'>>().toBeNever()
    expectTypeOf<keyof TopicParams<''>>().toBeNever()
  })

  it('are any strings for a pattern that the compiler does not know', () => {
    expectTypeOf<TopicParams<string>>().toEqualTypeOf<Record<string, string>>()
  })

  it('are the known ones of a pattern that the compiler knows in part', () => {
    expectTypeOf<TopicParams<`${string}/+id`>>().toEqualTypeOf<{ readonly id: string }>()
  })
})

describe('fillTopic', () => {
  it('accepts exactly the parameters of the pattern', () => {
    expectTypeOf(fillTopic('a/+b/#c', { b: '1', c: '2' })).toEqualTypeOf<string>()
    expectTypeOf(fillTopic<'a/+b/#c'>)
      .parameter(1)
      .toEqualTypeOf<TopicParams<'a/+b/#c'>>()
    fillTopic('a/b', {})
  })

  it('refuses other parameters', () => {
    // @ts-expect-error c is missing
    fillTopic('a/+b/#c', { b: '1' })
    // @ts-expect-error d is unknown
    fillTopic('a/+b', { b: '1', d: '2' })
    // @ts-expect-error a number is no text
    fillTopic('a/+b', { b: 1 })
    // @ts-expect-error undefined is no text
    fillTopic('a/+b', { b: undefined })
    // @ts-expect-error the parameters are missing
    fillTopic('a/+b')
  })

  it('accepts any strings for a pattern that the compiler does not know', () => {
    const pattern: string = 'a/+b'
    fillTopic(pattern, { b: '1', c: '2' })
    // @ts-expect-error a number is no text
    fillTopic(pattern, { b: 1 })
  })
})

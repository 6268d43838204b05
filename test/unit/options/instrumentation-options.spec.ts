import { afterEach, describe, expect, it } from 'vitest'
import { defineTopic } from '../../../src/index.js'
import { MqttInstrumentation } from '../../../src/opentelemetry/index.js'
import { errorOf } from '../errors-of.js'

const DEFAULTS = {
  enabled: true,
  traces: true,
  metrics: true,
  topics: [],
  recordTopic: false,
  recordClientId: false,
  recordErrorMessages: false,
  continueTraces: true,
}

const created: MqttInstrumentation[] = []

/** As a caller without types gives them. */
function create(...options: unknown[]): MqttInstrumentation {
  const instrumentation = Reflect.construct(MqttInstrumentation, options)
  created.push(instrumentation)
  return instrumentation
}

afterEach(() => {
  for (const instrumentation of created.splice(0)) instrumentation.disable()
})

describe('the options of MqttInstrumentation', () => {
  it.each([
    ['an unknown name', { recordTopics: true }, 'unknown option "recordTopics"; did you mean "recordTopic"?'],
    ['a name of a hook', { requestHook: () => {} }, /unknown option "requestHook"$/],
    ['a text for a flag', { metrics: 'false' }, '"metrics" must be true or false, but is "false"'],
    ['a number for a flag', { recordClientId: 1 }, '"recordClientId" must be true or false, but is 1'],
    ['one topic', { topics: 'a/+b' }, '"topics" must be a list of patterns and contracts, but is "a/+b"'],
    [
      'a topic that is a number',
      { topics: ['a', 7] },
      '"topics.1" must be a pattern or a contract, but is 7',
    ],
    [
      'the topic of a contract with parameters',
      { topics: [defineTopic('a/+b').at({ b: '7' })] },
      '"topics.0" must be a pattern or a contract, but is an object',
    ],
    ['null', null, 'the options must be an object with options, but are null'],
  ])('are rejected with %s', (_title, options, message) => {
    const error = errorOf(() => create(options))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toMatch(/^MqttInstrumentation options: /)
    expect(error.message).toMatch(message)
  })

  it('are rejected with every problem in one error', () => {
    const { message } = errorOf(() => create({ traces: 0, topic: ['a'] }))
    expect(message).toContain('"traces" must be true or false, but is 0')
    expect(message).toContain('unknown option "topic"; did you mean "topics"?')
  })

  it('are rejected with an invalid pattern', () => {
    expect(errorOf(() => create({ topics: ['a/b+'] })).code).toBe('INVALID_TOPIC_FILTER')
  })

  it('have their defaults if they are left out or undefined', () => {
    expect(create().getConfig()).toEqual(DEFAULTS)
    const unset = Object.fromEntries(Object.keys(DEFAULTS).map(name => [name, undefined]))
    expect(create(unset).getConfig()).toEqual(DEFAULTS)
  })

  it('are checked in setConfig, which keeps the options it had if the new ones are not valid', () => {
    const instrumentation = create({ recordTopic: true })
    const set = (options: unknown) => Reflect.apply(instrumentation.setConfig, instrumentation, [options])
    expect(errorOf(() => set({ recordTopic: 'yes' })).code).toBe('INVALID_OPTION')
    expect(errorOf(() => set({ recordTopic: false, topics: ['a/b+'] })).code).toBe('INVALID_TOPIC_FILTER')
    expect(instrumentation.getConfig()).toEqual({ ...DEFAULTS, recordTopic: true })
    set(instrumentation.getConfig())
    expect(instrumentation.getConfig()).toEqual({ ...DEFAULTS, recordTopic: true })
  })
})

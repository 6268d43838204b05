import { describe, expect, it } from 'vitest'
import { handlerRules } from '../../../../src/client/inbound/handler-rules.js'
import { decodePacket } from '../../../../src/options/codec.js'
import { type HandlerOptions, resolveHandlerOptions } from '../../../../src/options/handler-options.js'
import { resolveOptions } from '../../../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../../../src/options/options.js'
import { message } from '../../../support/session-on-peer.js'
import { errorOf } from '../../errors-of.js'

const rulesOf = (pattern: string, options: HandlerOptions = {}, module: MqttModuleOptions = {}) =>
  handlerRules(
    pattern,
    resolveHandlerOptions(pattern, options),
    resolveOptions({ url: 'mqtt://broker', ...module }),
  )

describe('the rules of a handler', () => {
  it('by default are those of the connection', () => {
    const { runRules, subscription, template } = rulesOf('a/+id', {}, { inbound: { concurrency: 7 } })
    expect(runRules).toMatchObject({
      name: 'a/+id',
      concurrency: 7,
      timeoutMs: undefined,
      retries: undefined,
      onFailure: 'ack',
      acknowledges: 'at-end',
    })
    expect(runRules.orderKey).toBe('topic')
    expect(subscription).toEqual({ qos: 1, noLocal: false, retainHandling: 0 })
    expect(template.topicFilter.subscription).toBe('a/+')
  })

  it('are its own options if it has any', () => {
    const options: HandlerOptions = {
      concurrency: 2,
      timeoutMs: 5,
      retries: { attempts: 3, delayMs: [1] },
      onFailure: { deadLetter: 'dead' },
      ack: 'manual',
      qos: 2,
      noLocal: true,
      retainHandling: 2,
    }
    const { runRules, subscription } = rulesOf('a', options, { inbound: { concurrency: 7 } })
    expect(runRules).toMatchObject({
      concurrency: 2,
      timeoutMs: 5,
      retries: { attempts: 3, delayMs: [1] },
      onFailure: { deadLetter: 'dead' },
      acknowledges: 'manually',
    })
    expect(subscription).toEqual({ qos: 2, noLocal: true, retainHandling: 2 })
  })

  it('retry with a growing delay by default', () => {
    expect(rulesOf('a', { retries: { attempts: 1 } }).runRules.retries).toEqual({
      attempts: 1,
      delayMs: { min: 500, max: 30_000, jitter: 'full' },
    })
  })

  it('use no order, or the result of a function of the topic', () => {
    expect(rulesOf('a/+', { order: 'none' }).runRules.orderKey).toBe('none')
    const { orderKey } = rulesOf('a/+', { order: topic => topic.slice(-1) }).runRules
    expect(typeof orderKey === 'function' && orderKey('a/17')).toBe('7')
  })

  it.each([
    [{}, { sharedGroup: 'all' }, '$share/all/a'],
    [{ sharedGroup: 'own' }, { sharedGroup: 'all' }, '$share/own/a'],
    [{}, {}, 'a'],
  ])('subscribe in a group: %j of %j', (options, module, subscription) => {
    expect(rulesOf('a', options, module).template.topicFilter.subscription).toBe(subscription)
  })

  it('keep a group that the pattern names itself', () => {
    const { template } = rulesOf('$share/here/a', { sharedGroup: 'own' })
    expect(template.topicFilter.subscription).toBe('$share/here/a')
  })

  it('fill in the variables of the connection', () => {
    const pattern = ['$', '{site}/+'].join('')
    expect(rulesOf(pattern, {}, { variables: { site: 'x' } }).template.topicFilter.subscription).toBe('x/+')
  })
})

describe('onFailure "disconnect"', () => {
  const options: HandlerOptions = { onFailure: 'disconnect' }
  const kept: MqttModuleOptions = { clean: false, clientId: 'c' }

  it('is accepted if the broker keeps the session', () => {
    expect(rulesOf('a', options, kept).runRules.onFailure).toBe('disconnect')
  })

  it.each<[string, MqttModuleOptions]>([
    ['a clean session', {}],
    ['a session that expires at once', { ...kept, properties: { sessionExpiryInterval: 0 } }],
  ])('is refused for %s', (_what, module) => {
    const error = errorOf(() => rulesOf('a', options, module))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
    expect(error.message).toContain('handler of "a": onFailure "disconnect"')
  })
})

describe('the payload of a message', () => {
  it('is decoded by the codec of the handler, or that of the connection', () => {
    const packet = message('a', { payload: '5' })
    expect(decodePacket(rulesOf('a').codec, packet)).toBe(5)
    expect(decodePacket(rulesOf('a', {}, { codec: 'text' }).codec, packet)).toBe('5')
    expect(decodePacket(rulesOf('a', { codec: 'bytes' }, { codec: 'text' }).codec, packet)).toEqual(
      Buffer.from('5'),
    )
  })

  it('is decoded with its Content Type', () => {
    const packet = message('a', { payload: '5', properties: { contentType: 'text/plain' } })
    expect(decodePacket(rulesOf('a', { codec: 'content-type' }).codec, packet)).toBe('5')
  })

  it('that cannot be decoded is reported with its topic and size, without its content', () => {
    const error = errorOf(() => decodePacket(rulesOf('a').codec, message('a', { payload: 'secret' })))
    expect(error).toMatchObject({ code: 'PAYLOAD_NOT_DECODABLE' })
    expect(error.message).toBe('the payload on "a" could not be decoded (6 bytes: SyntaxError)')
  })
})

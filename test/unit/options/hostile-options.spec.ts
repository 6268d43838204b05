import { describe, expect, it } from 'vitest'
import { MqttClient } from '../../../src/client/mqtt-client.js'
import { MqttModule } from '../../../src/mqtt.module.js'
import { resolveOptions } from '../../../src/options/option-checks.js'
import { sqliteInbox } from '../../../src/store/sqlite-inbox.js'
import { sqliteStore } from '../../../src/store/sqlite-store.js'
import { MqttClientProxy } from '../../../src/transport/mqtt.client-proxy.js'
import { errorOf } from '../errors-of.js'

const url = 'mqtt://localhost:1883'
const tls = 'mqtts://localhost:8883'

/** As a caller without types gives them. */
const resolveAny = (options: unknown): unknown => Reflect.apply(resolveOptions, undefined, [options])
const problemOf = (options: unknown): string => {
  const error = errorOf(() => resolveAny(options))
  expect(error.code).toBe('INVALID_OPTION')
  return error.message
}

describe('options that are not an object', () => {
  const doors: [string, (options: unknown) => unknown][] = [
    ['MqttModule options', options => Reflect.apply(MqttModule.forRoot, MqttModule, [options])],
    ['MqttModule options', options => Reflect.apply(MqttModule.forRootAsync, MqttModule, [options])],
    ['MqttClient options', options => Reflect.construct(MqttClient, [options])],
    ['MqttClientProxy options', options => Reflect.construct(MqttClientProxy, [options])],
  ]

  it.each(
    doors.flatMap(([owner, open]) =>
      [undefined, null, 5, 'mqtt://user:hunter2@broker', [url], () => url].map(
        options => [owner, options, open] as const,
      ),
    ),
  )('%s: %o is one error that says so', (owner, options, open) => {
    const error = errorOf(() => open(options))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
    expect(error.message).toMatch(new RegExp(`^${owner}: the options must be an object with options, but `))
    expect(error.message).not.toContain('hunter2')
  })
})

describe('options that cannot be read', () => {
  const failing = (name: string) =>
    Object.defineProperty({ url }, name, {
      enumerable: true,
      get: () => {
        throw new Error('no such variable')
      },
    })

  it.each([
    () => MqttModule.forRoot(failing('clientId')),
    () => new MqttClient(failing('clientId')),
    () => new MqttClientProxy(failing('clientId')),
  ])('name the option whose getter throws', open => {
    const error = errorOf(open)
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toContain('"clientId" cannot be read: no such variable')
  })

  it('say so for a getter within a group', () => {
    expect(problemOf({ url, codec: Object.assign(failing('encode'), { decode: () => {} }) })).toContain(
      'cannot be read: no such variable',
    )
  })

  it('say so for a proxy that is revoked', () => {
    const { proxy, revoke } = Proxy.revocable({ url }, {})
    revoke()
    expect(errorOf(() => MqttModule.forRoot(proxy)).message).toMatch(
      /^MqttModule options: .*cannot be read: /,
    )
  })
})

describe('errors for long and unprintable options', () => {
  it('shorten a long value', () => {
    const message = problemOf({ url, clientId: 'x'.repeat(1_000_000) })
    expect(message).toContain('"clientId" must be a string of at most 65,535 bytes')
    expect(message.length).toBeLessThan(1_000)
  })

  it('shorten a long name, and look for no similar one', () => {
    // Comparing it with every option letter by letter would take minutes.
    expect(problemOf({ url, ['x'.repeat(1_000_000)]: 1 }).length).toBeLessThan(1_000)
  })

  it('escape control characters in a name', () => {
    expect(problemOf({ url, 'a\n\u001b[31mERROR': 1 })).toContain('unknown option "a\\n\\u001b[31mERROR"')
  })

  it('list the first 20 of 10,000 unknown options, and say how many there are', () => {
    const many = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`option${index}`, 1]))
    const message = problemOf({ url, ...many })
    expect(message).toContain('unknown option "option19"')
    expect(message).toContain('and 9980 more')
    expect(message.length).toBeLessThan(2_000)
  })
})

describe('the options "name" and "isGlobal" of the module', () => {
  it.each([5, '', {}])('"name" must be a non-empty string: %j', name => {
    const error = errorOf(() => Reflect.apply(MqttModule.forRoot, MqttModule, [{ url, name }]))
    expect(error.message).toContain('"name" must be a non-empty string')
  })

  it('"isGlobal" must be true or false', () => {
    const error = errorOf(() => Reflect.apply(MqttModule.forRoot, MqttModule, [{ url, isGlobal: 'no' }]))
    expect(error.message).toContain('"isGlobal" must be true or false, but is "no"')
  })
})

/** Node aborts the process for some of these. */
describe('"ALPNProtocols"', () => {
  const allowed = 'a list of protocol names of 1 to 255 bytes each'

  it.each([
    [['']],
    [['mqtt', '']],
    [['x'.repeat(256)]],
    [[5]],
    [[null]],
    [[Buffer.from('mqtt')]],
    ['mqtt'],
    [5],
    [{}],
    [Buffer.from('mqtt')],
    [Uint8Array.of(0)],
    [Uint8Array.of(4, 1)],
  ])('is an error when it is %j', ALPNProtocols => {
    expect(problemOf({ url: tls, ALPNProtocols })).toContain(allowed)
    expect(problemOf({ url: 'wss://localhost', wsOptions: { ALPNProtocols } })).toContain(allowed)
  })

  it.each([[['mqtt']], [['x-amzn-mqtt-ca', 'x'.repeat(255)]], [Buffer.from('\u0004mqtt\u0002h2')], [[]]])(
    'can be %j',
    ALPNProtocols => {
      expect(() => resolveAny({ url: tls, ALPNProtocols })).not.toThrow()
    },
  )
})

/** libsql aborts the process for a path with U+0000. */
describe.each([sqliteStore, sqliteInbox])('the file of a store: %o', create => {
  it.each([undefined, 5, '', 'messages\0.db'])('cannot be %j', file => {
    const error = errorOf(() => Reflect.apply(create, undefined, [file]))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toContain('the file must be a path, such as')
  })
})

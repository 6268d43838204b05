import { PassThrough } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { describeTarget, resolveOptions } from '../../../src/options/option-checks.js'
import type { ResolvedOptions } from '../../../src/options/resolved-options.js'
import { parseOptions, sharedGroupSchema } from '../../../src/options/schema.js'
import { errorOf } from '../errors-of.js'

const url = 'mqtt://localhost:1883'
const SECRET = 'hunter2'

/** As a caller without types gives them. */
const resolveAny = (options: unknown): ResolvedOptions => Reflect.apply(resolveOptions, undefined, [options])

function problemsOf(options: unknown): string {
  const error = errorOf(() => resolveAny(options))
  expect(error.code).toBe('INVALID_OPTION')
  const door = 'MqttModule options: '
  expect(error.message.startsWith(door)).toBe(true)
  return error.message.slice(door.length)
}

/** `nested('a.b', 1)` is `{ a: { b: 1 } }`. */
function nested(path: string, value: unknown): Record<string, unknown> {
  const names = path.split('.')
  return {
    url,
    ...Object.fromEntries([
      names.reduceRight<[string, unknown]>(
        ([, inner], name, index) => [
          name,
          index === names.length - 1 ? inner : Object.fromEntries([[names[index + 1], inner]]),
        ],
        ['', value],
      ),
    ]),
  }
}

function read(options: ResolvedOptions, path: string): unknown {
  return path
    .split('.')
    .reduce<unknown>((value, name) => Object.entries(value ?? {}).find(([key]) => key === name)?.[1], {
      ...options,
      ...options.secrets.reveal(),
    })
}

const createStream = () => new PassThrough()

describe('resolveOptions: a list of URLs', () => {
  const listOf = (length: number) => Array.from({ length }, () => url)

  it('has at most 1,000, because a start may have to try all of them', () => {
    expect(resolveOptions({ url: listOf(1_000) }).targets).toBe(1_000)
    expect(problemsOf({ url: listOf(1_001) })).toBe('"url" must be a list of at most 1000 URLs, but has 1001')
  })
})

describe('resolveOptions: defaults', () => {
  const resolved = resolveOptions({ url })

  it.each([
    ['urls', [url]],
    ['createStream', undefined],
    ['credentials', undefined],
    ['localAddress', undefined],
    ['proxy', undefined],
    ['createUrl', undefined],
    ['insecureTls', false],
    ['certificateWarningDays', 30],
    ['onStopped', undefined],
    ['refusedSubscription', 'fail'],
    ['connect', 'fail-fast'],
    ['connectTimeoutMs', 10_000],
    ['protocolVersion', 'auto'],
    ['reconnect.delayMs', { min: 500, max: 30_000, jitter: 'full' }],
    ['reconnect.resetAfterMs', 10_000],
    ['reconnect.verdict', undefined],
    ['inbound.concurrency', 16],
    ['inbound.maxInFlight', 256],
    ['inbound.maxQueued', 1_000],
    ['inbound.overflow', 'drop-oldest'],
    ['inbound.maxPacketBytes', 16_777_216],
    ['outbound.maxInFlight', 1_000],
    ['outbound.maxDelayMs', 1_000],
    ['outbound.whenBlocked', 'drop'],
    ['outbound.maxQueued', 1_000],
    ['outbound.maxQueuedBytes', 1_048_576],
    ['outbound.maxAgeMs', 60_000],
    ['outbound.overflow', 'drop-oldest'],
    ['outbound.topicAlias', true],
    ['outbound.flowControl', 'markers'],
    ['requests.timeoutMs', 30_000],
    ['requests.maxOpen', 10_000],
    ['requests.responseTopicPrefix', 'nestjs-mqtt/responses'],
    ['allowResponseTopic', undefined],
    ['envelope', 'requests'],
    ['eventQos', 0],
    ['drainTimeoutMs', 5_000],
    ['codec', 'json'],
    ['sharedGroup', undefined],
    ['variables', {}],
    ['clean', true],
    ['passThrough', {}],
  ])('%s is %j', (path, value) => {
    expect(read(resolved, path)).toEqual(value)
  })

  it('has a value or an explicit undefined for every option, and nothing else', () => {
    expect(Object.keys(resolved).toSorted()).toEqual([
      'allowResponseTopic',
      'authentication',
      'certificateWarningDays',
      'clean',
      'clientId',
      'codec',
      'connect',
      'connectTimeoutMs',
      'createStream',
      'credentials',
      'drainTimeoutMs',
      'envelope',
      'eventQos',
      'inbound',
      'insecureTls',
      'keepsSession',
      'localAddress',
      'onStopped',
      'outbound',
      'presence',
      'protocolVersion',
      'reconnect',
      'refusedSubscription',
      'requests',
      'secrets',
      'sharedGroup',
      'storing',
      'targets',
      'variables',
    ])
    expect(Object.keys(resolved.reconnect).toSorted()).toEqual(['delayMs', 'resetAfterMs', 'verdict'])
  })

  it.each([
    ['min', { max: 1_000 }, { min: 500, max: 1_000, jitter: 'full' }],
    ['max', { min: 1 }, { min: 1, max: 30_000, jitter: 'full' }],
    ['jitter', { min: 1, max: 1 }, { min: 1, max: 1, jitter: 'full' }],
  ])('fills in "reconnect.delayMs.%s"', (_name, delayMs, expected) => {
    expect(resolveOptions({ url, reconnect: { delayMs } }).reconnect.delayMs).toEqual(expected)
  })

  it('creates a Client Identifier per process, and treats an empty one as none', () => {
    const ids = [resolveOptions({ url }), resolveOptions({ url, clientId: '' })].map(
      options => options.clientId,
    )
    for (const id of ids) expect(id).toMatch(/^nestjs-mqtt-[0-9a-f-]{36}$/)
    expect(new Set(ids).size).toBe(2)
  })

  it.each([
    [1, 256],
    [128, 256],
    [129, 258],
    [32_767, 65_534],
    [32_768, 65_535],
    [65_535, 65_535],
  ])(
    'advertises twice the concurrency %i, but at least 256 and at most the largest Receive Maximum: %i',
    (concurrency, maxInFlight) => {
      expect(resolveOptions({ url, inbound: { concurrency } }).inbound.maxInFlight).toBe(maxInFlight)
    },
  )

  it('prefers a set "inbound.maxInFlight"', () => {
    expect(resolveOptions({ url, inbound: { concurrency: 50, maxInFlight: 1 } }).inbound).toEqual({
      concurrency: 50,
      maxInFlight: 1,
      maxQueued: 1_000,
      maxQueuedBytes: 67_108_864,
      overflow: 'drop-oldest',
      maxPacketBytes: 16_777_216,
    })
  })
})

describe('resolveOptions: explicit undefined is the default', () => {
  const OPTIONAL = [
    'createStream',
    'credentials',
    'localAddress',
    'onStopped',
    'refusedSubscription',
    'clientId',
    'clean',
    'connect',
    'connectTimeoutMs',
    'protocolVersion',
    'reconnect',
    'reconnect.delayMs',
    'reconnect.delayMs.min',
    'reconnect.delayMs.max',
    'reconnect.delayMs.jitter',
    'reconnect.resetAfterMs',
    'reconnect.verdict',
    'inbound',
    'inbound.concurrency',
    'inbound.maxInFlight',
    'inbound.maxQueued',
    'outbound',
    'outbound.maxInFlight',
    'drainTimeoutMs',
    'codec',
    'sharedGroup',
    'variables',
    'keepalive',
    'username',
    'password',
    'will',
    'properties',
    'ca',
    'proxy',
    'insecureTls',
    'certificateWarningDays',
  ]
  const withoutId = ({ clientId: _random, ...rest }: ResolvedOptions) => rest

  it.each(OPTIONAL)('for "%s"', path => {
    expect(withoutId(resolveAny(nested(path, undefined)))).toEqual(withoutId(resolveOptions({ url })))
  })

  it('does not pass the option to mqtt', () => {
    const passThrough = resolveAny({
      url,
      username: undefined,
      ca: undefined,
      clean: undefined,
    }).secrets.reveal().passThrough
    expect(Object.keys(passThrough)).toEqual([])
  })

  it('for "properties.sessionExpiryInterval" with a persistent session', () => {
    const properties = { sessionExpiryInterval: undefined }
    const resolved = resolveAny({ url, clean: false, clientId: 'c', properties })
    expect(resolved.secrets.reveal().passThrough.properties).toEqual({ sessionExpiryInterval: 0xffff_ffff })
  })

  it('for "properties.receiveMaximum", which must not have a value', () => {
    expect(() => resolveAny({ url, properties: { receiveMaximum: undefined } })).not.toThrow()
  })
})

describe('resolveOptions: numbers', () => {
  const INTEGERS: readonly (readonly [path: string, min: number, max: number])[] = [
    ['connectTimeoutMs', 1, 3_600_000],
    ['drainTimeoutMs', 0, 3_600_000],
    ['reconnect.resetAfterMs', 0, 86_400_000],
    ['reconnect.delayMs.max', 1, 86_400_000],
    ['inbound.concurrency', 1, 65_535],
    ['inbound.maxInFlight', 1, 65_535],
    ['inbound.maxQueued', 1, 10_000_000],
    ['outbound.maxInFlight', 1, 65_535],
    ['keepalive', 0, 65_535],
  ]

  it.each(INTEGERS)('"%s" may be %i and %i', (path, min, max) => {
    const low =
      path === 'reconnect.delayMs.max'
        ? { url, reconnect: { delayMs: { min, max: min } } }
        : nested(path, min)
    const where = path === 'keepalive' ? 'passThrough.keepalive' : path
    expect(read(resolveAny(low), where)).toBe(min)
    expect(read(resolveAny(nested(path, max)), where)).toBe(max)
  })

  const bad = INTEGERS.flatMap(([path, min, max]) =>
    [min - 1, max + 1, '1', true, null, Number.NaN, []].map(value => ({ path, min, max, value })),
  )
  it.each(bad)('"$path" must not be $value', ({ path, min, max, value }) => {
    const given = Array.isArray(value)
      ? 'a list of length 0'
      : typeof value === 'string'
        ? `"${value}"`
        : String(value)
    expect(problemsOf(nested(path, value))).toBe(
      `"${path}" must be an integer from ${min} to ${max}, but is ${given}`,
    )
  })

  it.each(INTEGERS)('"%s" is named once for a number that violates two rules', (path, min, max) => {
    const allowed = `an integer from ${min} to ${max}`
    expect(problemsOf(nested(path, min - 0.5))).toBe(`"${path}" must be ${allowed}, but is ${min - 0.5}`)
    expect(problemsOf(nested(path, Number.POSITIVE_INFINITY))).toBe(
      `"${path}" must be ${allowed}, but is Infinity`,
    )
  })
})

describe('resolveOptions: choices and flags', () => {
  it.each([
    ['connect', ['fail-fast', 'background']],
    ['protocolVersion', ['auto', 4, 5]],
    ['clean', [true]],
    ['codec', ['json', 'text', 'bytes']],
    ['reconnect.delayMs.jitter', ['full', 'decorrelated', 'none']],
    ['sharedGroup', ['g', 'a b', '$share', 'Kälte']],
    ['clientId', ['device-7']],
    ['refusedSubscription', ['fail', 'warn']],
    ['localAddress', ['127.0.0.1', '192.0.2.7', '::1', '2001:db8::7']],
    [
      'proxy',
      ['http://proxy', 'http://u:p@proxy:3128', 'socks5://proxy', 'socks5h://[::1]:1080', 'socks4a://p'],
    ],
    ['insecureTls', [true, false]],
    ['certificateWarningDays', [0, 3_650]],
  ])('"%s" may be each of %j', (path, values) => {
    for (const value of values) expect(read(resolveAny(nested(path, value)), path)).toBe(value)
  })

  it.each([
    ['connect', 'fast', 'must be one of "fail-fast", "background", but is "fast"'],
    ['connect', true, 'must be one of "fail-fast", "background", but is true'],
    ['protocolVersion', 3, 'must be one of "auto", 4, 5, but is 3'],
    ['protocolVersion', '5', 'must be one of "auto", 4, 5, but is "5"'],
    ['clean', 'no', 'must be true or false, but is "no"'],
    ['clean', 0, 'must be true or false, but is 0'],
    ['clientId', 7, 'must be a string of at most 65,535 bytes of UTF-8 without U+0000, but is 7'],
    [
      'codec',
      'xml',
      'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is "xml"',
    ],
    [
      'codec',
      { encode: true, decode: true },
      'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is an object',
    ],
    [
      'codec',
      { encode: () => 0 },
      'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is an object',
    ],
    [
      'codec',
      { decode: () => 0 },
      'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is an object',
    ],
    [
      'codec',
      null,
      'must be "json", "text", "bytes", "content-type", or an object with the functions encode and decode, but is null',
    ],
    ['createStream', {}, 'must be a function that returns a Duplex, but is an object'],
    ['refusedSubscription', 'ignore', 'must be one of "fail", "warn", but is "ignore"'],
    ['refusedSubscription', false, 'must be one of "fail", "warn", but is false'],
    ['localAddress', 'eth0', 'must be an IP address, but is "eth0"'],
    [
      'proxy',
      'proxy:3128',
      'must be a URL of a proxy, such as "http://proxy:3128" or "socks5h://proxy:1080", but is "proxy:3128"',
    ],
    [
      'proxy',
      'ftp://proxy:21',
      'must be a URL of a proxy, such as "http://proxy:3128" or "socks5h://proxy:1080", but is "ftp://proxy:21"',
    ],
    [
      'proxy',
      'ftp://proxy',
      'must be a URL of a proxy, such as "http://proxy:3128" or "socks5h://proxy:1080", but is "ftp://proxy"',
    ],
    [
      'proxy',
      'ftp://user:hunter2@proxy',
      'must be a URL of a proxy, such as "http://proxy:3128" or "socks5h://proxy:1080", but is "ftp://…"',
    ],
    ['insecureTls', 'yes', 'must be true or false, but is "yes"'],
    ['certificateWarningDays', -1, 'must be an integer from 0 to 3650, but is -1'],
    ['localAddress', '', 'must be an IP address, but is ""'],
    ['localAddress', '1.2.3', 'must be an IP address, but is "1.2.3"'],
    ['localAddress', 7, 'must be an IP address, but is 7'],
    ['onStopped', {}, 'must be a function of (cause), but is an object'],
    ['onStopped', true, 'must be a function of (cause), but is true'],
    ['reconnect.verdict', 'stop', 'must be a function of (cause), but is "stop"'],
    ['reconnect.verdict', {}, 'must be a function of (cause), but is an object'],
    ['sharedGroup', '', 'must be a non-empty name without "/", "+" and "#", but is ""'],
    ['sharedGroup', 'a/b', 'must be a non-empty name without "/", "+" and "#", but is "a/b"'],
    ['sharedGroup', 'a+', 'must be a non-empty name without "/", "+" and "#", but is "a+"'],
    ['sharedGroup', '#', 'must be a non-empty name without "/", "+" and "#", but is "#"'],
    ['sharedGroup', 7, 'must be a non-empty name without "/", "+" and "#", but is 7'],
    ['variables', 'site', 'must be an object with string values, but is "site"'],
    ['variables.site', 7, 'must be a non-empty string, but is 7'],
    [
      'reconnect.delayMs',
      500,
      'must be a list of delays, a function of (attempt, cause), or { min, max, jitter }, but is 500',
    ],
    [
      'reconnect.delayMs',
      'fast',
      'must be a list of delays, a function of (attempt, cause), or { min, max, jitter }, but is "fast"',
    ],
    ['reconnect.delayMs', [], 'must be a list with at least one delay, but is a list of length 0'],
    [
      'reconnect.delayMs',
      { min: 2, max: 1 },
      'must be an object whose "min" is at most "max", but is an object',
    ],
    [
      'reconnect.delayMs',
      { min: 30_001 },
      'must be an object whose "min" is at most "max", but is an object',
    ],
    ['reconnect.delayMs.min', 0, 'must be an integer from 1 to 86400000, but is 0'],
    ['reconnect.delayMs.jitter', 'half', 'must be one of "full", "decorrelated", "none", but is "half"'],
  ])('"%s" must not be %j', (path, value, problem) => {
    expect(problemsOf(nested(path, value))).toBe(`"${path}" ${problem}`)
  })

  it.each([-1, 1.5, '5', null])('names the delay %j of a list by its index', bad => {
    const problem = problemsOf({ url, reconnect: { delayMs: [0, 100, bad] } })
    expect(problem).toContain('"reconnect.delayMs.2"')
    expect(problem).toContain('must be an integer from 0 to 86400000')
  })

  it.each(['reconnect', 'inbound', 'outbound'])(
    '"%s" must be an object, with an error that says so',
    path => {
      for (const value of [5, 'x', true, null]) {
        expect(problemsOf(nested(path, value))).toMatch(/^"[a-z]+" must be an object .*but is /)
      }
    },
  )

  it('accepts a list, a function or a growing delay', () => {
    const delay = (attempt: number) => attempt
    expect(resolveOptions({ url, reconnect: { delayMs: [0, 5] } }).reconnect.delayMs).toEqual([0, 5])
    expect(resolveOptions({ url, reconnect: { delayMs: delay } }).reconnect.delayMs).toBe(delay)
  })

  it('accepts functions and returns the same functions', () => {
    const credentials = () => ({ username: 'u' })
    const onStopped = () => {}
    const verdict = () => 'stop' as const
    const resolved = resolveOptions({ url, credentials, onStopped, reconnect: { verdict } })
    expect(resolved.credentials).toBe(credentials)
    expect(resolved.onStopped).toBe(onStopped)
    expect(resolved.reconnect.verdict).toBe(verdict)
  })

  it.each([{ username: 'u' }, [], 5, true, null])('"credentials" must not be %j', value => {
    expect(problemsOf({ url, credentials: value })).toMatch(
      /^"credentials" must be a function that returns credentials, but is a value of type .+ \(not shown\)$/,
    )
  })

  it('accepts a custom codec and returns the same object', () => {
    const codec = { encode: () => Buffer.alloc(0), decode: () => 0 }
    expect(resolveOptions({ url, codec }).codec).toBe(codec)
  })

  it('keeps variables', () => {
    expect(resolveOptions({ url, variables: { site: 'berlin' } }).variables).toEqual({ site: 'berlin' })
  })
})

describe('resolveOptions: the address of the broker', () => {
  const GOOD = [
    'mqtt://h',
    'mqtts://h:8883',
    'ws://h/mqtt',
    'wss://u:p@h:443/mqtt?x=1',
    'mqtt://[::1]:1883',
    'mqtt+srv://example.com',
    'mqtts+srv://u:p@example.com',
    'mqtt+unix:///run/mosquitto.sock',
  ]
  const BAD = [
    '',
    'localhost',
    'localhost:1883',
    'mqtt://',
    'mqtt:',
    'mqtt://:1883',
    'http://h',
    'tcp://h',
    'mqtt://h:99999',
    'mqtt+srv://',
    'ws+srv://h',
    'wss+srv://h',
    'http+srv://h',
    'mqtt+unix://',
    'mqtt+unix:///',
    'mqtt+unix://run/mosquitto.sock',
    'mqtts+unix:///run/mosquitto.sock',
  ]
  const allowed =
    'must be a URL with a host, such as "mqtt://localhost:1883" (mqtt, mqtts, ws, wss, mqtt+srv or mqtts+srv), or with the path of a Unix socket (mqtt+unix:///path), a list of URLs, or a function that returns a URL, but is'

  it.each(GOOD)('accepts %s unchanged', given => {
    expect(resolveOptions({ url: given }).secrets.reveal().urls).toEqual([given])
  })

  it('accepts a list of one or more URLs, in order', () => {
    expect(resolveOptions({ url: [url] }).secrets.reveal().urls).toEqual([url])
    expect(resolveOptions({ url: GOOD }).secrets.reveal().urls).toEqual(GOOD)
    expect(resolveOptions({ url: GOOD.toReversed() }).secrets.reveal().urls).toEqual(GOOD.toReversed())
  })

  it.each(BAD)('refuses %j', given => {
    expect(problemsOf({ url: given })).toBe(`"url" ${allowed} "${given}"`)
  })

  it.each(BAD)('refuses %j in a list, and names its index', given => {
    expect(problemsOf({ url: [url, given] })).toBe(`"url.1" ${allowed} "${given}"`)
  })

  it.each([
    [{}, 'missing'],
    [{ url: undefined }, 'missing'],
    [{ url: null }, 'null'],
    [{ url: 1883 }, '1883'],
    [{ url: [] }, 'a list of length 0'],
    [{ url: [], createStream }, 'a list of length 0'],
    [{ url: new URL('mqtt://h') }, 'an object'],
  ])('refuses %j', (options, given) => {
    expect(problemsOf(options)).toBe(`"url" ${allowed} ${given}`)
  })

  it.each([[null], [1883], [['mqtt://h']], [new URL('mqtt://h')]])('refuses %j in a list', given => {
    expect(problemsOf({ url: [given, url] })).toMatch(/^"url\.0" must be a URL with a host.+, but is /)
  })

  it('accepts a function that returns the URL of an attempt', () => {
    const create = () => 'mqtt://h'
    const resolved = resolveOptions({ url: create })
    expect(resolved.secrets.reveal()).toMatchObject({ urls: [], createUrl: create })
    expect(resolved.targets).toBe(1)
    expect(describeTarget(resolved)).toBe('the URL from url()')
  })

  it('needs no url with createStream', () => {
    const resolved = resolveOptions({ createStream })
    expect(resolved).toMatchObject({ createStream, targets: 1 })
    expect(resolved.secrets.reveal().urls).toEqual([])
  })

  it('ignores a url with createStream', () => {
    const resolved = resolveOptions({ url: [url, url], createStream })
    expect(resolved).toMatchObject({ createStream, targets: 1 })
    expect(resolved.secrets.reveal().urls).toEqual([])
  })

  it.each([[undefined], [null], ['mqtt://h'], [5]])('refuses %j in place of the options', options => {
    expect(problemsOf(options)).toContain('must be an object with options')
  })
})

describe('resolveOptions: unknown keys', () => {
  it.each([
    ['reconnectPeriod', 1_000],
    ['protocolId', 'MQTT'],
    ['resubscribe', true],
    ['queueQoSZero', true],
    ['Url', url],
    ['host', 'h'],
    ['inbound.maxInflight', 5],
    ['outbound.concurrency', 5],
    ['reconnect.maxDelay', 5],
    ['reconnect.delayMs.factor', 2],
    ['reconnect.onStopped', 2],
    ['urls', [url]],
    ['servers', []],
    ['headers', {}],
  ])('refuses "%s"', (path, value) => {
    expect(problemsOf(nested(path, value))).toMatch(
      new RegExp(`^unknown option "${path.replaceAll('.', '\\.')}"(; .+)?$`),
    )
  })

  it('refuses an unknown key also with the value undefined', () => {
    expect(problemsOf({ url, colour: undefined })).toBe('unknown option "colour"')
  })
})

describe('resolveOptions: several problems at once', () => {
  it('names every invalid option in one error', () => {
    const problems = problemsOf({
      connect: 'x',
      inbound: { concurrency: 0, maxQueued: 0 },
      drainTimeoutMs: -1,
      nonsense: 1,
      url: 'h',
    }).split('; ')
    expect(problems.map(problem => /^(?:unknown option )?"([^"]*)"/.exec(problem)?.[1]).toSorted()).toEqual([
      'connect',
      'drainTimeoutMs',
      'inbound.concurrency',
      'inbound.maxQueued',
      'nonsense',
      'url',
    ])
  })

  it('names every unknown key, not only the first', () => {
    const problem = problemsOf({ url, reconnectPeriod: 1, resubscribe: true, inbound: { a: 1, b: 2 } })
    for (const name of ['reconnectPeriod', 'resubscribe', 'inbound.a', 'inbound.b']) {
      expect(problem).toContain(`unknown option "${name}"`)
    }
  })
})

describe('resolveOptions: sessions', () => {
  it('refuses a persistent session without a Client Identifier', () => {
    for (const clientId of [undefined, '']) {
      expect(problemsOf({ url, clean: false, clientId })).toContain('"clientId" is missing; clean: false')
    }
  })

  it('keeps a session forever by default', () => {
    const kept = { url, clean: false, clientId: 'c' }
    const resolved = resolveOptions(kept)
    expect(resolved).toMatchObject({ clean: false, clientId: 'c', keepsSession: true })
    expect(resolved.secrets.reveal().passThrough.properties).toEqual({ sessionExpiryInterval: 0xffff_ffff })
    const properties = { sessionExpiryInterval: 60, userProperties: { a: 'b' } }
    expect(resolveOptions({ ...kept, properties }).secrets.reveal().passThrough.properties).toEqual(
      properties,
    )
    expect(
      resolveOptions({ ...kept, properties: { userProperties: { a: 'b' } } }).secrets.reveal().passThrough
        .properties,
    ).toEqual({
      sessionExpiryInterval: 0xffff_ffff,
      userProperties: { a: 'b' },
    })
  })

  it('sets no Session Expiry Interval for a clean session', () => {
    expect(
      resolveOptions({ url, clean: true, clientId: 'c' }).secrets.reveal().passThrough.properties,
    ).toBeUndefined()
  })

  it.each([1, 65_535, 0])(
    'refuses "properties.receiveMaximum" %i, which is a separate option',
    receiveMaximum => {
      expect(problemsOf({ url, properties: { receiveMaximum } })).toBe(
        '"properties.receiveMaximum" cannot be set; use "inbound.maxInFlight"',
      )
    },
  )
})

describe('resolveOptions: TLS files', () => {
  it('are not passed to mqtt, which reads none', () => {
    const files = {
      caPath: ['/a.pem', '/b.pem'],
      certPath: '/cert.pem',
      keyPath: '/key.pem',
      passphrase: 'p',
    }
    const resolved = resolveOptions({ url: 'mqtts://h', ...files })
    const { passThrough, tlsFiles } = resolved.secrets.reveal()
    expect(tlsFiles).toEqual(files)
    expect(passThrough).toEqual({})
  })

  it.each(['ca', 'cert', 'key'])('"%s" and its path together are refused', name => {
    expect(problemsOf({ url, [name]: 'PEM', [`${name}Path`]: '/file.pem' })).toBe(
      `"${name}" and "${name}Path" are both set; remove one of them`,
    )
  })

  it.each(['socks4', 'socks4a'])(
    'a password in a proxy URL of the kind %s is refused, because it has none',
    kind => {
      expect(() => resolveOptions({ url, proxy: `${kind}://user@proxy` })).not.toThrow()
      expect(problemsOf({ url, proxy: `${kind}://user:hunter2@proxy` })).toBe(
        '"proxy" has a password, but SOCKS 4 has none; remove the password, or use socks5:// or socks5h://',
      )
    },
  )

  it('"caPaths" of mqtt is refused with its replacement', () => {
    expect(problemsOf({ url, caPaths: '/ca.pem' })).toBe('unknown option "caPaths"; use "caPath"')
  })

  it.each(['ca', 'cert', 'key', 'caPath', 'certPath', 'keyPath'])(
    '"%s" is refused if no URL uses TLS, because everything would be sent unencrypted',
    name => {
      expect(problemsOf({ url: ['mqtt://h', 'ws://h'], [name]: 'x' })).toBe(
        `"${name}" has no effect, because "url" does not use TLS; use mqtts:// or wss://, or remove "${name}"`,
      )
      expect(() => resolveOptions({ url: ['mqtt://h', 'mqtts://h'], [name]: 'x' })).not.toThrow()
    },
  )

  it.each([
    ['rejectUnauthorized', { rejectUnauthorized: false }, 'insecureTls: true'],
    ['wsOptions.rejectUnauthorized', { wsOptions: { rejectUnauthorized: false } }, '"insecureTls"'],
    ['socksProxy', { socksProxy: 'socks5://proxy:1080' }, '"proxy"'],
  ])('"%s" of mqtt is refused with its replacement', (name, options, replacement) => {
    const problem = problemsOf({ url: 'wss://h', ...options })
    expect(problem).toContain(name)
    expect(problem).toContain(replacement)
  })

  it.each([
    ['caPath', 7],
    ['caPath', []],
    ['caPath', ''],
    ['certPath', ['/a.pem']],
    ['keyPath', ''],
    ['passphrase', 7],
  ])('"%s" of the wrong type is refused', (name, value) => {
    expect(problemsOf({ url, [name]: value })).toContain(`"${name}"`)
  })
})

describe('resolveOptions: options passed to mqtt', () => {
  const passed = {
    ALPNProtocols: ['mqtt'],
    ca: Buffer.from('ca'),
    cert: Buffer.from('cert'),
    key: Buffer.from('key'),
    keepalive: 30,
    username: 'u',
    password: Buffer.from('p'),
    properties: { userProperties: { a: 'b' } },
    servername: 'broker',
    will: { topic: 'gone', payload: Buffer.from('x'), qos: 1, retain: true },
    wsOptions: { headers: { a: 'b' } },
  } as const

  it('are unchanged, and nothing else is passed', () => {
    const resolved = resolveAny({ url: 'mqtts://h', drainTimeoutMs: 1, codec: 'text', ...passed })
    expect(resolved.secrets.reveal().passThrough).toEqual(passed)
    expect(resolved.secrets.reveal().passThrough.ca).toBe(passed.ca)
    expect(resolved.secrets.reveal().passThrough.will).toBe(passed.will)
  })

  it('may be functions', () => {
    const transformWsUrl = (given: string) => given
    expect(resolveOptions({ url, transformWsUrl }).secrets.reveal().passThrough.transformWsUrl).toBe(
      transformWsUrl,
    )
  })

  it.each([
    ['username', 7, 'a string of at most 65,535 bytes of UTF-8 without U+0000'],
    ['password', 7, 'a string or a Buffer'],
    ['password', ['p'], 'a string or a Buffer'],
  ])('refuses "%s" of the wrong type', (name, value, allowed) => {
    expect(problemsOf({ url, [name]: value })).toBe(
      `"${name}" must be ${allowed}, but is a value of type ${typeof value} (not shown)`,
    )
  })
})

describe('secrets never appear in an error', () => {
  it.each([
    ['the password in a URL', { url: `http://user:${SECRET}@host` }],
    ['the user in a URL', { url: `http://${SECRET}@host` }],
    ['a password with "@" in a URL', { url: `http://user:a@${SECRET}@host` }],
    ['a password with "/" in a URL', { url: `mqtt://user:a/${SECRET}@host` }],
    ['a password with "?" in a URL', { url: `mqtt://user:a?${SECRET}@host` }],
    ['a password with "#" in a URL', { url: `mqtt://user:a#${SECRET}@host` }],
    ['a password behind a line break in a URL', { url: `http://user\n:${SECRET}@host` }],
    ['the query of a URL', { url: `http://host/mqtt?token=${SECRET}` }],
    ['the query of a URL, with "@" in it', { url: `http://host/mqtt?token=a@${SECRET}` }],
    ['the user info of a URL without scheme', { url: `user:${SECRET}@host:1883` }],
    ['the user info of a URL without slashes', { url: `mqtt:user:${SECRET}@host` }],
    ['the user info of a URL with one slash', { url: `mqtt:/user:${SECRET}@host` }],
    ['a user without scheme and digits in a URL', { url: 'secretive:pw@host' }, 'secretive'],
    ['a list of URLs', { url: [`http://user:${SECRET}@host`] }],
    ['a good URL in a list next to a bad one', { url: [`mqtt://user:${SECRET}@host`, 'http://host'] }],
    ['a URL in a list in a list', { url: [[`mqtt://user:${SECRET}@host`]] }],
    ['the query of a URL in a list', { url: [url, `http://host/mqtt?token=${SECRET}`] }],
    ['credentials that are a text', { url, credentials: SECRET }],
    ['credentials that are an object', { url, credentials: { username: SECRET, password: SECRET } }],
    ['a URL given for the local address', { url, localAddress: `mqtt://user:${SECRET}@host` }],
    ['a URL object', { url: new URL(`mqtt://user:${SECRET}@host`) }],
    ['a password of the wrong type', { url, password: { value: SECRET } }],
    ['a password that is a list', { url, password: [SECRET] }],
    ['a user name of the wrong type', { url, username: [SECRET] }],
    ['the value of an unknown key', { url, passwort: SECRET }],
    ['the value of an unknown key with a TLS key', { url, privateKey: SECRET }],
    ['the value of an unknown key in a group', { url, reconnect: { password: SECRET } }],
    ['a URL given for another option', { url, connect: `mqtt://user:${SECRET}@host` }],
    ['a URL given for a group', { url, reconnect: `mqtt://user:${SECRET}@host` }],
    ['a URL given for the codec', { url, codec: `mqtt://user:${SECRET}@host?token=${SECRET}` }],
    ['a variable with the name of a secret', { url, variables: { apiKey: [SECRET] } }],
    [
      'good secrets next to a bad option',
      {
        url: `mqtt://user:${SECRET}@host?token=${SECRET}`,
        password: SECRET,
        key: SECRET,
        cert: SECRET,
        ca: SECRET,
        will: { topic: 'a', payload: SECRET },
        wsOptions: { headers: { authorization: SECRET } },
        connect: 'x',
      },
    ],
  ])('%s', (_what, options, secret = SECRET) => {
    const error = errorOf(() => resolveAny(options))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).not.toContain(secret)
    expect(JSON.stringify(error.cause) ?? '').not.toContain(secret)
    expect(error.stack).not.toContain(secret)
  })
})

describe('describeTarget', () => {
  it.each([
    ['mqtt://broker.example', 'mqtt://broker.example'],
    ['mqtts://broker.example:8883', 'mqtts://broker.example:8883'],
    ['mqtt://[::1]:1883', 'mqtt://[::1]:1883'],
    ['wss://broker.example:443/mqtt/a', 'wss://broker.example:443/mqtt/a'],
    ['mqtts://user:hunter2@broker.example:8883', 'mqtts://broker.example:8883'],
    ['mqtts://user@broker.example:8883', 'mqtts://broker.example:8883'],
    ['mqtts://user:p%40ss@broker.example:8883', 'mqtts://broker.example:8883'],
    ['wss://broker.example:8084/mqtt?token=hunter2', 'wss://broker.example:8084/mqtt'],
    ['wss://broker.example:8084/mqtt?user=me@corp.example', 'wss://broker.example:8084/mqtt'],
    ['wss://user:hunter2@broker.example:8084/mqtt?token=a@hunter2', 'wss://broker.example:8084/mqtt'],
    ['mqtt+unix:///run/a@b/mosquitto.sock', 'mqtt+unix:///run/a@b/mosquitto.sock'],
  ])('names %s as %s', (given, target) => {
    expect(describeTarget(resolveOptions({ url: given }))).toBe(target)
  })

  it.each([
    ['a blank before it', ' mqtt://user:hunter2@broker.example'],
    ['a tab before and a line break behind it', '\tmqtt://user:hunter2@broker.example\n'],
    ['no slashes, which a WebSocket URL may leave out', 'ws:user:hunter2@broker.example'],
    ['one slash', 'wss:/user:hunter2@broker.example'],
    ['backslashes', 'ws:\\\\user:hunter2@broker.example'],
    ['a backslash in the user', 'mqtt://us\\er:hunter2@broker.example'],
  ])('shows no user and no password for a URL with %s', (_what, given) => {
    const target = describeTarget(resolveOptions({ url: given }))
    expect(target).toContain('broker.example')
    expect(target).not.toContain('hunter2')
    expect(target).not.toContain('er:')
  })

  it('names every URL of a list, without user, password and query', () => {
    const given = ['mqtts+srv://user:hunter2@example.com', 'wss://user@b:8084/mqtt?token=hunter2', 'mqtt://c']
    expect(describeTarget(resolveOptions({ url: given }))).toBe(
      'mqtts+srv://example.com, wss://b:8084/mqtt, mqtt://c',
    )
  })

  it('names the stream of the application', () => {
    expect(describeTarget(resolveOptions({ createStream }))).toBe('the stream from createStream()')
  })

  it('names the stream if a url is set too, because the stream is used', () => {
    expect(describeTarget(resolveOptions({ url, createStream }))).toBe('the stream from createStream()')
  })
})

describe('parseOptions', () => {
  it('names the owner of the options', () => {
    expect(errorOf(() => parseOptions('handle()', sharedGroupSchema, 'a/b')).message).toMatch(/^handle\(\): /)
  })

  it('returns the validated options', () => {
    expect(parseOptions('handle()', sharedGroupSchema, 'group')).toBe('group')
  })
})

import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it, vi } from 'vitest'
import { Endpoints } from '../../../../src/client/connection/endpoints.js'
import type { Dialler } from '../../../../src/client/connection/link.js'
import { MqttConnection } from '../../../../src/client/connection/mqtt-connection.js'
import type { SrvRecord } from '../../../../src/core/connection/reconnect-rules.js'
import { resolveOptions } from '../../../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../../../src/options/options.js'

const record = (name: string, priority = 1, weight = 1, port = 1883): SrvRecord => ({
  name,
  port,
  priority,
  weight,
})

type Zone = Readonly<Record<string, readonly SrvRecord[]>>

/** Endpoints over a DNS that knows one zone. */
function endpointsOf(options: MqttModuleOptions, zone: Zone = {}) {
  const resolver = vi.fn(async (service: string): Promise<readonly SrvRecord[]> => zone[service] ?? [])
  return { endpoints: new Endpoints(resolveOptions(options), resolver), resolver }
}

/** Where attempts go, one after the other, when each of them fails. */
async function urlsOf(endpoints: Endpoints, attempts: number, target = 0): Promise<(string | undefined)[]> {
  const urls: (string | undefined)[] = []
  for (let attempt = 0; attempt < attempts; attempt++)
    urls.push((await endpoints.next(target, undefined)).url)
  return urls
}

describe('a plain URL', () => {
  it.each([
    'mqtt://h',
    'mqtts://h:8883',
    'mqtt://[::1]:1883',
    'ws://h/mqtt',
    'wss://u:p@h:443/mqtt?token=1',
    'mqtt://u@h',
  ])('%s is used unchanged, without a look-up', async url => {
    const { endpoints, resolver } = endpointsOf({ url })
    expect((await endpoints.next(0, undefined)).url).toBe(url)
    expect(resolver).not.toHaveBeenCalled()
  })

  it('from a list is the one of the target', async () => {
    const { endpoints } = endpointsOf({ url: ['mqtt://a', 'mqtt://b', 'mqtt://c'] })
    const names = await Promise.all(
      [2, 0, 1].map(async target => (await endpoints.next(target, undefined)).name),
    )
    expect(names).toEqual(['mqtt://c', 'mqtt://a', 'mqtt://b'])
  })

  it('is undefined if the application opens the stream', async () => {
    const createStream = () => {
      throw new Error('not to be opened here')
    }
    const { endpoints } = endpointsOf({ createStream })
    const expected = { url: undefined, name: 'the stream from createStream()', credentials: {} }
    expect(await endpoints.next(0, undefined)).toEqual(expected)
    expect(await endpoints.next(0, 'other.example')).toEqual(expected)
  })
})

describe('DNS SRV', () => {
  it.each([
    ['mqtt+srv://example.com', '_mqtt._tcp.example.com', 'mqtt://b1:1883'],
    ['mqtts+srv://example.com', '_secure-mqtt._tcp.example.com', 'mqtts://b1:1883'],
  ])('of %s looks up %s and connects to %s', async (url, service, dialled) => {
    const { endpoints, resolver } = endpointsOf({ url }, { [service]: [record('b1')] })
    expect(await endpoints.next(0, undefined)).toEqual({ url: dialled, name: dialled, credentials: {} })
    expect(resolver).toHaveBeenCalledExactlyOnceWith(service)
  })

  const url = 'mqtt+srv://example.com'
  const service = '_mqtt._tcp.example.com'

  it('tries the records by priority and, within one priority, at random by weight, and starts again', async () => {
    const records = [
      record('spare', 20, 100),
      record('light', 10, 1),
      record('heavy', 10, 9, 1884),
      record('last', 30, 0),
    ]
    const randoms = [0.99]
    const resolver = async () => records
    const endpoints = new Endpoints(resolveOptions({ url }), resolver, () => randoms.shift() ?? 0)
    expect(await urlsOf(endpoints, 5)).toEqual([
      'mqtt://heavy:1884',
      'mqtt://light:1883',
      'mqtt://spare:1883',
      'mqtt://last:1883',
      'mqtt://light:1883',
    ])
  })

  it.each(['', '.'])('with the target %j says that the domain has no such service', async name => {
    const { endpoints } = endpointsOf({ url }, { [service]: [record(name)] })
    await expect(endpoints.next(0, undefined)).rejects.toThrow(
      `the SRV record ${service} says that this domain has no such service`,
    )
  })

  it('forgets which records it has tried when they are gone, and there are too many of them', async () => {
    const answers = [
      [record('first')],
      ...Array.from({ length: 1_000 }, (_, index) => [record(`gone-${index}`)]),
      [record('first', 1), record('spare', 2)],
    ]
    const resolver = async () => answers.shift() ?? []
    const endpoints = new Endpoints(resolveOptions({ url }), resolver)
    const urls = await urlsOf(endpoints, 1_002)
    expect(urls.at(-1)).toBe('mqtt://first:1883')
  })

  it('forgets the records of the oldest name when there are too many names', async () => {
    let names = 0
    const resolver = async () => [record('first', 1), record('spare', 2)]
    const options = resolveOptions({ url: () => `mqtt+srv://broker-${names++ % 1_001}.example` })
    const endpoints = new Endpoints(options, resolver)
    const urls = await urlsOf(endpoints, 1_002)
    expect(new Set(urls)).toEqual(new Set(['mqtt://first:1883']))
  })

  it('does not change the list of the resolver', async () => {
    const records = Object.freeze([record('b', 2), record('a', 1)])
    const { endpoints } = endpointsOf({ url }, { [service]: records })
    expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://a:1883'])
    expect(records.map(({ name }) => name)).toEqual(['b', 'a'])
  })

  it('is looked up at each attempt, so that changes take effect', async () => {
    const resolver = vi
      .fn<(service: string) => Promise<SrvRecord[]>>()
      .mockResolvedValueOnce([record('old')])
      .mockResolvedValueOnce([record('new')])
    const endpoints = new Endpoints(resolveOptions({ url }), resolver)
    expect(await urlsOf(endpoints, 2)).toEqual(['mqtt://old:1883', 'mqtt://new:1883'])
    expect(resolver).toHaveBeenCalledTimes(2)
  })

  const three = { [service]: [record('b1', 1), record('b2', 2), record('b3', 3)] }

  it('returns to the record that worked', async () => {
    const { endpoints } = endpointsOf({ url }, three)
    await urlsOf(endpoints, 2)
    endpoints.keep()
    expect(await urlsOf(endpoints, 3)).toEqual(['mqtt://b2:1883', 'mqtt://b1:1883', 'mqtt://b3:1883'])
    endpoints.keep()
    expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://b3:1883'])
  })

  it('returns to the first record each time while it works', async () => {
    const { endpoints } = endpointsOf({ url }, three)
    for (let connection = 0; connection < 5; connection++) {
      expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://b1:1883'])
      endpoints.keep()
    }
    expect(await urlsOf(endpoints, 2)).toEqual(['mqtt://b1:1883', 'mqtt://b2:1883'])
  })

  it('continues with the next record even after connections without a record', async () => {
    const { endpoints } = endpointsOf({ url: ['mqtt://plain', url] }, three)
    for (let connection = 0; connection < 5; connection++) {
      await endpoints.next(0, undefined)
      endpoints.keep()
    }
    expect(await urlsOf(endpoints, 3, 1)).toEqual(['mqtt://b1:1883', 'mqtt://b2:1883', 'mqtt://b3:1883'])
  })

  it('continues with the next record even after connections to a Server Reference', async () => {
    const { endpoints } = endpointsOf({ url }, three)
    for (let connection = 0; connection < 5; connection++) {
      await endpoints.next(0, 'other.example')
      endpoints.keep()
    }
    expect(await urlsOf(endpoints, 3)).toEqual(['mqtt://b1:1883', 'mqtt://b2:1883', 'mqtt://b3:1883'])
  })

  it('starts with the first record of each URL', async () => {
    const second = 'mqtt+srv://example.org'
    const zone = { ...three, '_mqtt._tcp.example.org': [record('c1', 1), record('c2', 2)] }
    const { endpoints } = endpointsOf({ url: [url, second] }, zone)
    expect(await urlsOf(endpoints, 1, 0)).toEqual(['mqtt://b1:1883'])
    expect(await urlsOf(endpoints, 1, 1)).toEqual(['mqtt://c1:1883'])
    expect(await urlsOf(endpoints, 1, 0)).toEqual(['mqtt://b2:1883'])
    expect(await urlsOf(endpoints, 1, 1)).toEqual(['mqtt://c2:1883'])
  })

  it('tries MQTT 3.1.1 with the same record that rejected MQTT 5', async () => {
    const { endpoints } = endpointsOf({ url }, three)
    const dialled: string[] = []
    const dialler: Dialler = {
      unreleased: { count: 0, bytes: 0 },
      locate: (...where) => endpoints.next(...where),
      dial: ({ name }, protocolVersion) => {
        dialled.push(`${protocolVersion} ${name}`)
        throw Object.assign(new Error('hung up'), { code: 'ECONNRESET' })
      },
    }
    const options = resolveOptions({ url, connect: 'background' })
    const connection = new MqttConnection(options, dialler, () => {})
    const failed = new Promise<void>(resolve => {
      connection.attach({ stateChanged: ({ status }) => status === 'waiting' && resolve() })
    })
    await connection.open()
    await failed
    await connection.close(0)
    expect(dialled).toEqual(['5 mqtt://b1:1883', '4 mqtt://b1:1883'])
  })

  it('without records rejects with an error that names the service', async () => {
    const { endpoints } = endpointsOf({ url }, { [service]: [] })
    await expect(endpoints.next(0, undefined)).rejects.toThrow(`there is no SRV record ${service}`)
  })

  it('that fails rejects with the original cause', async () => {
    const cause = Object.assign(new Error(`querySrv ENOTFOUND ${service}`), { code: 'ENOTFOUND' })
    const endpoints = new Endpoints(resolveOptions({ url }), () => Promise.reject(cause))
    await expect(endpoints.next(0, undefined)).rejects.toBe(cause)
  })

  it('starts with the first record after a period of failures', async () => {
    const resolver = vi
      .fn<(service: string) => Promise<readonly SrvRecord[]>>()
      .mockResolvedValue(three[service] ?? [])
      .mockRejectedValueOnce(new Error('SERVFAIL'))
    const endpoints = new Endpoints(resolveOptions({ url }), resolver)
    await expect(endpoints.next(0, undefined)).rejects.toThrow('SERVFAIL')
    expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://b1:1883'])
  })

  it.each([
    ['mqtt+srv://u:p@example.com', 'mqtt://u:p@b1:1883'],
    ['mqtt+srv://u%40x:p%3A%2F@example.com', 'mqtt://u%40x:p%3A%2F@b1:1883'],
    ['mqtt+srv://u@example.com', 'mqtt://u@b1:1883'],
  ])('keeps the user of %s', async (given, dialled) => {
    const { endpoints } = endpointsOf({ url: given }, { [service]: [record('b1')] })
    const { url: found, name } = await endpoints.next(0, undefined)
    expect(found).toBe(dialled)
    expect(name).toBe('mqtt://b1:1883')
  })
})

describe('a function as the URL', () => {
  it('is called before every attempt, so that a signed URL is fresh', async () => {
    let calls = 0
    const { endpoints } = endpointsOf({ url: async () => `wss://h/mqtt?signature=${++calls}` })
    expect(await urlsOf(endpoints, 2)).toEqual(['wss://h/mqtt?signature=1', 'wss://h/mqtt?signature=2'])
    expect((await endpoints.next(0, undefined)).name).toBe('wss://h/mqtt')
  })

  it('that returns no URL fails the attempt without its value', async () => {
    const { endpoints } = endpointsOf({ url: () => 'h/mqtt?signature=hunter2' })
    await expect(endpoints.next(0, undefined)).rejects.toThrow(
      'the function "url" returned no URL with a host, such as "wss://broker.example/mqtt"',
    )
  })

  it('may return a name with SRV records', async () => {
    const zone = { '_mqtt._tcp.example.com': [record('b1')] }
    const { endpoints } = endpointsOf({ url: () => 'mqtt+srv://example.com' }, zone)
    expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://b1:1883'])
  })
})

describe('a Server Reference', () => {
  it.each([
    ['a host alone', 'mqtt://h:1884', 'other.example', 'mqtt://other.example'],
    ['a host with a port', 'mqtt://h:1884', 'other.example:2000', 'mqtt://other.example:2000'],
    ['an IPv4 address', 'mqtt://h', '192.0.2.7:2000', 'mqtt://192.0.2.7:2000'],
    ['an IPv6 address in brackets', 'mqtt://h', '[2001:db8::7]', 'mqtt://[2001:db8::7]'],
    ['an IPv6 address with a port', 'mqtts://h', '[2001:db8::7]:2000', 'mqtts://[2001:db8::7]:2000'],
    ['the first of several', 'mqtt://h', 'one.example:1 two.example', 'mqtt://one.example:1'],
    ['blanks around it', 'mqtt://h', '  one.example \t two.example', 'mqtt://one.example'],
    ['the scheme of TLS', 'mqtts://h:8883', 'other.example', 'mqtts://other.example'],
    ['the path of a WebSocket', 'wss://h:443/mqtt', 'other.example:8443', 'wss://other.example:8443/mqtt'],
    ['the user and password', 'mqtts://u:p%40@h', 'other.example', 'mqtts://u:p%40@other.example'],
    ['a user without password', 'mqtt://u@h', 'other.example', 'mqtt://u@other.example'],
    ['a home that was found by SRV', 'mqtt+srv://example.com', 'other.example', 'mqtt://other.example'],
    ['a home found by SRV, with TLS', 'mqtts+srv://u:p@example.com', 'b:1', 'mqtts://u:p@b:1'],
  ])('with %s: %s and the reference %j become %s', async (_what, url, reference, dialled) => {
    const { endpoints, resolver } = endpointsOf({ url })
    expect((await endpoints.next(0, reference)).url).toBe(dialled)
    expect(resolver).not.toHaveBeenCalled()
  })

  it.each(['\u0001', '\u0001:1883'])(
    'with the control characters %j is an error, and not a connection to this machine',
    async reference => {
      const { endpoints } = endpointsOf({ url: 'mqtt://u:p@h' })
      await expect(endpoints.next(0, reference)).rejects.toThrow('is not a valid host')
    },
  )

  it('keeps scheme and user of the target that sent it', async () => {
    const { endpoints } = endpointsOf({ url: ['mqtt://a', 'mqtts://u:p@b'] })
    expect((await endpoints.next(1, 'other.example')).url).toBe('mqtts://u:p@other.example')
  })

  it('does not skip an SRV record', async () => {
    const zone = { '_mqtt._tcp.example.com': [record('b1', 1), record('b2', 2)] }
    const { endpoints } = endpointsOf({ url: 'mqtt+srv://example.com' }, zone)
    expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://b1:1883'])
    await endpoints.next(0, 'other.example')
    expect(await urlsOf(endpoints, 1)).toEqual(['mqtt://b2:1883'])
  })
})

describe('the name for a log', () => {
  const SECRETS = ['us3r', 'hunter2', 't0ken']

  it.each([
    ['mqtts://us3r:hunter2@h:8883', undefined, 'mqtts://h:8883'],
    ['mqtts://us3r@h:8883', undefined, 'mqtts://h:8883'],
    ['wss://us3r:hunter2@h:443/mqtt?token=t0ken', undefined, 'wss://h:443/mqtt'],
    ['wss://h:443/mqtt?token=a@t0ken', undefined, 'wss://h:443/mqtt'],
    ['mqtt+srv://us3r:hunter2@example.com', undefined, 'mqtt://b1:1883'],
    ['mqtts://us3r:hunter2@h:8883', 'other.example:1', 'mqtts://other.example:1'],
    ['wss://us3r:hunter2@h:443/mqtt?token=t0ken', 'other.example', 'wss://other.example/mqtt'],
    ['mqtt+srv://us3r:hunter2@example.com', '[::1]:1', 'mqtt://[::1]:1'],
  ])('of %s with the reference %s is %s', async (url, reference, expected) => {
    const { endpoints } = endpointsOf({ url }, { '_mqtt._tcp.example.com': [record('b1')] })
    const { name } = await endpoints.next(0, reference)
    expect(name).toBe(expected)
    for (const secret of SECRETS) expect(name).not.toContain(secret)
  })
})

describe('a certificate or key that is not in a file', () => {
  const SECRET = 'hunter2'
  const CUT_OFF = `-----BEGIN CERTIFICATE-----\n${SECRET}`

  it.each([
    ['ca', SECRET, '"ca" must contain certificates in PEM format, but cannot be read'],
    ['ca', Buffer.from(CUT_OFF), '"ca" must contain certificates in PEM format, but cannot be read'],
    ['ca', [CUT_OFF], '"ca" must contain certificates in PEM format, but cannot be read'],
    ['cert', SECRET, '"cert" must contain a certificate in PEM format, but cannot be read'],
    ['key', Buffer.from(SECRET), '"key" must contain a private key in PEM format, but cannot be read'],
  ])('and cannot be read fails the attempt: %s %j', async (option, content, message) => {
    const fromOptions = endpointsOf({ url: 'mqtts://h', [option]: content }).endpoints
    await expect(fromOptions.next(0, undefined)).rejects.toThrow(new Error(message))
    const fromCredentials = endpointsOf({ url: 'mqtts://h', credentials: () => ({ [option]: content }) })
    await expect(fromCredentials.endpoints.next(0, undefined)).rejects.toThrow(new Error(message))
  })

  it('that is encrypted names the passphrase', async () => {
    const { privateKey: key } = generateKeyPairSync('rsa', {
      modulusLength: 2_048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: SECRET },
    })
    const attempt = (more: object) =>
      endpointsOf({ url: 'mqtts://h', key, ...more }).endpoints.next(0, undefined)
    const text = 'the private key of "key" cannot be decrypted: "passphrase" is'
    await expect(attempt({})).rejects.toThrow(`${text} missing`)
    await expect(attempt({ passphrase: 'other' })).rejects.toThrow(`${text} wrong`)
    await expect(attempt({ passphrase: SECRET })).resolves.toMatchObject({ url: 'mqtts://h' })
  })
})

describe('credentials', () => {
  const url = 'mqtt://h'

  it('with a client certificate fail if no URL uses TLS', async () => {
    const { endpoints } = endpointsOf({ url, credentials: () => ({ cert: 'PEM', key: 'PEM' }) })
    await expect(endpoints.next(0, undefined)).rejects.toThrow(
      'credentials: "cert" has no effect, because "url" does not use TLS',
    )
  })

  it('are undefined if the application sets none', async () => {
    expect((await endpointsOf({ url }).endpoints.next(0, undefined)).credentials).toEqual({})
  })

  it.each([
    ['at once', () => ({ username: 'u', password: 'p' })],
    ['later', async () => ({ username: 'u', password: 'p' })],
  ])('may be returned %s', async (_when, credentials) => {
    const { endpoints } = endpointsOf({ url, credentials })
    expect((await endpoints.next(0, undefined)).credentials).toEqual({ username: 'u', password: 'p' })
  })

  it('are requested before every attempt, whatever its address', async () => {
    let asked = 0
    const credentials = () => ({ username: `u${++asked}` })
    const { endpoints } = endpointsOf({ url: ['mqtt://a', 'mqtt://b'], credentials })
    const given = []
    given.push(await endpoints.next(0, undefined))
    given.push(await endpoints.next(1, undefined))
    endpoints.keep()
    given.push(await endpoints.next(1, 'other.example'))
    expect(given.map(endpoint => endpoint.credentials.username)).toEqual(['u1', 'u2', 'u3'])
  })

  it('are also requested if the application opens the stream', async () => {
    const createStream = () => {
      throw new Error('not to be opened here')
    }
    const { endpoints } = endpointsOf({ createStream, credentials: () => ({ password: 'p' }) })
    expect((await endpoints.next(0, undefined)).credentials).toEqual({ password: 'p' })
  })

  const refusal = new Error('the vault is sealed')

  it.each([
    ['rejects', () => Promise.reject(refusal)],
    [
      'throws',
      () => {
        throw refusal
      },
    ],
  ])('that the application %s reject with the same cause, before any look-up', async (_how, credentials) => {
    const { endpoints, resolver } = endpointsOf({ url: 'mqtt+srv://example.com', credentials })
    await expect(endpoints.next(0, undefined)).rejects.toBe(refusal)
    expect(resolver).not.toHaveBeenCalled()
  })
})

import { execFile } from 'node:child_process'
import dns from 'node:dns'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { pipeline } from 'node:stream'
import { createServer as createTlsServer } from 'node:tls'
import { inspect, promisify } from 'node:util'
import { NestFactory } from '@nestjs/core'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { MqttClient, type MqttConnectOptions } from '../../src/client/index.js'
import { MqttModule, MqttService } from '../../src/index.js'
import { Authorities } from '../support/authorities.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { Mosquitto } from '../support/mosquitto.js'
import { CollectingLogger } from '../support/nest-app.js'
import {
  httpProxy,
  httpsProxy,
  PROXY_PASSWORD,
  type RunningProxy,
  silentServer,
  socks4Proxy,
  socksProxy,
} from '../support/proxies.js'
import { RecordingLog } from '../support/recording-log.js'

const CLIENT = new URL('../../dist/esm/client/index.js', import.meta.url).href
const SECRETS = ['opensesame', 'wrongsesame', 'PRIVATE KEY', PROXY_PASSWORD, 'hunter2', 'signature']

const Address = v.object({ port: v.number() })
const files = new Authorities()
const ports = { tls: 0, ws: 0, wss: 0, mutual: 0, expired: 0, soon: 0, v6: 0, wsV6: 0 }
let broker: Mosquitto
let socket: string

beforeAll(async () => {
  files.authority('ca')
  files.authority('other')
  files.issue('server', 'ca', { names: 'DNS:localhost,DNS:broker.test' })
  files.issue('expired', 'ca', { names: 'DNS:localhost', days: -1 })
  files.issue('soon', 'ca', { names: 'DNS:localhost', days: 10 })
  files.issue('client', 'ca', { days: 20 })
  files.issue('expired-client', 'ca', { days: -1 })
  files.issue('stranger', 'other')
  files.encrypt('client', 'opensesame')
  for (const name of Object.keys(ports) as (keyof typeof ports)[]) ports[name] = await freePort()
  socket = files.path('mosquitto.sock')
  const tls = (name: string) => [`certfile ${files.path(name)}.crt`, `keyfile ${files.path(name)}.key`]
  const mutual = [`cafile ${files.path('ca.crt')}`, 'require_certificate true']
  broker = await Mosquitto.start({
    config: [
      ...[`listener ${ports.tls} 127.0.0.1`, ...tls('server')],
      ...[`listener ${ports.ws} 127.0.0.1`, 'protocol websockets'],
      ...[`listener ${ports.wss} 127.0.0.1`, 'protocol websockets', ...tls('server')],
      ...[`listener ${ports.mutual} 127.0.0.1`, ...tls('server'), ...mutual],
      ...[`listener ${ports.expired} 127.0.0.1`, ...tls('expired')],
      ...[`listener ${ports.soon} 127.0.0.1`, ...tls('soon'), ...mutual],
      `listener ${ports.v6} ::1`,
      ...[`listener ${ports.wsV6} ::1`, 'protocol websockets'],
      `listener 0 ${socket}`,
    ],
  })
  // Its last listener.
  await eventually(() => existsSync(socket))
}, 60_000)

afterAll(async () => {
  await broker?.stop()
  files.remove()
})

class EmptyModule {}

const ca = () => ({ caPath: files.path('ca.crt') })

/** Publishes to itself over a connection with these options, and returns what the client logged. */
async function roundTrip(options: MqttConnectOptions): Promise<RecordingLog> {
  const logger = new RecordingLog()
  const client = await MqttClient.connect({ logger, connectTimeoutMs: 5_000, ...options })
  const got: unknown[] = []
  await client.subscribe('round/trip', ({ payload }) => void got.push(payload)).whenGranted()
  expect(await client.publish('round/trip', { n: 1 }, { qos: 1 })).toMatchObject({ status: 'acknowledged' })
  await eventually(() => got.length === 1)
  expect(got).toEqual([{ n: 1 }])
  expectNoSecret([client, client.state, client.health, logger.lines])
  await client.close()
  return logger
}

/** Returns the message of the error of a start that fails. */
async function failure(options: MqttConnectOptions): Promise<string> {
  const logger = new RecordingLog()
  const error: unknown = await MqttClient.connect({ logger, connectTimeoutMs: 5_000, ...options }).then(
    () => 'connected',
    (reason: unknown) => reason,
  )
  expectNoSecret([error, error instanceof Error ? error.message : error, logger.lines])
  expect(error).toMatchObject({ code: 'CONNECT_FAILED' })
  return error instanceof Error ? error.message : String(error)
}

function expectNoSecret(value: unknown): void {
  const text = inspect(value, { depth: 6 })
  for (const secret of SECRETS) expect(text.includes(secret) ? secret : '').toBe('')
}

describe('a connection over', () => {
  it('a Unix socket', async () => {
    const { visible } = await roundTrip({ url: `mqtt+unix://${socket}` })
    expect(visible[0]).toContain(`connected to mqtt+unix://${socket} `)
  })

  it.each(['mqtt', 'ws'])('%s to the literal address of IPv6', async scheme => {
    await roundTrip({ url: `${scheme}://[::1]:${scheme === 'mqtt' ? ports.v6 : ports.wsV6}` })
  })

  it.each(['mqtts', 'wss'])('%s sends the server name of the options', async scheme => {
    const port = scheme === 'mqtts' ? ports.tls : ports.wss
    // The certificate is for broker.test, not for 127.0.0.1.
    const options = { url: `${scheme}://127.0.0.1:${port}`, ...ca() }
    await roundTrip({ ...options, servername: 'broker.test' })
    expect(await failure(options)).toMatch(/127\.0\.0\.1 is not in the cert's list.*set "servername"/)
  })

  it.each([
    ['mqtts', 'x-amzn-mqtt-ca'],
    ['wss', 'http/1.1'],
  ])('%s negotiates a protocol of the options by ALPN', async (scheme, protocol) => {
    const negotiated: unknown[] = []
    // mosquitto negotiates no protocol, so a TLS server in front of it does.
    const [cert, key] = [readFileSync(files.path('server.crt')), readFileSync(files.path('server.key'))]
    const front = createTlsServer({ cert, key, ALPNProtocols: ['h2', protocol] }, client => {
      negotiated.push(client.alpnProtocol)
      const inner = connect(scheme === 'mqtts' ? broker.port : ports.ws, '127.0.0.1')
      pipeline(client, inner, client, () => {})
    }).listen(0, '127.0.0.1')
    await once(front, 'listening')
    const { port } = v.parse(Address, front.address())
    await roundTrip({ url: `${scheme}://localhost:${port}`, ...ca(), ALPNProtocols: [protocol] })
    expect(negotiated).toEqual([protocol])
    front.close()
  })

  it('a WebSocket with a URL and headers made for each attempt', async () => {
    let signature = 0
    const url = async () => `ws://localhost:${ports.ws}/mqtt?signature=${++signature}`
    const credentials = () => ({ headers: { authorization: 'Bearer hunter2' } })
    const logger = await roundTrip({ url, credentials })
    expect(signature).toBe(1)
    expect(logger.visible[0]).toContain(`connected to ws://localhost:${ports.ws}/mqtt `)
  })

  it('a WebSocket with the headers of wsOptions and of credentials', async () => {
    const headers: unknown[] = []
    // mosquitto ignores headers, so an HTTP server records them.
    const front = createServer().listen(0, '127.0.0.1')
    front.on('upgrade', (request, socket) => {
      const { authorization, 'x-device': device, 'x-region': region } = request.headers
      headers.push({ authorization, device, region })
      socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n')
    })
    await once(front, 'listening')
    const { port } = v.parse(Address, front.address())
    const text = await failure({
      url: `ws://localhost:${port}`,
      wsOptions: { headers: { 'x-device': '7', 'x-region': 'north' } },
      credentials: () => ({ headers: { authorization: 'Bearer hunter2', 'X-Region': 'south' } }),
    })
    expect(headers).toEqual([{ authorization: 'Bearer hunter2', device: '7', region: 'south' }])
    expect(text).toContain('HTTP status 401; check the HTTP headers')
    front.close()
  })

  it.each(['mqtt', 'mqtts', 'ws', 'wss'])('%s from a local address', async scheme => {
    const port = { mqtt: broker.port, mqtts: ports.tls, ws: ports.ws, wss: ports.wss }[scheme]
    const isTls = scheme === 'mqtts' || scheme === 'wss'
    const url = `${scheme}://localhost:${port}`
    await roundTrip({ url, localAddress: '127.0.0.1', ...(isTls ? ca() : {}) })
    // An address that this machine does not have.
    const text = await failure({ url, localAddress: '192.0.2.1', ...(isTls ? ca() : {}) })
    expect(text).toMatch(/EADDRNOTAVAIL/)
  })
})

describe('a host with several addresses', () => {
  /** The host `many.test` has the addresses, in this order. */
  function answerWith(...addresses: dns.LookupAddress[]): void {
    const real = dns.lookup
    // Seam: the function has many overloads, and Node's sockets use this one.
    const fake = ((host: string, options: dns.LookupAllOptions, done: (...results: unknown[]) => void) => {
      if (host !== 'many.test') return Reflect.apply(real, dns, [host, options, done])
      return options.all ? done(null, addresses) : done(null, addresses[0]?.address, addresses[0]?.family)
    }) as typeof dns.lookup
    vi.spyOn(dns, 'lookup').mockImplementation(fake)
  }

  it.each(['mqtt', 'ws'])('is tried over %s at the next address when one refuses', async scheme => {
    answerWith({ address: '::1', family: 6 }, { address: '127.0.0.1', family: 4 })
    const port = scheme === 'mqtt' ? broker.port : ports.ws
    await roundTrip({ url: `${scheme}://many.test:${port}` })
    vi.restoreAllMocks()
  })

  it('names what failed at each of them', async () => {
    answerWith({ address: '::1', family: 6 }, { address: '127.0.0.1', family: 4 })
    const port = await freePort()
    expect(await failure({ url: `mqtt://many.test:${port}` })).toMatch(
      /ECONNREFUSED ::1:\d+.*ECONNREFUSED 127\.0\.0\.1:\d+/,
    )
    vi.restoreAllMocks()
  })
})

const proxies = [
  ['http', 'localhost', httpProxy, /refused to connect to localhost:\d+: 403/],
  ['socks5', '127.0.0.1', socksProxy, /did not connect to .*NotAllowed/],
  ['socks5h', 'localhost', socksProxy, /did not connect to .*NotAllowed/],
  ['socks4', '127.0.0.1', socks4Proxy, /did not connect to .*rejected connection/],
  ['socks4a', 'localhost', socks4Proxy, /did not connect to .*rejected connection/],
] as const

describe.each(proxies)('a proxy of the kind %s', (kind, seenAs, start, refusal) => {
  const hasPassword = !kind.startsWith('socks4')
  const withProxy = async <T>(
    options: { needsUser?: boolean; refuses?: boolean },
    work: (proxy: RunningProxy) => Promise<T>,
  ): Promise<T> => {
    const proxy = await start(options)
    try {
      return await work(proxy)
    } finally {
      await proxy.stop()
    }
  }

  it.each(['mqtt', 'mqtts', 'ws', 'wss'])('carries %s', async scheme => {
    const port = { mqtt: broker.port, mqtts: ports.tls, ws: ports.ws, wss: ports.wss }[scheme]
    const isTls = scheme === 'mqtts' || scheme === 'wss'
    await withProxy({}, async ({ host, requests }) => {
      const url = `${scheme}://localhost:${port}`
      await roundTrip({ url, proxy: `${kind}://${host}`, ...(isTls ? ca() : {}) })
      expect(requests.map(({ target }) => target)).toEqual([`${seenAs}:${port}`])
    })
  })

  it('is reached from the local address', async () => {
    await withProxy({}, async ({ host, requests }) => {
      const url = `mqtt://localhost:${broker.port}`
      await roundTrip({ url, proxy: `${kind}://${host}`, localAddress: '127.0.0.9' })
      expect(requests.map(({ from }) => from)).toEqual(['127.0.0.9'])
    })
  })

  it('receives the user and the password of its URL', async () => {
    await withProxy({ needsUser: true }, async ({ host }) => {
      if (!hasPassword) {
        await roundTrip({ url: `mqtt://localhost:${broker.port}`, proxy: `${kind}://proxy@${host}` })
        return
      }
      const url = `mqtt://localhost:${broker.port}`
      await roundTrip({ url, proxy: `${kind}://proxy:${PROXY_PASSWORD}@${host}` })
      expect(await failure({ url, proxy: `${kind}://${host}` })).toMatch(
        new RegExp(`the proxy ${kind}://${host} requires credentials .*put user and password into "proxy"`),
      )
      expect(await failure({ url, proxy: `${kind}://proxy:hunter2@${host}` })).toMatch(
        new RegExp(`the proxy ${kind}://${host} refused the credentials`),
      )
    })
  })

  it('that refuses the broker is named with its reason', async () => {
    await withProxy({ refuses: true }, async ({ host }) => {
      const proxy = `${kind}://${hasPassword ? 'proxy:hunter2' : 'hunter2'}@${host}`
      const text = await failure({ url: `mqtt://localhost:${broker.port}`, proxy })
      expect(text).toContain(`the proxy ${kind}://${host}`)
      expect(text).toMatch(refusal)
    })
  })

  it('that cannot be reached is named', async () => {
    const port = await freePort()
    const proxy = `${kind}://${hasPassword ? 'proxy:hunter2' : 'hunter2'}@127.0.0.1:${port}`
    expect(await failure({ url: `mqtt://localhost:${broker.port}`, proxy })).toMatch(
      new RegExp(`the proxy ${kind}://127.0.0.1:${port} cannot be reached: connect ECONNREFUSED`),
    )
  })

  it('that does not respond is given up after connectTimeoutMs, and its socket is closed', async () => {
    const silent = await silentServer()
    const proxy = `${kind}://${silent.host}`
    const text = await failure({ url: `mqtt://localhost:${broker.port}`, proxy, connectTimeoutMs: 300 })
    expect(text).toContain('credentials, address and proxy were not ready within 300 ms')
    await eventually(() => silent.open() === 0)
    silent.stop()
  })

  it('that does not respond is left at once when the client closes', async () => {
    const silent = await silentServer()
    const client = await MqttClient.connect({
      url: `mqtt://localhost:${broker.port}`,
      proxy: `${kind}://${silent.host}`,
      connect: 'background',
    })
    await eventually(() => silent.open() === 1)
    await client.close()
    await eventually(() => silent.open() === 0)
    silent.stop()
  })
})

describe('a proxy of the kind https', () => {
  const certificate = (name: string) => ({
    cert: readFileSync(files.path(`${name}.crt`)),
    key: readFileSync(files.path(`${name}.key`)),
  })

  it('must have a certificate of an authority that Node knows', async () => {
    const proxy = await httpsProxy(certificate('server'))
    const url = `mqtt://localhost:${broker.port}`
    expect(await failure({ url, proxy: `https://proxy:hunter2@${proxy.host}` })).toMatch(
      new RegExp(`the proxy https://${proxy.host} cannot be reached: unable to .*NODE_EXTRA_CA_CERTS`),
    )
    expect(proxy.requests).toEqual([])
    await proxy.stop()
  })

  it('carries mqtt and mqtts if its authority is in NODE_EXTRA_CA_CERTS', async () => {
    const proxy = await httpsProxy(certificate('server'), { needsUser: true })
    const script = `
      const { MqttClient } = await import(${JSON.stringify(CLIENT)})
      for (const url of process.argv.slice(1)) {
        const client = await MqttClient.connect({ url, proxy: process.env.PROXY, ...(url.startsWith('mqtts') ? { caPath: process.env.CA } : {}) })
        console.log((await client.publish('a', 'x', { qos: 1 })).status)
        await client.close()
      }`
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      [
        ...['--input-type=module', '-e', script],
        ...[`mqtt://localhost:${broker.port}`, `mqtts://localhost:${ports.tls}`],
      ],
      {
        env: {
          ...process.env,
          NODE_EXTRA_CA_CERTS: files.path('ca.crt'),
          CA: files.path('ca.crt'),
          PROXY: `https://proxy:${PROXY_PASSWORD}@${proxy.host}`,
        },
      },
    )
    expect({ stdout, stderr }).toEqual({ stdout: 'acknowledged\nacknowledged\n', stderr: '' })
    expect(proxy.requests.length).toBeGreaterThanOrEqual(2)
    await proxy.stop()
  })
})

it('a Nest application connects through a proxy with TLS, with secrets nowhere in its log', async () => {
  const proxy = await httpProxy({ needsUser: true })
  const logger = new CollectingLogger()
  const module = MqttModule.forRoot({
    url: `mqtts://localhost:${ports.mutual}`,
    ...ca(),
    certPath: files.path('client.crt'),
    keyPath: files.path('client.enc.key'),
    passphrase: 'opensesame',
    proxy: `http://proxy:${PROXY_PASSWORD}@${proxy.host}`,
  })
  const app = await NestFactory.createApplicationContext(
    { module: EmptyModule, imports: [module] },
    { logger },
  )
  const mqtt = app.get(MqttService)
  expect(await mqtt.publish('a', 'x', { qos: 1 })).toMatchObject({ status: 'acknowledged' })
  expect(proxy.requests.length).toBeGreaterThan(0)
  expectNoSecret([mqtt, mqtt.state, logger])
  await app.close()
  await proxy.stop()
})

describe('TLS fails with a cause and what to do', () => {
  const cases: [string, () => MqttConnectOptions, RegExp][] = [
    [
      'another authority',
      () => ({ url: `mqtts://localhost:${ports.tls}`, caPath: files.path('other.crt') }),
      /unable to (?:verify|get).*set "caPath"/,
    ],
    [
      'no authority',
      () => ({ url: `wss://localhost:${ports.wss}` }),
      /unable to (?:verify|get).*set "caPath"/,
    ],
    [
      'an expired certificate of the broker',
      () => ({ url: `mqtts://localhost:${ports.expired}`, ...ca() }),
      /certificate has expired.*the broker needs a new certificate/,
    ],
    [
      'a wrong host name',
      () => ({ url: `mqtts://127.0.0.1:${ports.tls}`, ...ca() }),
      /does not match certificate's altnames.*use a host name from the certificate/,
    ],
    [
      'no certificate of this client',
      () => ({ url: `mqtts://localhost:${ports.mutual}`, ...ca() }),
      /: tlsv13 alert certificate required; .*check "certPath" and "keyPath"/,
    ],
    [
      'an expired certificate of this client',
      () => ({
        url: `mqtts://localhost:${ports.mutual}`,
        ...ca(),
        certPath: files.path('expired-client.crt'),
        keyPath: files.path('expired-client.key'),
      }),
      /: sslv3 alert certificate expired; .*renew "certPath"/,
    ],
    [
      'a certificate of this client from another authority',
      () => ({
        url: `mqtts://localhost:${ports.mutual}`,
        ...ca(),
        certPath: files.path('stranger.crt'),
        keyPath: files.path('stranger.key'),
      }),
      /: tlsv1 alert unknown ca; .*check "certPath" and "keyPath"/,
    ],
    [
      'a wrong passphrase',
      () => ({
        url: `mqtts://localhost:${ports.mutual}`,
        ...ca(),
        certPath: files.path('client.crt'),
        keyPath: files.path('client.enc.key'),
        passphrase: 'wrongsesame',
      }),
      /"keyPath" \(the file .*client\.enc\.key\) cannot be decrypted: "passphrase" is wrong/,
    ],
    [
      'a missing file',
      () => ({ url: `mqtts://localhost:${ports.tls}`, caPath: files.path('none.crt') }),
      /"caPath": the file .*none\.crt cannot be read: ENOENT/,
    ],
  ]

  it.each(cases)('for %s', async (_what, options, expected) => {
    expect(await failure(options())).toMatch(expected)
  })

  it('for a port without TLS', async () => {
    const plain = await httpProxy()
    expect(await failure({ url: `mqtts://${plain.host.replace('127.0.0.1', 'localhost')}` })).toMatch(
      /: wrong version number; this port does not use TLS/,
    )
    await plain.stop()
  })
})

describe('insecureTls', () => {
  it.each(['mqtts', 'wss'])('accepts any certificate over %s, and warns at every start', async scheme => {
    const url = `${scheme}://127.0.0.1:${scheme === 'mqtts' ? ports.expired : ports.wss}`
    for (let start = 0; start < 2; start += 1) {
      const { lines } = await roundTrip({ url, insecureTls: true, caPath: files.path('other.crt') })
      expect(lines.filter(({ text }) => text.startsWith('insecureTls is true'))).toHaveLength(1)
      expect(lines.find(({ text }) => text.startsWith('insecureTls'))?.level).toBe('warn')
    }
  })
})

describe('a certificate that expires soon', () => {
  const mutual = () => ({
    url: `mqtts://localhost:${ports.soon}`,
    ...ca(),
    certPath: files.path('client.crt'),
    keyPath: files.path('client.key'),
  })
  const warnings = ({ lines }: RecordingLog) =>
    lines.filter(({ level, text }) => level === 'warn' && text.includes('expires on')).map(({ text }) => text)

  it('is a warning with its date, for the broker and for this client', async () => {
    expect(warnings(await roundTrip(mutual()))).toEqual([
      expect.stringMatching(
        /^the certificate of the broker \(CN=soon\) expires on \d{4}-\d\d-\d\d, in (?:9|10) days$/,
      ),
      expect.stringMatching(
        /^the certificate of this client \(CN=client\) expires on \d{4}-\d\d-\d\d, in (?:19|20) days$/,
      ),
    ])
  })

  it('is no warning before certificateWarningDays', async () => {
    const { url, caPath, certPath, keyPath } = mutual()
    const inline = { cert: readFileSync(certPath), key: readFileSync(keyPath) }
    expect(warnings(await roundTrip({ url, caPath, ...inline, certificateWarningDays: 15 }))).toEqual([
      expect.stringContaining('the broker (CN=soon)'),
    ])
    expect(warnings(await roundTrip({ ...mutual(), certificateWarningDays: 5 }))).toEqual([])
  })

  it('is reported again every day while the connection lasts', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] })
    const logger = new RecordingLog()
    const client = await MqttClient.connect({ ...mutual(), logger, keepalive: 0 })
    expect(warnings(logger)).toHaveLength(2)
    vi.advanceTimersByTime(86_400_000)
    expect(warnings(logger)).toHaveLength(4)
    expect(warnings(logger)[2]).toMatch(/in [89] days$/)
    await client.close()
    vi.useRealTimers()
  })
})

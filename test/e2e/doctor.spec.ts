import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { pipeline } from 'node:stream'
import { text } from 'node:stream/consumers'
import { createServer as createTlsServer } from 'node:tls'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { receiveMaximum } from '../../src/cli/doctor/check-sessions.js'
import { Examination } from '../../src/cli/doctor/examination.js'
import { Target, type TargetOptions } from '../../src/cli/doctor/target.js'
import { Authorities } from '../support/authorities.js'
import { levelsOf, runDoctor } from '../support/doctor.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { Mosquitto } from '../support/mosquitto.js'
import { httpProxy, PROXY_PASSWORD, silentServer, socksProxy } from '../support/proxies.js'

const COMMAND = fileURLToPath(new URL('../../dist/esm/cli/nestjs-mqtt.js', import.meta.url))
const Address = v.object({ port: v.number() })
const ADA = { MQTT_USERNAME: 'ada', MQTT_PASSWORD: 'opensesame' }

const files = new Authorities()
const ports = { tls: 0, expired: 0, ws: 0, wss: 0 }
const socket = files.path('mosquitto.sock')
let broker: Mosquitto

beforeAll(async () => {
  for (const name of ['ca', 'other']) files.authority(name)
  files.issue('server', 'ca', { names: 'DNS:localhost', days: 60 })
  files.issue('expired', 'ca', { names: 'DNS:localhost', days: -1 })
  writeFileSync(files.path('passwords'), '')
  execFileSync('mosquitto_passwd', ['-b', files.path('passwords'), 'ada', 'opensesame'])
  for (const name of Object.keys(ports) as (keyof typeof ports)[]) ports[name] = await freePort()
  const tls = (name: string) => [`certfile ${files.path(name)}.crt`, `keyfile ${files.path(name)}.key`]
  broker = await Mosquitto.start({
    config: [
      ...['allow_anonymous false', `password_file ${files.path('passwords')}`],
      ...[`listener ${ports.tls} 127.0.0.1`, ...tls('server')],
      ...[`listener ${ports.expired} 127.0.0.1`, ...tls('expired')],
      ...[`listener ${ports.ws} 127.0.0.1`, 'protocol websockets'],
      ...[`listener ${ports.wss} 127.0.0.1`, 'protocol websockets', ...tls('server')],
      `listener 0 ${socket}`,
    ],
  })
  // Its last listener.
  await eventually(() => existsSync(socket))
})

afterAll(async () => {
  await broker?.stop()
  files.remove()
})

const ca = () => ['--ca', files.path('ca.crt')]

/** What the client of mosquitto receives. */
function received(filter: string, ...args: string[]): string {
  const user = ['-u', 'ada', '-P', 'opensesame']
  const all = ['-p', String(broker.port), ...user, '-t', filter, ...args]
  return spawnSync('mosquitto_sub', all, { encoding: 'utf8' }).stdout
}

/** Retained messages of the doctor that are left on the broker. */
const left = () => received('nestjs-mqtt/#', '-v', '-W', '1')

/** Opens a connection as the checks do, and returns its CONNACK. */
async function connack(options: TargetOptions) {
  const examination = new Examination(await Target.of(options), 'doctor', 10_000)
  const { raw, connack: packet } = await examination.open()
  raw.close()
  return packet
}

describe('nestjs-mqtt doctor on mosquitto', () => {
  it('reports the behaviour of version 2.0.11 over TLS and a proxy, and leaves nothing on the broker', {
    timeout: 30_000,
  }, async () => {
    const proxy = await httpProxy({ needsUser: true })
    const env = { ...ADA, MQTT_PROXY: `http://proxy:${PROXY_PASSWORD}@${proxy.host}` }
    const { code, out } = await runDoctor([`mqtts://localhost:${ports.tls}`, ...ca(), '--json'], env)
    const levels = levelsOf(out)
    expect(Object.values(levels)).not.toContain('unknown')
    expect(levels).toMatchObject({
      'mqtt-5': 'ok',
      'mqtt-3.1.1': 'ok',
      tls: 'ok',
      'qos-1': 'ok',
      'qos-2': 'ok',
      'no-subscriber': 'ok',
      'own-packet-size': 'ok',
      'topic-alias': 'ok',
      'message-expiry': 'ok',
      'user-properties': 'ok',
      'topic-characters': 'ok',
      wildcards: 'ok',
      'shared-subscriptions': 'ok',
      'subscription-identifiers': 'ok',
      'overlapping-filters': 'note',
      'no-local': 'ok',
      retained: 'ok',
      'retain-as-published': 'ok',
      'retain-handling': 'ok',
      session: 'ok',
      redelivery: 'ok',
      'broker-window': 'note',
      'keep-alive': 'ok',
      will: 'ok',
      'sys-topics': 'note',
    })
    expect(JSON.parse(out)).toMatchObject({ exitCode: code, leftBehind: [], protocolVersion: 5 })
    expect(out).not.toMatch(new RegExp(`opensesame|${PROXY_PASSWORD}`))
    // Every connection went through the proxy.
    expect(proxy.requests.length).toBeGreaterThan(30)
    expect(new Set(proxy.requests.map(({ target }) => target))).toEqual(new Set([`localhost:${ports.tls}`]))
    expect(left()).toBe('')
    await proxy.stop()
  })

  it('finds that version 2.0.11 overruns the Receive Maximum after the first acknowledgement', async () => {
    const target = await Target.of({ url: broker.url, username: 'ada', password: 'opensesame' })
    const { receiveMaximum: observed } = await receiveMaximum(new Examination(target, 'doctor', 20_000))
    expect(observed).toMatchObject({ limit: 10, before: 10 })
    expect(observed?.after).toBeGreaterThan(50)
  })

  it('connects with MQTT_USERNAME and MQTT_PASSWORD, and explains that they are wrong or missing', async () => {
    const { url } = broker
    const missing = await runDoctor([url])
    expect(missing.code).toBe(2)
    expect(missing.error).toMatch(/refused the connection: .*; no user name was given; set MQTT_USERNAME/)
    const wrong = await runDoctor([url, '--username', 'ada'], { MQTT_PASSWORD: 'guess' })
    expect(wrong.code).toBe(2)
    expect(wrong.error).toMatch(
      /0x87 Not authorized; check MQTT_USERNAME and MQTT_PASSWORD, and what "ada" may do/,
    )
    expect(wrong.error).not.toContain('guess')
    expect(await connack({ url, username: 'ada', password: 'opensesame' })).toMatchObject({ reasonCode: 0 })
  })

  it('removes its retained messages and sessions after Ctrl-C, and exits with 130', async () => {
    const env = { ...process.env, ...ADA }
    const child = spawn(process.execPath, [COMMAND, 'doctor', broker.url, '--json'], { stdio: 'pipe', env })
    const out = text(child.stdout)
    // A retained message is there, and waits for its expiry.
    expect(received('nestjs-mqtt/doctor/+/expiry/short', '-C', '1', '-W', '20')).toBe('kept\n')
    const atMs = performance.now()
    child.kill('SIGINT')
    const [code] = await once(child, 'exit')
    expect(code).toBe(130)
    // Without waiting for a response of the broker, or for the expiry.
    expect(performance.now() - atMs).toBeLessThan(2_000)
    expect(JSON.parse(await out)).toMatchObject({ exitCode: 130, isComplete: false, leftBehind: [] })
    expect(left()).toBe('')
  })
})

describe('the command nestjs-mqtt doctor', () => {
  it('reads the URL and the password from the environment, and exits with 2 without a connection', async () => {
    const port = await freePort()
    const { status, stdout, stderr } = spawnSync(process.execPath, [COMMAND, 'doctor'], {
      encoding: 'utf8',
      env: { ...process.env, MQTT_URL: `mqtt://ada@127.0.0.1:${port}`, MQTT_PASSWORD: 'opensesame' },
    })
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toMatch(
      /^nestjs-mqtt: mqtt:\/\/127\.0\.0\.1:\d+: connect ECONNREFUSED .*: nothing listens on that port/,
    )
    expect(stderr).not.toMatch(/ada|opensesame/)
  })

  it('exits with 143 after SIGTERM while the peer does not respond', async () => {
    const silent = await silentServer()
    const child = spawn(process.execPath, [COMMAND, 'doctor', `mqtt://${silent.host}`], { stdio: 'pipe' })
    const error = text(child.stderr)
    await eventually(() => silent.open() === 1)
    child.kill('SIGTERM')
    expect(await once(child, 'exit')).toEqual([143, null])
    expect(await error).toBe('nestjs-mqtt: a signal ended the run before there was a connection\n')
    silent.stop()
  })
})

describe('nestjs-mqtt doctor reaches the broker', () => {
  const urls = () => ({
    mqtt: `mqtt://localhost:${broker.port}`,
    mqtts: `mqtts://localhost:${ports.tls}`,
    ws: `ws://localhost:${ports.ws}/mqtt`,
    wss: `wss://localhost:${ports.wss}/mqtt`,
    'mqtt+unix': `mqtt+unix://${socket}`,
  })
  const schemes = ['mqtt', 'mqtts', 'ws', 'wss', 'mqtt+unix'] as const

  it.each(schemes)('over %s', async scheme => {
    const isTls = scheme === 'mqtts' || scheme === 'wss'
    const caPath = isTls ? { caPath: files.path('ca.crt') } : {}
    const given = { url: urls()[scheme], username: 'ada', ...caPath }
    expect(await connack({ ...given, password: 'opensesame' })).toMatchObject({ reasonCode: 0 })
    // The broker itself refuses the password.
    const { code, error } = await runDoctor([given.url, ...(isTls ? ca() : [])], {
      MQTT_USERNAME: 'ada',
      MQTT_PASSWORD: 'guess',
    })
    expect(error).toMatch(/refused the connection: 0x87 Not authorized/)
    expect(error).not.toContain('guess')
    expect(code).toBe(2)
  })

  it.each([
    ['http', 'mqtt', httpProxy],
    ['http', 'wss', httpProxy],
    ['socks5h', 'mqtts', socksProxy],
    ['socks5', 'ws', socksProxy],
  ] as const)('through a proxy of the kind %s over %s', async (kind, scheme, start) => {
    const proxy = await start({ needsUser: true })
    const args = [urls()[scheme], ...(scheme.endsWith('s') && scheme !== 'ws' ? ca() : [])]
    const env = { MQTT_USERNAME: 'ada', MQTT_PASSWORD: 'guess' }
    const right = `${kind}://proxy:${PROXY_PASSWORD}@${proxy.host}`
    const reached = await runDoctor([...args, '--proxy', right], env)
    expect(reached.error).toMatch(/refused the connection: 0x87 Not authorized/)
    expect(proxy.requests.length).toBeGreaterThan(0)
    const refused = await runDoctor([...args, '--json'], {
      ...env,
      MQTT_PROXY: `${kind}://proxy:hunter2@${proxy.host}`,
    })
    expect(JSON.parse(refused.out)).toMatchObject({
      exitCode: 2,
      error: {
        kind: 'proxy',
        message: expect.stringContaining(`the proxy ${kind}://${proxy.host} refused the credentials`),
      },
    })
    expect(reached.error + refused.out).not.toMatch(new RegExp(`hunter2|${PROXY_PASSWORD}|guess`))
    await proxy.stop()
  })

  it('gives up on a proxy that does not respond, and closes its socket', async () => {
    const silent = await silentServer()
    const target = await Target.of({ url: urls().mqtt, proxy: `http://proxy:hunter2@${silent.host}` })
    await expect(target.open(200)).rejects.toThrow(
      new RegExp(`the proxy http://${silent.host}: no connection within 200 ms; check --proxy$`),
    )
    await eventually(() => silent.open() === 0)
    silent.stop()
  })

  it('with headers from the arguments and the environment, and an ALPN protocol', async () => {
    const seen: { protocol: string | false | null; head: string }[] = []
    const [cert, key] = [readFileSync(files.path('server.crt')), readFileSync(files.path('server.key'))]
    // mosquitto negotiates no protocol and ignores headers, so a TLS server in front of it records both.
    const front = createTlsServer({ cert, key, ALPNProtocols: ['http/1.1'] }, client => {
      client.once('data', head => seen.push({ protocol: client.alpnProtocol, head: String(head) }))
      pipeline(client, connect(ports.ws, '127.0.0.1'), client, () => {})
    }).listen(0, '127.0.0.1')
    await once(front, 'listening')
    const { port } = v.parse(Address, front.address())
    const headers = ['--header', 'x-device: 7', '--alpn', 'http/1.1']
    const { error } = await runDoctor([`wss://localhost:${port}/mqtt?sig=swordfish`, ...ca(), ...headers], {
      MQTT_HEADERS: 'authorization: Bearer hunter2\nx-two: 2\n',
    })
    expect(error).toMatch(/refused the connection: 0x87 Not authorized/)
    expect(error).not.toMatch(/hunter2|swordfish/)
    const { protocol, head } = seen.find(({ head: text }) => text.startsWith('GET ')) ?? {}
    expect(protocol).toBe('http/1.1')
    expect(head).toMatch(/^GET \/mqtt\?sig=swordfish HTTP/)
    for (const line of [/x-device: 7\r\n/, /authorization: Bearer hunter2\r\n/, /x-two: 2\r\n/])
      expect(head).toMatch(line)
    front.close()
  })
})

describe('nestjs-mqtt doctor on TLS', () => {
  const at = (host: string, name: 'tls' | 'expired') => `mqtts://${host}:${ports[name]}`

  it('reports issuer, chain and days of a certificate that is valid', async () => {
    const target = await Target.of({ url: at('localhost', 'tls'), caPath: files.path('ca.crt') })
    const tls = await target.inspectTls(5_000)
    expect(tls).toMatchObject({
      protocol: 'TLSv1.3',
      subject: 'server',
      issuer: 'ca',
      names: 'DNS:localhost',
      chain: ['server', 'ca'],
    })
    expect(Math.round((tls.validToMs - Date.now()) / 86_400_000)).toBe(60)
    // The same, as OpenSSL sees it.
    const args = ['s_client', '-connect', `localhost:${ports.tls}`, '-CAfile', files.path('ca.crt'), '-brief']
    const { stderr } = spawnSync('openssl', args, { encoding: 'utf8', input: '' })
    expect(stderr).toMatch(/Protocol version: TLSv1\.3/)
    expect(stderr).toContain(`Ciphersuite: ${tls.cipher}`)
    expect(stderr).toMatch(/Peer certificate: CN = server/)
    expect(stderr).toMatch(/Verification: OK/)
  })

  it.each([
    [
      'an authority that is not trusted',
      () => [at('localhost', 'tls')],
      /the certificate of "server", issued by "ca", is not trusted \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\); set "caPath" to/,
    ],
    [
      'the file of another authority',
      () => [at('localhost', 'tls'), '--ca', files.path('other.crt')],
      /is not trusted \(\w+\); the file at "caPath" \(--ca\) does not contain the certificate of this authority/,
    ],
    [
      'a host name that is not in the certificate',
      () => [at('127.0.0.1', 'tls'), ...ca()],
      /is valid for DNS:localhost, not for the host of the URL; use a host name from the certificate in the URL, or set "servername" \(--servername\)/,
    ],
    [
      'a certificate that has expired',
      () => [at('localhost', 'expired'), ...ca()],
      /expired at \d{4}-.*; renew the certificate of the broker/,
    ],
    [
      'a WebSocket with an authority that is not trusted',
      () => [`wss://localhost:${ports.wss}/mqtt`, '--ca', files.path('other.crt')],
      /the certificate of "server", issued by "ca", is not trusted/,
    ],
    [
      'a port without TLS',
      () => [`mqtts://127.0.0.1:${broker.port}`, ...ca()],
      /the port does not use TLS|closed the connection/,
    ],
    [
      'a file that is missing',
      () => [at('localhost', 'tls'), '--ca', files.path('missing.crt')],
      /"caPath": the file .*missing\.crt cannot be read/,
    ],
    [
      'a socket file that is missing',
      () => [`mqtt+unix://${files.path('missing.sock')}`],
      /ENOENT.*missing\.sock: the socket file does not exist/,
    ],
  ])('names %s, and sends no password', async (_name, args, message) => {
    const { code, error } = await runDoctor(args(), ADA)
    expect(error).toMatch(message)
    expect(code).toBe(2)
    expect(error).not.toContain('opensesame')
  })

  it('accepts a certificate of another host with --servername', async () => {
    const url = at('127.0.0.1', 'tls')
    const args = [url, ...ca(), '--servername', 'localhost']
    expect((await runDoctor(args)).error).toMatch(/no user name was given/)
  })
})

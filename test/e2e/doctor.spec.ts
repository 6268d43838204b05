import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { receiveMaximum } from '../../src/cli/doctor/check-sessions.js'
import { Examination } from '../../src/cli/doctor/examination.js'
import { Target } from '../../src/cli/doctor/target.js'
import { main } from '../../src/cli/main.js'
import { freePort } from '../support/free-port.js'
import { Mosquitto } from '../support/mosquitto.js'

const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-doctor-'))
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' })
const path = (name: string) => join(folder, name)

async function run(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const written = { out: '', error: '' }
  const code = await main(['doctor', ...args], {
    cwd: '/',
    env,
    load: () => Promise.reject(new Error('nothing is loaded')),
    out: async text => {
      written.out += text
    },
    error: async text => {
      written.error += text
    },
  })
  return { code, ...written }
}

const levelsOf = (out: string): Record<string, string> =>
  Object.fromEntries(
    JSON.parse(out).findings.map(({ id, level }: { id: string; level: string }) => [id, level]),
  )

describe('the command nestjs-mqtt doctor', () => {
  it('reads the URL and the password from the environment, and exits with 2 without a connection', async () => {
    const port = await freePort()
    const command = fileURLToPath(new URL('../../dist/esm/cli/nestjs-mqtt.js', import.meta.url))
    const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'doctor'], {
      encoding: 'utf8',
      env: { ...process.env, MQTT_URL: `mqtt://ada@127.0.0.1:${port}`, MQTT_PASSWORD: 'opensesame' },
    })
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toMatch(
      /^nestjs-mqtt: mqtt:\/\/127\.0\.0\.1:\d+: connect ECONNREFUSED .*: nothing listens on that port/,
    )
    expect(stderr).not.toMatch(/ada|opensesame/)
  })
})

describe('nestjs-mqtt doctor on mosquitto', () => {
  let broker: Mosquitto
  let secured: Mosquitto
  beforeAll(async () => {
    writeFileSync(path('passwords'), '')
    execFileSync('mosquitto_passwd', ['-b', path('passwords'), 'ada', 'opensesame'])
    broker = await Mosquitto.start()
    secured = await Mosquitto.start({
      config: ['allow_anonymous false', `password_file ${path('passwords')}`],
    })
  })
  afterAll(async () => {
    await broker.stop()
    await secured.stop()
  })

  it('finds what version 2.0.11 does, and leaves nothing on it', async () => {
    const { code, out } = await run([broker.url, '--json'])
    expect(levelsOf(out)).toMatchObject({
      'mqtt-5': 'ok',
      'mqtt-3.1.1': 'ok',
      'small-packets': 'ok',
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
      will: 'ok',
      'sys-topics': 'note',
    })
    expect(JSON.parse(out)).toMatchObject({ exitCode: code, leftBehind: [], protocolVersion: 5 })
    const args = ['-p', String(broker.port), '-t', 'nestjs-mqtt/#', '-v', '-W', '1']
    expect(() => execFileSync('mosquitto_sub', args, { stdio: 'pipe' })).toThrow(/mosquitto_sub/)
  })

  it('finds that version 2.0.11 overruns the Receive Maximum after the first acknowledgement', async () => {
    const examination = new Examination(await Target.of({ url: broker.url }), 'doctor', 20_000)
    const { receiveMaximum: observed } = await receiveMaximum(examination)
    expect(observed).toMatchObject({ limit: 10, before: 10 })
    expect(observed?.after).toBeGreaterThan(50)
  })

  it('connects with MQTT_USERNAME and MQTT_PASSWORD, and explains that they are wrong or missing', async () => {
    const missing = await run([secured.url])
    expect(missing.code).toBe(2)
    expect(missing.error).toMatch(/refused the connection: .*; no user name was given; set MQTT_USERNAME/)
    const wrong = await run([secured.url], { MQTT_USERNAME: 'ada', MQTT_PASSWORD: 'guess' })
    expect(wrong.code).toBe(2)
    expect(wrong.error).toMatch(
      /0x87 Not authorized; check MQTT_USERNAME and MQTT_PASSWORD, and what "ada" may do/,
    )
    expect(wrong.error).not.toContain('guess')
    const right = await Target.of({ url: secured.url, username: 'ada', password: 'opensesame' })
    await expect(new Examination(right, 'doctor', 5_000).open()).resolves.toMatchObject({
      connack: { reasonCode: 0 },
    })
  })
})

describe('nestjs-mqtt doctor on TLS', () => {
  let broker: Mosquitto
  const ports = { good: 0, expired: 0 }
  beforeAll(async () => {
    for (const ca of ['ca', 'other'])
      openssl(
        ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', `${ca}.key`, '-out', `${ca}.crt`],
        ...['-days', '2', '-subj', `/CN=${ca} of the test`],
      )
    writeFileSync(path('ext'), 'subjectAltName=DNS:localhost\n')
    for (const [name, days] of [
      ['good', '60'],
      ['expired', '-1'],
    ] as const) {
      openssl(
        ...['req', '-newkey', 'rsa:2048', '-nodes', '-keyout', `${name}.key`, '-out', `${name}.csr`],
        ...['-subj', '/CN=broker of the test'],
      )
      openssl(
        ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'],
        ...['-out', `${name}.crt`, '-days', days, '-extfile', 'ext'],
      )
      ports[name] = await freePort()
    }
    const listener = (name: 'good' | 'expired') => [
      `listener ${ports[name]} 127.0.0.1`,
      `certfile ${path(`${name}.crt`)}`,
      `keyfile ${path(`${name}.key`)}`,
    ]
    broker = await Mosquitto.start({ config: [...listener('good'), ...listener('expired')] })
  })
  afterAll(async () => {
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const at = (host: string, name: 'good' | 'expired') => `mqtts://${host}:${ports[name]}`

  it('reports issuer, chain and days of a certificate that is valid', async () => {
    const target = await Target.of({ url: at('localhost', 'good'), caPath: path('ca.crt') })
    const tls = await target.inspectTls(5_000)
    expect(tls).toMatchObject({
      protocol: 'TLSv1.3',
      subject: 'broker of the test',
      issuer: 'ca of the test',
      names: 'DNS:localhost',
      chain: ['broker of the test', 'ca of the test'],
    })
    expect(Math.round((tls.validToMs - Date.now()) / 86_400_000)).toBe(60)
    await expect(new Examination(target, 'doctor', 5_000).open()).resolves.toMatchObject({
      connack: { reasonCode: 0 },
    })
  })

  it.each([
    [
      'an authority that is not trusted',
      () => [at('localhost', 'good'), '--ca', path('other.crt')],
      /the certificate of "broker of the test", issued by "ca of the test", is not trusted \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\); set "caPath"/,
    ],
    [
      'a host name that is not in the certificate',
      () => [at('127.0.0.1', 'good'), '--ca', path('ca.crt')],
      /is valid for DNS:localhost, not for the host of the URL; use a host name of the certificate in the URL, or set "servername"/,
    ],
    [
      'a certificate that has expired',
      () => [at('localhost', 'expired'), '--ca', path('ca.crt')],
      /expired at \d{4}-.*; renew the certificate of the broker/,
    ],
    [
      'a port without TLS',
      () => [`mqtts://127.0.0.1:${broker.port}`, '--ca', path('ca.crt')],
      /the port does not use TLS|closed the connection/,
    ],
    [
      'a file that is missing',
      () => [at('localhost', 'good'), '--ca', path('missing.crt')],
      /"caPath": the file .*missing\.crt cannot be read/,
    ],
  ])('names %s, and sends no password', async (_name, args, message) => {
    const { code, error } = await run(args(), { MQTT_USERNAME: 'ada', MQTT_PASSWORD: 'opensesame' })
    expect(error).toMatch(message)
    expect(code).toBe(2)
    expect(error).not.toContain('opensesame')
  })

  it('accepts a certificate of another host with --servername', async () => {
    const servername = 'localhost'
    const target = await Target.of({ url: at('127.0.0.1', 'good'), caPath: path('ca.crt'), servername })
    expect((await target.inspectTls(5_000)).failure).toBeUndefined()
    await expect(new Examination(target, 'doctor', 5_000).open()).resolves.toMatchObject({
      connack: { reasonCode: 0 },
    })
  })
})

import { readFileSync, writeFileSync } from 'node:fs'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newHandler } from '../../src/client/inbound/delivery.js'
import { MqttSession } from '../../src/client/mqtt-session.js'
import { parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { FaultLink } from '../../src/testing/index.js'
import { Authorities } from '../support/authorities.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { quiet } from '../support/held-clock.js'
import { Mosquitto } from '../support/mosquitto.js'
import { RecordingLog } from '../support/recording-log.js'
import { SUBSCRIBE_QOS_1 } from '../support/session-on-peer.js'

const files = new Authorities()
const path = (name: string) => files.path(name)
const file = (name: string) => readFileSync(path(name))

const MUTUAL = [`cafile ${path('ca.crt')}`, 'require_certificate true']
const PASSPHRASE = 'opensesame'
const ports = { tls: 0, ws: 0, wss: 0, mutual: 0, mutualWss: 0 }
let broker: Mosquitto

beforeAll(async () => {
  for (const name of ['ca', 'other']) files.authority(name)
  files.issue('s', 'ca', { names: 'DNS:localhost' })
  for (const name of ['c', 'c2']) files.issue(name, 'ca')
  files.encrypt('c', PASSPHRASE)
  ports.mutual = await freePort()
  ports.mutualWss = await freePort()
  ports.tls = await freePort()
  ports.ws = await freePort()
  ports.wss = await freePort()
  const certs = [`certfile ${path('s.crt')}`, `keyfile ${path('s.key')}`]
  broker = await Mosquitto.start({
    config: [
      `listener ${ports.tls} 127.0.0.1`,
      ...certs,
      `listener ${ports.ws} 127.0.0.1`,
      'protocol websockets',
      `listener ${ports.wss} 127.0.0.1`,
      'protocol websockets',
      ...certs,
      `listener ${ports.mutual} 127.0.0.1`,
      ...certs,
      ...MUTUAL,
      `listener ${ports.mutualWss} 127.0.0.1`,
      'protocol websockets',
      ...certs,
      ...MUTUAL,
    ],
  })
})

afterAll(async () => {
  await broker?.stop()
  files.remove()
})

const out = (topic: string, qos: 0 | 1 | 2, payload = 'x') => ({
  topic,
  payload: Buffer.from(payload),
  qos,
  retain: false,
})

function session(options: MqttModuleOptions) {
  const log = new RecordingLog()
  const got: string[] = []
  const made = new MqttSession(
    resolveOptions({
      protocolVersion: 5,
      keepalive: 2,
      connectTimeoutMs: 4000,
      drainTimeoutMs: 2000,
      reconnect: { delayMs: [10] },
      ...options,
    }),
    log,
  )
  made.addRoute(
    parseTopicFilter('t/#'),
    SUBSCRIBE_QOS_1,
    newHandler({
      name: 't/#',
      run: async packet => {
        got.push(packet.payload.toString())
      },
    }),
  )
  return { made, log, got }
}

const kinds: Record<string, () => { url: string; port: number; options: MqttModuleOptions }> = {
  mqtts: () => ({ url: 'mqtts://localhost', port: ports.tls, options: { ca: file('ca.crt') } }),
  ws: () => ({ url: 'ws://localhost', port: ports.ws, options: {} }),
  wss: () => ({ url: 'wss://localhost', port: ports.wss, options: { ca: file('ca.crt') } }),
}

describe.each(Object.keys(kinds))('%s', kind => {
  const of = () => {
    const make = kinds[kind]
    if (make === undefined) throw new Error('no such kind')
    return make()
  }

  it('delivers at every QoS over 20 cuts, closes, and leaves no socket', {
    timeout: 40_000,
  }, async () => {
    const { url, port, options } = of()
    const link = await FaultLink.start({ port })
    const { made, got, log } = session({
      ...options,
      url: `${url}:${link.port}/mqtt`,
      username: 'u',
      password: 'topsecret',
    })
    await made.listen()
    for (let round = 0; round < 20; round += 1) {
      for (const qos of [0, 1, 2] as const) await made.publish(out('t/a', qos, `${round}-${qos}`))
      await eventually(() => got.length === 3 * (round + 1))
      link.cut()
      await eventually(() => made.connection.state.status !== 'connected')
      await made.connection.whenConnected({ timeoutMs: 5000 })
      await eventually(() => made.stats.subscriptions.granted === 1)
    }
    // mosquitto reads 4 kB in 100 ms from a WebSocket, whoever sends.
    const size = kind === 'mqtts' ? 1_000_000 : 20_000
    expect(await made.publish(out('t/big', 1, 'x'.repeat(size)))).toMatchObject({ status: 'acknowledged' })
    await eventually(() => got.at(-1)?.length === size)
    await made.close()
    await eventually(() => link.open === 0)
    await link.stop()
    expect(made.stats.connection).toMatchObject({ connects: 21, losses: 20 })
    expect(inspect(log.lines)).not.toContain('topsecret')
  })

  it('a half-open connection is closed and established again', async () => {
    const { url, port, options } = of()
    const link = await FaultLink.start({ port })
    const { made } = session({ ...options, url: `${url}:${link.port}/mqtt` })
    await made.listen()
    link.halfOpen()
    await eventually(() => made.connection.state.status !== 'connected')
    await made.connection.whenConnected({ timeoutMs: 5000 })
    await made.close()
    await link.stop()
  })

  it('a stalled handshake ends after connectTimeoutMs, and close() ends it', async () => {
    const { url, port, options } = of()
    const link = await FaultLink.start({ port })
    link.stall()
    const { made } = session({
      ...options,
      url: `${url}:${link.port}/mqtt`,
      connect: 'background',
      connectTimeoutMs: 400,
      reconnect: { delayMs: [0] },
    })
    await made.listen()
    await eventually(() => link.dials > 1)
    await made.close()
    link.heal()
    await eventually(() => link.open === 0)
    await link.stop()
  })

  it('a stalled peer with pending bytes: publishes are dropped as backlog, and close() ends within its deadline', async () => {
    const { url, port, options } = of()
    const link = await FaultLink.start({ port })
    const { made } = session({ ...options, url: `${url}:${link.port}/mqtt` })
    await made.listen()
    link.stall()
    let backlog = 0
    for (let i = 0; i < 400; i += 1) {
      const o = made.tryPublish(out('t/x', 0, 'x'.repeat(50_000)))
      if (o.status === 'dropped') backlog += 1
      if (i % 20 === 0) await quiet(1)
    }
    await made.close()
    expect(backlog).toBeGreaterThan(0)
    expect(made.connection.state.status).toBe('closed')
    await link.stop()
  })
})

describe.each(['mqtts', 'wss'] as const)('%s with a broker that requires a client certificate', kind => {
  const connected = async (options: MqttModuleOptions) => {
    const { made, log } = session({
      url: `${kind}://localhost:${kind === 'mqtts' ? ports.mutual : ports.mutualWss}`,
      caPath: path('ca.crt'),
      ...options,
    })
    const failure: unknown = await made.listen().catch((error: unknown) => error)
    await made.close()
    expect(inspect([log.lines, failure], { depth: 9 })).not.toMatch(/opensesame|wrongsesame|PRIVATE KEY/)
    return failure
  }

  it('sends the certificate of certPath and keyPath', async () => {
    expect(await connected({ certPath: path('c.crt'), keyPath: path('c.key') })).toBeUndefined()
    expect(await connected({})).toMatchObject({ code: 'CONNECT_FAILED' })
  })

  it('decrypts a key with the passphrase, and reports a wrong or missing passphrase', async () => {
    const encrypted = { certPath: path('c.crt'), keyPath: path('c.enc.key') }
    expect(await connected({ ...encrypted, passphrase: PASSPHRASE })).toBeUndefined()
    const inline = { cert: file('c.crt'), key: file('c.enc.key'), passphrase: PASSPHRASE }
    expect(await connected(inline)).toBeUndefined()
    expect(await connected({ ...encrypted, passphrase: 'wrongsesame' })).toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringMatching(
        /"keyPath" \(the file .*c\.enc\.key\) cannot be decrypted: "passphrase" is wrong/,
      ),
    })
    expect(await connected(encrypted)).toMatchObject({
      message: expect.stringContaining('"passphrase" is missing'),
    })
  })

  it('names the option and the file that cannot be read or used', async () => {
    const missing = await connected({ certPath: path('none.crt'), keyPath: path('c.key') })
    expect(missing).toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringMatching(/"certPath": the file .*none\.crt cannot be read: ENOENT/),
    })
    const other = await connected({ certPath: path('c.crt'), keyPath: path('c2.key') })
    expect(other).toMatchObject({ message: expect.stringContaining('the TLS files cannot be used') })
  })

  it('prefers the files of the credentials over those of the options', async () => {
    const credentials = () => ({
      certPath: path('c2.crt'),
      keyPath: path('c2.key'),
      caPath: [path('ca.crt')],
    })
    const own = { certPath: path('none.crt'), keyPath: path('none.key'), caPath: path('other.crt') }
    expect(await connected({ ...own, credentials })).toBeUndefined()
    const twice = await connected({ credentials: () => ({ ...credentials(), key: file('c2.key') }) })
    expect(twice).toMatchObject({ message: expect.stringContaining('"key" and "keyPath" are both set') })
  })

  it('reads the files again for every attempt', async () => {
    writeFileSync(path(`late-${kind}.crt`), 'not yet')
    const { made, log } = session({
      url: `${kind}://localhost:${kind === 'mqtts' ? ports.mutual : ports.mutualWss}`,
      caPath: path('ca.crt'),
      certPath: path(`late-${kind}.crt`),
      keyPath: path('c.key'),
      connect: 'background',
    })
    await made.listen()
    await eventually(() => log.visible.some(text => text.includes('the TLS files cannot be used')))
    writeFileSync(path(`late-${kind}.crt`), file('c.crt'))
    await made.connection.whenConnected({ timeoutMs: 5000 })
    await made.close()
  })
})

describe('TLS that must not succeed', () => {
  it.each(['mqtts', 'wss'] as const)('%s: wrong CA and wrong host name', async kind => {
    const port = kind === 'mqtts' ? ports.tls : ports.wss
    const wrongCa = session({
      url: `${kind}://localhost:${port}`,
      ca: file('other.crt'),
      username: 'u',
      password: 'topsecret',
    })
    const e1: unknown = await wrongCa.made.listen().catch((e: unknown) => e)
    expect(e1).toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringMatching(
        /the certificate of the broker was not issued by a trusted authority: set "caPath" to the certificate of its authority$/,
      ),
    })
    const wrongHost = session({ url: `${kind}://127.0.0.1:${port}`, ca: file('ca.crt') })
    const e2: unknown = await wrongHost.made.listen().catch((e: unknown) => e)
    expect(e2).toMatchObject({
      code: 'CONNECT_FAILED',
      message: expect.stringMatching(/use a host name from the certificate in "url", or set "servername"/),
    })
    expect(inspect(e1, { depth: 9 })).not.toContain('topsecret')
    expect(inspect(e1, { depth: 9 })).not.toContain('PRIVATE KEY')
  })

  it.each(['mqtts', 'wss'] as const)('%s with auto: connects only once with a wrong CA', async kind => {
    const link = await FaultLink.start({ port: kind === 'mqtts' ? ports.tls : ports.wss })
    const wrong = session({
      url: `${kind}://localhost:${link.port}`,
      ca: file('other.crt'),
      protocolVersion: 'auto',
    })
    await wrong.made.listen().catch(() => {})
    expect(link.dials).toBe(1)
    await link.stop()
  })

  it.each(['mqtts', 'wss'] as const)('%s: connects once the credentials contain the right CA', async kind => {
    const port = kind === 'mqtts' ? ports.tls : ports.wss
    let calls = 0
    const { made } = session({
      url: `${kind}://localhost:${port}`,
      connect: 'background',
      wsOptions: { origin: 'http://x' },
      credentials: () => ({ ca: file(++calls < 3 ? 'other.crt' : 'ca.crt') }),
    })
    await made.listen()
    await made.connection.whenConnected({ timeoutMs: 3000 })
    expect(calls).toBe(3)
    await made.close()
  })

  it('mqtt:// to a TLS port, and mqtts:// to a plain one, are failed attempts', async () => {
    const noTls = 'this port does not use TLS: check the port and the scheme of "url"'
    const hungUp = 'the connection was closed before CONNACK; check the port and the scheme of "url"'
    for (const [url, text] of [
      [`mqtt://localhost:${ports.tls}`, hungUp],
      [`mqtts://localhost:${broker.port}`, hungUp],
      [`ws://localhost:${broker.port}`, hungUp],
      [`wss://localhost:${ports.ws}`, noTls],
      [`ws://localhost:${ports.wss}`, hungUp],
    ] as const) {
      const { made } = session({ url, protocolVersion: 'auto' })
      const e: unknown = await made.listen().catch((e: unknown) => e)
      expect(e).toMatchObject({ code: 'CONNECT_FAILED', message: expect.stringContaining(text) })
    }
  })
})

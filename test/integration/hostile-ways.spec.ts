import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import * as v from 'valibot'
import { afterEach, describe, expect, it } from 'vitest'
import { MqttClient, type MqttConnectOptions, type MqttCredentials } from '../../src/client/index.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { quiet } from '../support/held-clock.js'
import { RecordingLog } from '../support/recording-log.js'

const Address = v.object({ port: v.number() })
const SECRETS = ['opensesame', 'hunter2']
const stops: (() => unknown)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop()
})

/** A server that does this with each connection. Returns its host. */
async function server(work: (socket: Socket) => void): Promise<{ host: string; open: () => number }> {
  let open = 0
  const made = createServer(socket => {
    open += 1
    socket.on('error', () => {})
    socket.on('close', () => {
      open -= 1
    })
    work(socket)
  }).listen(0, '127.0.0.1')
  await once(made, 'listening')
  stops.push(() => made.close())
  return { host: `127.0.0.1:${v.parse(Address, made.address()).port}`, open: () => open }
}

/** Writes the bytes again and again until the connection ends. */
function endless(socket: Socket, bytes: string): void {
  const timer = setInterval(() => socket.write(bytes), 1)
  socket.on('close', () => clearInterval(timer))
}

/** Returns the error of a start that fails, and the log. */
async function failure(options: MqttConnectOptions): Promise<string> {
  const logger = new RecordingLog()
  const error: unknown = await MqttClient.connect({
    logger,
    connectTimeoutMs: 400,
    username: 'ada',
    password: 'opensesame',
    ...options,
  }).then(
    () => 'connected',
    (reason: unknown) => reason,
  )
  const text = inspect([error, logger.lines], { depth: 9 })
  for (const secret of SECRETS) expect(text).not.toContain(secret)
  expect(error).toMatchObject({ code: 'CONNECT_FAILED' })
  return error instanceof Error ? error.message : String(error)
}

describe('a hostile proxy', () => {
  it.each([
    ['an endless header', 'HTTP/1.1 200 OK\r\nx: ', 'a'.repeat(10_000), /Header overflow/],
    [
      'headers without end',
      'HTTP/1.1 200 OK\r\n',
      `x: ${'a'.repeat(100)}\r\n`.repeat(200),
      /Header overflow/,
    ],
    [
      'endless interim responses',
      '',
      'HTTP/1.1 100 Continue\r\n\r\n',
      /refused to connect to .*: 100 Continue/,
    ],
    ['bytes that are not HTTP', 'garbage\0\r\n', '', /Expected HTTP/],
    [
      'a redirect',
      'HTTP/1.1 302 Found\r\nlocation: http://evil.test/\r\n\r\n',
      '',
      /refused to connect to .*: 302 Found/,
    ],
  ])('of the kind http that sends %s ends the attempt', async (_what, first, then, expected) => {
    const { host, open } = await server(socket => {
      socket.once('data', () => {
        socket.write(first)
        if (then !== '') endless(socket, then)
      })
    })
    const text = await failure({ url: 'mqtt://broker.test', proxy: `http://u:hunter2@${host}` })
    expect(text).toMatch(expected)
    await eventually(() => open() === 0)
  })

  it.each([
    ['endless bytes', 'x'.repeat(1_000)],
    ['endless choices of a method', '\x05\x00'],
  ])('of the kind socks5h that sends %s ends the attempt', async (_what, bytes) => {
    const { host, open } = await server(socket => endless(socket, bytes))
    const text = await failure({ url: 'mqtt://broker.test', proxy: `socks5h://u:hunter2@${host}` })
    expect(text).toMatch(new RegExp(`the proxy socks5h://${host}|Not supported`))
    await eventually(() => open() === 0)
  })

  it('that cuts the connection after it has connected to the broker ends the attempt', async () => {
    const { host } = await server(socket => {
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\n\r\n'))
    })
    const text = await failure({ url: 'mqtt://broker.test', proxy: `http://u:hunter2@${host}` })
    expect(text).toMatch(/closed|ended|hang up/)
  })
})

it.each(['http', 'socks5h'])(
  'an attempt that ended while it waited for credentials opens no connection to its proxy of the kind %s',
  async kind => {
    let accepted = 0
    const { host } = await server(() => {
      accepted += 1
    })
    let respond = (): void => {}
    const credentials = () =>
      new Promise<MqttCredentials>(resolve => {
        respond = () => resolve({ username: 'ada' })
      })
    await failure({
      url: 'mqtt://broker.test',
      proxy: `${kind}://${host}`,
      credentials,
      connectTimeoutMs: 20,
    })
    respond()
    await quiet(50)
    expect(accepted).toBe(0)
  },
)

describe('a function "credentials"', () => {
  const rubbish: [string, unknown, RegExp][] = [
    ['a string', 'opensesame', /credentials/],
    ['a number', 7, /credentials/],
    ['a list', ['opensesame'], /credentials/],
    ['a user name that is a number', { username: 7 }, /"credentials\.username" must be/],
    ['a password that is an object', { password: { a: 'opensesame' } }, /"credentials\.password" must be/],
    ['headers that are a string', { headers: 'opensesame' }, /"credentials\.headers" must be/],
    ['a header with a line break', { headers: { a: 'opensesame\r\nx: y' } }, /header/i],
    ['a path that is a number', { caPath: 7 }, /"credentials\.caPath" must be/],
    ['a certificate that is a number', { cert: 7 }, /"cert"/],
    ['an expiry that is a text', { expiresAtMs: 'tomorrow' }, /"expiresAtMs"/],
    [
      'Authentication Data without a method',
      { authenticationData: 'opensesame' },
      /"authentication" is missing/,
    ],
  ]
  it.each(rubbish)(
    'that returns %s ends the attempt, and names the field',
    async (_what, value, expected) => {
      const broker = await EmbeddedBroker.start()
      stops.push(() => broker.stop())
      // What JavaScript may return.
      const credentials = (() => value) as NonNullable<MqttConnectOptions['credentials']>
      expect(await failure({ url: broker.url, credentials })).toMatch(expected)
    },
  )

  it('that throws something that is not an error ends the attempt', async () => {
    const credentials = () => {
      throw { toString: () => 'opensesame' }
    }
    await failure({ url: 'mqtt://127.0.0.1:1', credentials })
  })
})

describe('a TLS file that turns into rubbish', () => {
  const url = 'mqtts://127.0.0.1:1'
  const newPath = (): string => {
    const folder = mkdtempSync(join(tmpdir(), 'tls-file-'))
    stops.push(() => rmSync(folder, { recursive: true }))
    return join(folder, 'ca.pem')
  }
  const WHOLE = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'

  it.each([
    ['is empty', ''],
    ['has no certificate', 'rubbish'],
    ['ends within the first certificate', WHOLE.slice(0, 30)],
    ['ends within the second certificate', WHOLE + WHOLE.slice(0, 30)],
  ])('is named when a CA file %s', async (_what, content) => {
    const caPath = newPath()
    writeFileSync(caPath, content)
    expect(await failure({ url, caPath })).toContain(
      `"caPath": the file ${caPath} contains no complete certificate in PEM format`,
    )
  })

  it('holds one thread of Node if it cannot be read to its end, however many attempts there are', async () => {
    const caPath = newPath()
    execFileSync('mkfifo', [caPath])
    // A writer ends the read.
    stops.unshift(() => writeFileSync(caPath, ''))
    const logger = new RecordingLog()
    const options = { url, caPath, connect: 'background', connectTimeoutMs: 5, logger } as const
    const client = await MqttClient.connect({ ...options, reconnect: { delayMs: [1] } })
    stops.unshift(() => client.close())
    let attempts = 0
    client.onState(({ status }) => {
      if (status === 'connecting') attempts += 1
    })
    await eventually(() => attempts > 8)
    expect((await stat(tmpdir())).isDirectory()).toBe(true)
  })
})

import { connect, createServer } from 'node:net'
import { inspect } from 'node:util'
import { expect, it } from 'vitest'
import { clientOptions } from '../../src/client/connection/dialler.js'
import { Endpoints } from '../../src/client/connection/endpoints.js'
import { MqttSession } from '../../src/client/mqtt-session.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { quiet } from '../support/held-clock.js'
import { RecordingLog } from '../support/recording-log.js'
import { message, sessionOnPeer } from '../support/session-on-peer.js'

const kept = { clean: false, clientId: 'c', reconnect: { delayMs: [0] } } as const
const out = (topic: string, qos: 0 | 1 | 2, payload = 'x') => ({
  topic,
  payload: Buffer.from(payload),
  qos,
  retain: false,
})

it('PUBCOMP 0x92 for a resent PUBREL: the message is acknowledged', async () => {
  const { peer, session } = sessionOnPeer(kept)
  const started = session.start()
  const first = await peer.accept()
  await started
  const outcome = session.publish(out('a', 2))
  const { messageId = 0 } = await first.expect('publish')
  first.send({ cmd: 'pubrec', messageId })
  await first.expect('pubrel')
  first.cut()
  const second = await peer.accept({ sessionPresent: true })
  await second.expect('pubrel')
  second.send({ cmd: 'pubcomp', messageId, reasonCode: 0x92 })
  expect(await outcome).toMatchObject({ status: 'acknowledged' })
  await session.close()
})

it('PUBREC 0x91 for a resent PUBLISH: the broker has it, PUBREL follows', async () => {
  const { peer, session } = sessionOnPeer(kept)
  const started = session.start()
  const first = await peer.accept()
  await started
  const outcome = session.publish(out('a', 2))
  await first.expect('publish')
  first.cut()
  const second = await peer.accept({ sessionPresent: true })
  const { messageId = 0, dup } = await second.expect('publish')
  expect(dup).toBe(true)
  second.send({ cmd: 'pubrec', messageId, reasonCode: 0x91 })
  await second.expect('pubrel')
  second.send({ cmd: 'pubcomp', messageId })
  expect(await outcome).toMatchObject({ status: 'acknowledged' })
  await session.close()
})

it('PUBREL is resent before the PUBLISH of later messages, so that the broker does not forward them first', async () => {
  const { peer, session } = sessionOnPeer(kept)
  const started = session.start()
  const first = await peer.accept()
  await started
  const outcomes = ['a', 'b'].map(topic => session.publish(out(topic, 2)))
  const { messageId: a = 0 } = await first.expect('publish')
  const { messageId: b = 0 } = await first.expect('publish')
  first.send({ cmd: 'pubrec', messageId: a })
  await first.expect('pubrel')
  first.cut()
  const second = await peer.accept({ sessionPresent: true })
  await second.expect('pubrel')
  await second.expect('publish')
  expect(second.received.map(({ cmd }) => cmd).filter(cmd => cmd.startsWith('pub'))).toEqual([
    'pubrel',
    'publish',
  ])
  second.send({ cmd: 'pubrec', messageId: b })
  await second.expect('pubrel')
  for (const messageId of [a, b]) second.send({ cmd: 'pubcomp', messageId })
  for (const outcome of outcomes) expect(await outcome).toMatchObject({ status: 'acknowledged' })
  await session.close()
})

it('a publish that exceeds the limit of the resumed connection is not resent', async () => {
  const { peer, session } = sessionOnPeer(kept)
  const started = session.start()
  const first = await peer.accept()
  await started
  const big = Promise.resolve(session.publish(out('big', 1, 'x'.repeat(500))))
  const small = session.publish(out('small', 1))
  await first.expect('publish')
  first.cut()
  const second = await peer.accept({ sessionPresent: true, properties: { maximumPacketSize: 100 } })
  const again = await second.expect('publish')
  expect(again.topic).toBe('small')
  second.send({ cmd: 'puback', messageId: again.messageId ?? 0 })
  expect(await small).toMatchObject({ status: 'acknowledged' })
  expect(await big).toMatchObject({ status: 'lost' })
  await session.close()
})

it('a SUBSCRIBE that was in flight when the connection was lost is not resent during a drain', async () => {
  const { peer, session, route } = sessionOnPeer({
    reconnect: { delayMs: [0] },
    connect: 'background',
    drainTimeoutMs: 3000,
  })
  let end = () => {}
  route(
    'a/#',
    () =>
      new Promise<void>(r => {
        end = r
      }),
  )
  route('b/#', async () => {})
  await session.listen()
  const first = await peer.accept()
  const s1 = await first.expect('subscribe')
  first.send({ cmd: 'suback', messageId: s1.messageId ?? 0, granted: [1] })
  await first.expect('subscribe')
  first.send(message('a/1', { qos: 1, messageId: 9 }))
  await eventually(() => session.stats.inbound.running === 1)
  const closing = session.close()
  await quiet(50)
  first.cut()
  const second = await peer.accept()
  await quiet(50)
  second.send({ cmd: 'pingresp' })
  await quiet(50)
  const seen = second.received.map(p => p.cmd)
  end()
  await closing
  expect(seen).not.toContain('subscribe')
})

it('close(), start(), close(): the last call decides', async () => {
  const { peer, session } = sessionOnPeer({})
  const started = session.start()
  const auto = (async () => {
    for (;;) {
      const c = await peer.accept()
      void c
    }
  })()
  void auto
  await started
  const a = session.close()
  const b = session.start().catch(() => {})
  const c = session.close()
  await Promise.all([a, b, c])
  await quiet(50)
  const { status } = session.connection.state
  await session.close()
  expect(status).toBe('closed')
})

it('state.cause of an invalid Server Reference has no password', async () => {
  const port = 0
  const server = createServer(socket => {
    // CONNACK 0x9C with Server Reference "bad:xx"
    const ref = Buffer.from('bad:xx')
    const props = Buffer.concat([Buffer.from([0x1c, 0, ref.length]), ref])
    const body = Buffer.concat([Buffer.from([0, 0x9c, props.length]), props])
    socket.on('error', () => {})
    socket.once('data', () => socket.end(Buffer.concat([Buffer.from([0x20, body.length]), body])))
  }).listen(port, '127.0.0.1')
  await new Promise(r => server.once('listening', r))
  const address = server.address()
  const p = typeof address === 'object' && address !== null ? address.port : 0
  const session = new MqttSession(
    resolveOptions({
      url: `mqtt://user:topsecret@127.0.0.1:${p}`,
      protocolVersion: 5,
      reconnect: { delayMs: [10000] },
    }),
    new RecordingLog(),
  )
  const error = await session.start().catch((e: unknown) => e)
  const text = inspect(error, { depth: 9 })
  server.close()
  expect(text).not.toContain('topsecret')
})

it('texts of a broker cannot forge log lines', async () => {
  const { peer, session, log } = sessionOnPeer({ reconnect: { delayMs: [60000] } })
  const started = session.start()
  const first = await peer.accept()
  await started
  first.send({
    cmd: 'disconnect',
    reasonCode: 0x80,
    properties: { reasonString: `a\n[Nest] ERROR forged ${'x'.repeat(5000)}` },
  })
  await eventually(() => session.connection.state.status === 'waiting')
  await session.close()
  expect(log.visible.some(line => line.includes('forged'))).toBe(true)
  for (const line of log.visible) {
    expect(line).not.toContain('\n')
    expect(line.length).toBeLessThan(1000)
  }
})

it('a Server Reference that is more than a host and a port is refused', async () => {
  const endpoints = new Endpoints(resolveOptions({ url: 'mqtt://user:pw@localhost:1' }))
  for (const reference of ['eve@other', 'eve:secret@other', 'other/path', 'other?a', 'other#a', 'other\\a'])
    await expect(endpoints.next(0, reference, 5)).rejects.toThrow(
      /the Server Reference .* is not a valid host/,
    )
  const { url = '' } = await endpoints.next(0, 'other:2', 5)
  expect(url).toBe('mqtt://user:pw@other:2')
})

it('rotated TLS files are used for wss even with wsOptions', async () => {
  const mqtt = await import('mqtt')
  let n = 0
  const options = resolveOptions({
    url: 'wss://127.0.0.1:1',
    wsOptions: { origin: 'x' },
    credentials: () => ({ key: `key${++n}`, ca: `ca${n}` }),
  })
  const seen: unknown[] = []
  for (let i = 0; i < 2; i += 1) {
    const settings = clientOptions(
      options,
      { url: 'wss://127.0.0.1:1', name: 'x', credentials: { ca: `ca${i}` } },
      5,
    )
    const client = mqtt.connect('wss://127.0.0.1:1', { ...settings, manualConnect: true })
    seen.push((client.options.wsOptions as { ca?: unknown })?.ca)
    try {
      client.connect()
    } catch {}
    client.on('error', () => {})
    seen.push((settings.wsOptions as { ca?: unknown })?.ca)
    client.end(true)
  }
  expect((options.secrets.reveal().passThrough.wsOptions as { ca?: unknown }).ca).toBeUndefined()
})

async function echo() {
  const got: Buffer[] = []
  const server = createServer({ allowHalfOpen: true }, socket => {
    socket.on('data', c => got.push(c))
    socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await new Promise(r => server.once('listening', r))
  const address = server.address()
  return { server, got, port: typeof address === 'object' && address !== null ? address.port : 0 }
}

it('FaultLink: healing a delay does not reorder bytes', async () => {
  const b = await echo()
  const link = await FaultLink.start({ port: b.port })
  const c = connect(link.port, '127.0.0.1')
  await eventually(() => link.open === 1)
  link.delay(300)
  c.write('A')
  await quiet(50)
  link.heal()
  c.write('B')
  await eventually(() => Buffer.concat(b.got).length === 2)
  expect(Buffer.concat(b.got).toString()).toBe('AB')
  c.destroy()
  await link.stop()
  b.server.close()
})

it('FaultLink: the end of a stream does not overtake delayed bytes', async () => {
  const b = await echo()
  const link = await FaultLink.start({ port: b.port })
  const c = connect(link.port, '127.0.0.1')
  c.on('error', () => {})
  await eventually(() => link.open === 1)
  link.delay(200)
  c.end('BYE')
  await eventually(() => Buffer.concat(b.got).toString() === 'BYE')
  c.destroy()
  await link.stop()
  b.server.close()
})

it('FaultLink: stop() ends even if a client of refuse(response) sends nothing', async () => {
  const b = await echo()
  const link = await FaultLink.start({ port: b.port })
  link.refuse(true, Buffer.from([0x20, 2, 0, 3]))
  const c = connect(link.port, '127.0.0.1')
  await new Promise(r => c.once('connect', r))
  await quiet(50)
  await link.stop()
  c.destroy()
  b.server.close()
})

it('a publish on which the broker repeatedly closes the connection ends as lost, and the others succeed', async () => {
  const { peer, session } = sessionOnPeer({ ...kept, connect: 'background' })
  await session.start()
  const first = await peer.accept()
  await session.connection.whenConnected()
  const poison = session.publish(out('poison', 1))
  const good = session.publish(out('good', 1))
  await first.expect('publish')
  first.cut()
  let settled = false
  void Promise.resolve(poison).then(() => {
    settled = true
  })
  for (let count = 0; count < 10; count += 1) {
    const connection = await peer.accept({ sessionPresent: true })
    expect(await connection.expect('publish')).toMatchObject({ topic: 'poison', dup: true })
    expect(settled).toBe(false)
    connection.cut()
  }
  const last = await peer.accept({ sessionPresent: true })
  const { messageId = 0, topic } = await last.expect('publish')
  expect(topic).toBe('good')
  last.send({ cmd: 'puback', messageId })
  expect(await poison).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_LOST' } })
  expect(await good).toMatchObject({ status: 'acknowledged' })
  await session.close()
})

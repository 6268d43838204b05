import type { Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MqttClient, MqttError } from '../../src/client/index.js'
import { EmbeddedBroker, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { DocApp } from './doc-app.js'

/** What the files of a page export. The compiler has checked their types. */
async function filesOf(page: string, ...files: string[]): Promise<Record<string, unknown>> {
  const app = new DocApp(page, 'module')
  app.write()
  await app.compile()
  const modules = await Promise.all(files.map(file => import(app.compiled(file))))
  return Object.assign({}, ...modules)
}

// Seam: the pages declare these types.
const call = (value: unknown) => value as (...args: unknown[]) => Promise<Record<string, never>>

describe('the device and the service of docs/contracts.md', () => {
  let broker: EmbeddedBroker
  let page: Record<string, unknown>

  beforeAll(async () => {
    broker = await EmbeddedBroker.start()
    process.env['MQTT_URL'] = broker.url
    const files = ['topics', 'device', 'service', 'app.module'].map(file => `src/${file}.ts`)
    page = await filesOf('docs/contracts.md', ...files)
    delete process.env['MQTT_URL']
  }, 60_000)
  afterAll(() => broker.stop())

  it('share one contract: readings, requests, and a rejected publish with the path', async () => {
    const { client, measure } = await call(page['startDevice'])('7', { url: broker.url })
    const { close }: { close: unknown } = Object(client)
    const Service = page['CoolingService'] as new () => { last: Map<string, { celsius: number; at: Date }> }
    const app = await NestFactory.createApplicationContext(page['AppModule'] as Type, { logger: false })
    const service = app.get(Service)
    expect(await call(measure)(20)).toEqual({ status: 'acknowledged', reasonCode: 0 })
    await eventually(() => service.last.has('7'))
    expect(service.last.get('7')).toMatchObject({ celsius: 20, at: expect.any(Date) })
    await call(measure)(31)
    const request = await broker.nextMessage('devices/7/fan')
    expect(String(request.payload)).toContain('"speed":3')
    const error: unknown = await call(measure)(200).catch((reason: unknown) => reason)
    expect(error).toMatchObject({
      code: 'PAYLOAD_INVALID',
      issues: [{ path: 'celsius', message: 'Too big: expected number to be <=150' }],
    })
    expect(broker.published.filter(({ topic }) => topic === 'devices/7/telemetry')).toHaveLength(2)
    await app.close()
    await call(close).call(client)
  })
})

interface PageCodec {
  readonly contentType: string
  encode(value: unknown): Buffer
  decode(payload: Buffer, contentType?: string): unknown
}

describe('the codecs of docs/codecs.md', () => {
  const codecs: Record<string, PageCodec> = {}
  let topics: Record<string, unknown>

  beforeAll(async () => {
    const files = ['cbor', 'message-pack', 'protobuf', 'gzip-json', 'without-contract', 'topics']
    topics = await filesOf('docs/codecs.md', ...files.map(file => `src/${file}.ts`))
    for (const name of ['cborCodec', 'messagePackCodec', 'readingCodec', 'gzipJsonCodec'])
      codecs[name] = topics[name] as PageCodec
  }, 60_000)
  const codecOf = (name: string): PageCodec => {
    const codec = codecs[name]
    if (codec === undefined) throw new Error(`no codec ${name}`)
    return codec
  }
  const READING = { celsius: 21.5, site: 'Kälte' }

  it.each([
    ['cborCodec', 'application/cbor'],
    ['messagePackCodec', 'application/vnd.msgpack'],
    ['readingCodec', 'application/protobuf'],
    ['gzipJsonCodec', 'application/json+gzip'],
  ])('%s returns the value that it encoded, and names its Content Type', (name, contentType) => {
    const codec = codecOf(name)
    const bytes = codec.encode(READING)
    expect(Buffer.isBuffer(bytes)).toBe(true)
    expect(codec.decode(bytes)).toEqual(READING)
    expect(codec.contentType).toBe(contentType)
  })

  it.each(['cborCodec', 'messagePackCodec', 'readingCodec', 'gzipJsonCodec'])(
    '%s throws for bytes that end too early',
    name => {
      const codec = codecOf(name)
      const bytes = codec.encode(READING)
      expect(() => codec.decode(bytes.subarray(0, bytes.length - 3))).toThrow()
    },
  )

  it.each(['cborCodec', 'messagePackCodec'])('%s keeps binary data', name => {
    const codec = codecOf(name)
    const { data } = codec.decode(codec.encode({ data: Buffer.from([0, 1, 255]) })) as { data: Uint8Array }
    expect([...data]).toEqual([0, 1, 255])
  })

  it('cborCodec and messagePackCodec read what other encoders write', () => {
    expect(codecOf('cborCodec').decode(Buffer.from('a16161182a', 'hex'))).toEqual({ a: 42 })
    expect(codecOf('messagePackCodec').decode(Buffer.from('81a1612a', 'hex'))).toEqual({ a: 42 })
    expect(codecOf('cborCodec').encode({ a: 42 }).toString('hex')).toBe('a16161182a')
    expect(codecOf('messagePackCodec').encode({ a: 42 }).toString('hex')).toMatch(/^(81|de0001)a1612a$/)
  })

  it('readingCodec refuses a value of another type', () => {
    expect(() => codecOf('readingCodec').encode({ celsius: 'warm', site: 'a' })).toThrow('celsius')
  })

  it('gzipJsonCodec reads plain JSON, and refuses a payload that expands beyond its limit', () => {
    const codec = codecOf('gzipJsonCodec')
    expect(codec.decode(Buffer.from('{"a":1}'), 'application/json')).toEqual({ a: 1 })
    const bomb = codec.encode('x'.repeat(10_000_000))
    expect(bomb.length).toBeLessThan(20_000)
    expect(() => codec.decode(bomb)).toThrow(/larger than 1000000/)
  })

  it('send their Content Type on MQTT 5, and handlers of the contract decode the message', async () => {
    const peer = new ScriptedPeer()
    const connecting = MqttClient.connect({ createStream: peer.createStream, protocolVersion: 5 })
    const connection = await peer.accept()
    const client = await connecting
    // Seam: the page declares the type of the contract.
    const report = topics['report'] as Parameters<typeof client.subscribe>[0] & {
      at(params: { site: string }): Parameters<typeof client.publish>[0]
    }
    const received: unknown[] = []
    client.subscribe(report, ({ payload }) => received.push(payload))
    await connection.grant()
    void client.publish(report.at({ site: 'a' }), READING)
    const sent = await connection.find('publish')
    expect(sent).toMatchObject({ topic: 'sites/a/report', qos: 1 })
    expect(sent.properties?.contentType).toBe('application/json+gzip')
    connection.send({ ...sent, messageId: 7 })
    await eventually(() => received.length === 1)
    expect(received).toEqual([READING])
    connection.send({ ...sent, messageId: 8, payload: Buffer.from('not gzip') })
    await eventually(() => client.stats().inbound.failed === 1)
    connection.cut()
    await client.close().catch((error: unknown) => expect(error).toBeInstanceOf(MqttError))
  })

  it('work without a contract', async () => {
    const broker = await EmbeddedBroker.start()
    const client = await MqttClient.connect({ url: broker.url })
    const received: unknown[] = []
    const subscription = (await call(topics['listen'])(client, (payload: unknown) =>
      received.push(payload),
    )) as {
      whenGranted?: () => Promise<void>
    }
    await subscription.whenGranted?.()
    await call(topics['publishState'])(client, 'a', READING)
    await eventually(() => received.length === 1)
    expect(received).toEqual([READING])
    await client.close()
    await broker.stop()
  })
})

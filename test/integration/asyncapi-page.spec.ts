import 'reflect-metadata'
import { Controller, type INestApplication, Module, type Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { FastifyAdapter } from '@nestjs/platform-fastify'
import { afterEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { AsyncApiModule, type AsyncApiOptions, createAsyncApiDocument } from '../../src/asyncapi/index.js'
import { defineTopic, MqttModule, OnMqttEvent, OnMqttRequest } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { problemsOf } from '../support/asyncapi.js'

@Controller()
class Devices {
  @OnMqttEvent('devices/+deviceId/telemetry')
  onTelemetry(): void {}

  @OnMqttRequest('devices/+deviceId/reboot')
  reboot(): void {}
}

const open: INestApplication[] = []

afterEach(async () => {
  for (const app of open.splice(0)) await app.close()
})

const PLATFORMS = ['express', 'fastify'] as const

async function createApp(platform: (typeof PLATFORMS)[number] = 'express', controllers: Type[] = [Devices]) {
  const mqtt = MqttModule.forRoot({
    createStream: new ScriptedPeer().createStream,
    connect: 'background',
    drainTimeoutMs: 0,
  })
  @Module({ imports: [mqtt], controllers })
  class AppModule {}
  const options = { logger: false, abortOnError: false } as const
  const app: INestApplication =
    platform === 'fastify'
      ? await NestFactory.create(AppModule, new FastifyAdapter(), options)
      : await NestFactory.create(AppModule, options)
  open.push(app)
  return app
}

/** An application that serves its document, and a function that fetches from it. */
async function serve(
  platform: (typeof PLATFORMS)[number] = 'express',
  options: Partial<AsyncApiOptions> = {},
  path = 'docs/asyncapi',
) {
  const app = await createApp(platform)
  const document = await createAsyncApiDocument(app, {
    title: 'Fleet',
    version: '1.0.0',
    servers: [{ url: 'mqtts://broker.example.com' }],
    ...options,
  })
  AsyncApiModule.setup(path, app, document)
  await app.listen(0, '127.0.0.1')
  const url = await app.getUrl()
  const get = async (target: string) => {
    const response = await fetch(`${url}${target}`, { headers: { connection: 'close' } })
    return { status: response.status, headers: response.headers, text: await response.text() }
  }
  return { get, document }
}

/** Addresses that a browser would load, and scripts that it would run. */
function loadedBy(page: string): string[] {
  return [
    ...page.matchAll(
      /<(?:script|img|iframe|object|embed|base|meta http)|\s(?:src|srcset|action|on\w+)=|@import|url\(/gi,
    ),
  ].map(([found]) => found)
}

describe.each(PLATFORMS)('AsyncApiModule.setup() with %s', platform => {
  it('serves the page, and the document as JSON and YAML', async () => {
    const { get, document } = await serve(platform)
    const page = await get('/docs/asyncapi')
    expect(page.status).toBe(200)
    expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
    for (const text of ['Fleet', 'Devices.onTelemetry', 'broker.example.com', 'devices/+/telemetry'])
      expect(page.text).toContain(text)
    const json = await get('/docs/asyncapi-json')
    expect(json.headers.get('content-type')).toMatch('application/json')
    expect(JSON.parse(json.text)).toEqual(document)
    const yaml = await get('/docs/asyncapi-yaml')
    expect(yaml.headers.get('content-type')).toMatch('application/yaml')
    expect(await problemsOf(yaml.text)).toEqual([])
  })

  it('allows the page no script and nothing from elsewhere', async () => {
    const { get } = await serve(platform)
    const { headers, text } = await get('/docs/asyncapi')
    expect(headers.get('content-security-policy')).toMatch(
      /^default-src 'none'; style-src 'sha256-[\w+/]+=*'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'$/,
    )
    expect(headers.get('x-content-type-options')).toBe('nosniff')
    expect(headers.get('referrer-policy')).toBe('no-referrer')
    expect(loadedBy(text)).toEqual([])
  })

  it('links relative to the page, with and without a slash at the end', async () => {
    const { get } = await serve(platform)
    expect((await get('/docs/asyncapi')).text).toContain('href="asyncapi-json"')
    const { status, text } = await get('/docs/asyncapi/')
    // Without other settings, only Express finds a path with a slash at its end.
    expect(status).toBe(platform === 'express' ? 200 : 404)
    if (status === 200) expect(text).toContain('href="../asyncapi-json"')
  })

  it('filters by topic and handler', async () => {
    const { get } = await serve(platform)
    const { text } = await get('/docs/asyncapi?filter=REBOOT')
    expect(text).toContain('Devices.reboot')
    expect(text).not.toContain('Devices.onTelemetry')
    expect(text).toContain('1 of 2')
    expect((await get('/docs/asyncapi?filter=nothing')).text).toContain('No topic or handler contains')
  })
})

describe('the page of an AsyncAPI document', () => {
  const NASTY = `</script></style><script>alert(1)</script><img src=x onerror=alert(1)>"'\u202e`

  it('shows hostile topics, descriptions and schemas as text', async () => {
    const schema = z
      .object({ [NASTY]: z.enum([NASTY]).describe(NASTY).default(NASTY) })
      .meta({ title: NASTY, description: NASTY })
    const { get } = await serve('express', {
      title: NASTY,
      version: NASTY,
      description: NASTY,
      servers: [{ url: 'mqtt://host', description: NASTY }],
      sends: [defineTopic(NASTY.replace('#', ''), { description: NASTY, schema })],
    })
    const query = encodeURIComponent(NASTY)
    for (const target of [
      '/docs/asyncapi',
      `/docs/asyncapi?filter=${query}`,
      `/docs/asyncapi?page=${query}`,
    ]) {
      const { text, status } = await get(target)
      expect(status).toBe(200)
      expect(text).not.toContain('<script')
      expect(text).not.toContain('<img')
      expect(text).not.toContain('\u202e')
      expect(text).toContain('&lt;script&gt;')
      expect(text.match(/<\/style>/g)).toHaveLength(1)
    }
  })

  it('shows the properties of a payload, with their types, limits and what is required', async () => {
    const schema = z.object({
      celsius: z.number().min(-40).max(85).describe('At the sensor.'),
      tags: z.array(z.object({ key: z.string() })).optional(),
      mode: z.enum(['eco', 'boost']),
      cause: z.union([z.string(), z.int()]),
    })
    const { get } = await serve('express', {
      sends: [defineTopic('out/+id', { schema, qos: 1, retain: true })],
    })
    const text = (await get('/docs/asyncapi?filter=out')).text
      .replaceAll(/<[^>]+>/g, ' ')
      .replaceAll(/\s+/g, ' ')
    expect(text).toContain('celsius number, ≥ -40, ≤ 85 required At the sensor.')
    expect(text).toContain('mode string &quot;eco&quot; &quot;boost&quot; required')
    expect(text).toContain('tags array each item: object key string required')
    expect(text).toContain('cause required either: string or: integer')
    expect(text).toContain('send QoS 1 retained')
  })

  it('shows examples, and no expression for a format that has a name', async () => {
    const schema = z.object({
      at: z.iso.datetime().meta({ examples: ['2026-01-01T00:00:00Z', 'two', 'three', 'four'] }),
      code: z.string().regex(/^[A-Z]+$/),
    })
    const { get } = await serve('express', { sends: [defineTopic('out', { schema })] })
    const text = (await get('/docs/asyncapi?filter=out')).text.replaceAll(/<[^>]+>/g, '')
    expect(text).toContain(
      'at string, date-time, for example &quot;2026-01-01T00:00:00Z&quot; &quot;two&quot; &quot;three&quot; required',
    )
    expect(text).toContain('code string, matches ^[A-Z]+$ required')
  })

  it('breaks the line of a long topic after a slash', async () => {
    const { get } = await serve('express', { sends: [defineTopic('out/+id/values')] })
    expect((await get('/docs/asyncapi?filter=out')).text).toContain(
      'out/<wbr><b>{id}</b>/<wbr>values</a></h3>',
    )
  })

  it('shows a schema that contains itself, and one that is larger than any memory', async () => {
    const tree: z.ZodType = z.object({ children: z.array(z.lazy(() => tree)) })
    let wide: z.ZodType = z.string()
    for (let depth = 0; depth < 12; depth += 1) {
      const inner = wide
      wide = z
        .object(Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`p${index}`, inner])))
        .meta({ id: `wide${depth}` })
    }
    const sends = [defineTopic('tree', { schema: tree }), defineTopic('wide', { schema: wide })]
    const { get } = await serve('express', { sends })
    const { text } = await get('/docs/asyncapi')
    expect(text).toContain('contains itself, as above')
    expect(text).toContain('The JSON document has more.')
    expect(text.length).toBeLessThan(200_000)
  })

  it('shows 50 channels at a time, and the next ones on further pages', async () => {
    const sends = Array.from({ length: 10_000 }, (_, index) => defineTopic(`many/${index}/+id`))
    const { get } = await serve('express', { sends })
    const first = (await get('/docs/asyncapi?filter=many')).text
    expect(first.match(/<article/g)).toHaveLength(50)
    expect(first).toContain('href="?filter=many&amp;page=2"')
    expect(first).toContain('Page 1 of 200')
    const last = (await get('/docs/asyncapi?filter=many&page=999999')).text
    expect(last).toContain('many/9999/+')
    expect(last).toContain('Page 200 of 200')
  })
})

describe('AsyncApiModule.setup()', () => {
  it.each(['', '/', 'a b', ':id', '*', '../x?', 'a//b'])('rejects the path "%s"', async path => {
    const app = await createApp()
    const document = await createAsyncApiDocument(app, { title: 'a', version: '1' })
    expect(() => AsyncApiModule.setup(path, app, document)).toThrow(/the path .* is not valid/)
  })

  it('rejects an application that is already initialized', async () => {
    const app = await createApp()
    const document = await createAsyncApiDocument(app, { title: 'a', version: '1' })
    await app.init()
    expect(() => AsyncApiModule.setup('asyncapi', app, document)).toThrow('call it before app.init()')
  })
})

import 'reflect-metadata'
import { Controller, Injectable, type Type } from '@nestjs/common'
import { EventPattern, MessagePattern } from '@nestjs/microservices'
import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { toYaml } from '../../src/asyncapi/index.js'
import {
  type Codec,
  defineTopic,
  handle,
  MqttModule,
  OnMqttEvent,
  OnMqttRequest,
  OnMqttUnmatched,
} from '../../src/index.js'
import { documentOf, problemsOf } from '../support/asyncapi.js'

const URL = 'mqtt://broker.example.com:1883'

@Controller()
class Devices {
  @OnMqttEvent('devices/+deviceId/telemetry', { qos: 2, sharedGroup: 'workers' })
  onTelemetry(): void {}

  @EventPattern<string[]>(['a/+/c', 'logs/#'])
  onMany(): void {}

  @EventPattern<string>('files/#path', handle({ codec: 'bytes' }))
  onFile(): void {}

  @MessagePattern({ cmd: 'sum' })
  sum(): void {}

  @OnMqttUnmatched()
  onUnmatched(): void {}
}

@Injectable()
class Reboots {
  @OnMqttRequest('devices/+deviceId/commands/reboot')
  reboot(): void {}
}

const main = MqttModule.forRoot({ url: URL })

describe('an AsyncAPI document', () => {
  it('has a channel and an operation for each handler, and is valid', async () => {
    const { document, warnings } = await documentOf({
      imports: [main],
      controllers: [Devices],
      providers: [Reboots],
    })
    expect(await problemsOf(document)).toEqual([])
    expect(warnings).toEqual([])
    expect(document).toMatchObject({ asyncapi: '3.1.0', info: { title: 'Fleet', version: '1.0.0' } })
    expect(Object.values(document.channels).map(({ address }) => address)).toEqual([
      'devices/{deviceId}/telemetry',
      'a/{level2}/c',
      'logs/{rest}',
      'files/{path}',
      '%7B"cmd":"sum"%7D',
      null,
      'devices/{deviceId}/commands/reboot',
      null,
    ])
    expect(Object.keys(document.operations)).toEqual([
      'Devices.onTelemetry',
      'Devices.onMany',
      'Devices.onMany-2',
      'Devices.onFile',
      'Devices.sum',
      'Reboots.reboot',
    ])
    expect(document.operations['Devices.onTelemetry']).toEqual({
      action: 'receive',
      title: 'Devices.onTelemetry',
      channel: { $ref: '#/channels/devices.deviceId.telemetry' },
      messages: [{ $ref: '#/channels/devices.deviceId.telemetry/messages/message' }],
      bindings: { mqtt: { qos: 2, bindingVersion: '0.2.0' } },
      'x-mqtt-shared-group': 'workers',
    })
    expect(document.channels['devices.deviceId.telemetry']).toEqual({
      address: 'devices/{deviceId}/telemetry',
      servers: [{ $ref: '#/servers/broker' }],
      parameters: { deviceId: { description: 'One topic level, matched by "+".' } },
      'x-mqtt-topic-filter': 'devices/+/telemetry',
      messages: { message: { contentType: 'application/json' } },
    })
  })

  it('describes the reply of a request, whose address is the Response Topic', async () => {
    const { document } = await documentOf({ imports: [main], providers: [Reboots] })
    expect(document.operations['Reboots.reboot']).toMatchObject({
      action: 'receive',
      bindings: { mqtt: { qos: 0 } },
      reply: {
        address: { location: '$message.header#/responseTopic' },
        channel: { $ref: '#/channels/Reboots.reboot.reply' },
        messages: [{ $ref: '#/channels/Reboots.reboot.reply/messages/response' }],
      },
    })
    expect(document.channels['Reboots.reboot.reply']).toMatchObject({ address: null })
  })

  it('has the schemas of handle({ schema, response })', async () => {
    @Controller()
    class Commands {
      @OnMqttRequest('set', { schema: z.object({ limit: z.int() }), response: z.object({ ok: z.boolean() }) })
      set(): void {}

      @EventPattern<string>('state', handle({ schema: z.object({ on: z.boolean() }) }))
      onState(): void {}
    }
    const { document } = await documentOf({ imports: [main], controllers: [Commands] })
    expect(await problemsOf(document)).toEqual([])
    expect(Object.keys(document.components.schemas)).toEqual([
      'set.request',
      'Commands.set.response',
      'state.message',
    ])
    expect(document.components.schemas['Commands.set.response']).toMatchObject({
      properties: { ok: { type: 'boolean' } },
    })
    expect(document.channels['set']?.messages['request']?.payload).toEqual({
      $ref: '#/components/schemas/set.request',
    })
  })

  it('has the description, schemas and policy of the contract of a handler', async () => {
    const state = defineTopic('trucks/+truck/state', {
      qos: 2,
      retain: true,
      description: 'Where a truck is.',
      schema: z.object({ km: z.int() }),
      properties: { messageExpiryInterval: 5, contentType: 'application/vnd.truck+json' },
    })
    @Controller()
    class Trucks {
      @OnMqttEvent(state)
      onState(_state: { km: number }): void {}
    }
    const { document } = await documentOf({ imports: [main], controllers: [Trucks] })
    expect(await problemsOf(document)).toEqual([])
    expect(document.operations['Trucks.onState']).toMatchObject({
      description: 'Where a truck is.',
      bindings: { mqtt: { qos: 2, retain: true, messageExpiryInterval: 5 } },
    })
    expect(document.channels['trucks.truck.state']?.messages).toEqual({
      message: {
        contentType: 'application/vnd.truck+json',
        payload: { $ref: '#/components/schemas/trucks.truck.state.message' },
      },
    })
  })

  it('has the content type of the codec of the handler or of the connection', async () => {
    const cbor: Codec = { contentType: 'application/cbor', encode: () => Buffer.alloc(0), decode: () => 1 }
    const { document } = await documentOf({
      imports: [MqttModule.forRoot({ url: URL, codec: cbor })],
      controllers: [Devices],
    })
    const typeOf = (channel: string) => document.channels[channel]?.messages['message']?.contentType
    expect(typeOf('logs.rest')).toBe('application/cbor')
    expect(typeOf('files.path')).toBe('application/octet-stream')
  })

  it('lists the contracts that the application sends, with their policy and their response', async () => {
    const reading = defineTopic('fleet/+truck/reading', {
      qos: 1,
      retain: true,
      description: 'What a truck measures.',
      schema: z.object({ celsius: z.number().min(-50) }),
      properties: { messageExpiryInterval: 60, payloadFormatIndicator: true },
    })
    const reboot = defineTopic('fleet/+truck/reboot', { response: z.object({ ok: z.boolean() }) })
    const { document } = await documentOf({ imports: [main] }, { sends: [reading, reboot] })
    expect(await problemsOf(document)).toEqual([])
    expect(document.operations['send.fleet.truck.reading']).toEqual({
      action: 'send',
      description: 'What a truck measures.',
      channel: { $ref: '#/channels/fleet.truck.reading' },
      messages: [{ $ref: '#/channels/fleet.truck.reading/messages/message' }],
      bindings: { mqtt: { qos: 1, retain: true, messageExpiryInterval: 60, bindingVersion: '0.2.0' } },
    })
    expect(document.channels['fleet.truck.reading']).toMatchObject({
      description: 'What a truck measures.',
      messages: { message: { bindings: { mqtt: { payloadFormatIndicator: 1, bindingVersion: '0.2.0' } } } },
    })
    expect(document.components.schemas['fleet.truck.reading.message']).toEqual({
      type: 'object',
      properties: { celsius: { type: 'number', minimum: -50 } },
      required: ['celsius'],
    })
    expect(document.operations['send.fleet.truck.reboot']?.reply).toMatchObject({
      messages: [{ $ref: '#/channels/send.fleet.truck.reboot.reply/messages/response' }],
    })
    expect(document.components.schemas['send.fleet.truck.reboot.response']).toMatchObject({
      properties: { ok: { type: 'boolean' } },
    })
  })

  it('keeps connections apart, each with its servers', async () => {
    @Controller()
    class Edge {
      @OnMqttEvent('devices/+id/state', { connection: 'edge' })
      onEdge(): void {}

      @OnMqttEvent('devices/+id/state')
      onMain(): void {}
    }
    const contract = defineTopic('out')
    const { document } = await documentOf(
      { imports: [main, MqttModule.forRoot({ name: 'edge', url: 'ws://edge/mqtt' })], controllers: [Edge] },
      { sends: [{ contract, connection: 'edge' }] },
    )
    expect(await problemsOf(document)).toEqual([])
    expect(document.channels['devices.id.state']?.servers).toEqual([{ $ref: '#/servers/broker' }])
    expect(document.channels['devices.id.state-2']?.servers).toEqual([{ $ref: '#/servers/edge' }])
    expect(document.operations['Edge.onEdge']?.channel).toEqual({ $ref: '#/channels/devices.id.state-2' })
    expect(document.channels['out']?.servers).toEqual([{ $ref: '#/servers/edge' }])
  })

  it('rejects a connection that the application does not have, and an application without any', async () => {
    await expect(
      documentOf({ imports: [main] }, { sends: [{ contract: defineTopic('a'), connection: 'edge' }] }),
    ).rejects.toThrow('no connection "edge"; use one of: the connection without a name')
    await expect(documentOf({ imports: [] })).rejects.toThrow('the application has no MQTT connection')
  })
})

describe('the servers of a document', () => {
  it('have the address and the security schemes of the connection, and no secret', async () => {
    const { document } = await documentOf({
      imports: [
        MqttModule.forRoot({
          url: ['mqtts://user:s3cret@one.example.com', 'wss://two.example.com/mqtt?token=s3cret'],
          clientId: 's3cret-client',
          clean: false,
          password: 's3cret',
          certPath: '/s3cret.pem',
          keyPath: '/s3cret.key',
          keepalive: 30,
          protocolVersion: 4,
          will: { topic: 'gone', payload: 's3cret', qos: 1, retain: true },
          properties: { sessionExpiryInterval: 60, userProperties: { token: 's3cret' } },
        }),
      ],
    })
    expect(await problemsOf(document)).toEqual([])
    expect(JSON.stringify(document)).not.toContain('s3cret')
    const common = {
      protocolVersion: '3.1.1',
      security: [
        { $ref: '#/components/securitySchemes/userPassword' },
        { $ref: '#/components/securitySchemes/X509' },
      ],
      bindings: {
        mqtt: {
          cleanSession: false,
          keepAlive: 30,
          sessionExpiryInterval: 60,
          maximumPacketSize: 16_777_216,
          lastWill: { topic: 'gone', qos: 1, retain: true },
          bindingVersion: '0.2.0',
        },
      },
    }
    expect(document.servers).toEqual({
      broker: { host: 'one.example.com', protocol: 'secure-mqtt', ...common },
      'broker-2': {
        host: 'two.example.com',
        pathname: '/mqtt',
        protocol: 'wss',
        description: 'MQTT over WebSocket.',
        ...common,
      },
    })
    expect(Object.keys(document.components.securitySchemes)).toEqual(['userPassword', 'X509'])
  })

  it('are those of the option "servers", if it is set', async () => {
    const { document } = await documentOf(
      { imports: [MqttModule.forRoot({ url: URL, name: 'edge' })] },
      { servers: [{ connection: 'edge', url: 'mqtts://u:p@public.example.com:8883', description: 'EU' }] },
    )
    expect(document.servers).toMatchObject({
      edge: { host: 'public.example.com:8883', protocol: 'secure-mqtt', description: 'EU' },
    })
  })

  it('are not known in preview mode if the options come from a factory; a warning says what to do', async () => {
    const imports = [MqttModule.forRootAsync({ useFactory: () => ({ url: URL, variables: { site: 'x' } }) })]
    @Controller()
    class Sites {
      @EventPattern<string>('sites/${site}/+id')
      onSite(): void {}
    }
    const { document, warnings } = await documentOf({ imports, controllers: [Sites] })
    expect(await problemsOf(document)).toEqual([])
    expect(document.servers).toEqual({})
    expect(document.channels['sites.site.id']).toMatchObject({
      address: 'sites/{site}/{id}',
      'x-mqtt-topic-filter': 'sites/${site}/+',
    })
    expect(warnings).toEqual([expect.stringContaining('servers: [{ url: "mqtts://…" }]')])
  })

  it('have the values of variables of a connection whose options are known', async () => {
    @Controller()
    class Sites {
      @EventPattern<string>('sites/${site}/+id')
      onSite(): void {}
    }
    const { document } = await documentOf({
      imports: [MqttModule.forRoot({ url: URL, variables: { site: 'berlin' } })],
      controllers: [Sites],
    })
    expect(document.channels['sites.berlin.id']?.address).toBe('sites/berlin/{id}')
  })
})

const libraries = {
  zod: z.object({ id: z.string(), at: z.coerce.date(), level: z.int().min(0).max(3).optional() }),
  valibot: v.object({
    id: v.string(),
    at: v.date(),
    level: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3))),
  }),
  arktype: type({ id: 'string', at: 'Date', 'level?': '0 <= number.integer <= 3' }),
}

describe('the schema of a payload', () => {
  it.each(Object.entries(libraries))('of %s is a real JSON Schema', async (_name, schema) => {
    const { document, warnings } = await documentOf(
      { imports: [main] },
      { sends: [defineTopic('a', { schema })] },
    )
    expect(await problemsOf(document)).toEqual([])
    expect(warnings).toEqual([])
    const converted = document.components.schemas['a.message']
    expect(converted).toMatchObject({
      type: 'object',
      properties: {
        id: { type: 'string' },
        at: { type: 'string', format: 'date-time' },
        level: { type: 'integer', minimum: 0, maximum: 3 },
      },
    })
    expect(converted?.['required']).toHaveLength(2)
    expect(converted).not.toHaveProperty('$schema')
  })

  it.each([
    ['zod', z.string().transform(text => text.length)],
    [
      'valibot',
      v.pipe(
        v.string(),
        v.transform(text => text.length),
      ),
    ],
    ['arktype', type('string').pipe(text => text.length)],
  ])('of %s is what is sent, not what the handler receives', async (_name, schema) => {
    const { document } = await documentOf({ imports: [main] }, { sends: [defineTopic('a', { schema })] })
    expect(document.components.schemas['a.message']).toEqual({ type: 'string' })
  })

  it('can contain itself, with references into the document', async () => {
    const tree: z.ZodType = z.object({ name: z.string(), children: z.array(z.lazy(() => tree)) })
    const { document } = await documentOf(
      { imports: [main] },
      { sends: [defineTopic('a', { schema: tree })] },
    )
    expect(await problemsOf(document)).toEqual([])
    expect(JSON.stringify(document)).toContain('"$ref":"#/components/schemas/a.message')
    expect(JSON.stringify(document)).not.toContain('"$ref":"#"')
  })

  it.each([
    ['zod', z.object({ big: z.bigint() }), 'bigint'],
    ['valibot', v.object({ big: v.bigint() }), 'bigint'],
    ['arktype', type({ big: 'bigint' }), 'domain'],
  ])('of %s without an equivalent is left out with a warning', async (_name, schema, reason) => {
    const { document, warnings } = await documentOf(
      { imports: [main] },
      { sends: [defineTopic('a', { schema })] },
    )
    expect(document.channels['a']?.messages['message']).toEqual({ contentType: 'application/json' })
    expect(document.components.schemas).toEqual({})
    expect(warnings).toEqual([expect.stringMatching(new RegExp(`contract of "a".*${reason}`))])
  })

  it('is left out if it accepts every value', async () => {
    const { document, warnings } = await documentOf(
      { imports: [main] },
      { sends: [defineTopic('a', { schema: z.unknown() })] },
    )
    expect(document.components.schemas).toEqual({})
    expect(warnings).toEqual([])
  })

  it('of an unknown library is an error that says what to do, unless toJsonSchema converts it', async () => {
    const schema = {
      '~standard': { version: 1, vendor: 'mine', validate: (value: unknown) => ({ value }) },
    } as const
    const sends = [defineTopic('a', { schema })]
    await expect(documentOf({ imports: [main] }, { sends })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(/contract of "a".*"mine".*set the option "toJsonSchema"/),
    })
    const { document } = await documentOf(
      { imports: [main] },
      { sends, toJsonSchema: () => ({ type: 'string', $schema: 'x' }) },
    )
    expect(document.components.schemas['a.message']).toEqual({ type: 'string' })
  })

  it('of an older zod is an error that names the version to install', async () => {
    const schema = {
      '~standard': { version: 1, vendor: 'zod', validate: (value: unknown) => ({ value }) },
    } as const
    await expect(documentOf({ imports: [main] }, { sends: [defineTopic('a', { schema })] })).rejects.toThrow(
      'update zod to 4.2 or later',
    )
  })

  it('is shared by the operations that have the same one', async () => {
    const schema = z.object({ id: z.string() }).meta({ title: 'A device' })
    const { document } = await documentOf(
      { imports: [main] },
      { sends: [defineTopic('a', { schema }), defineTopic('b', { schema })] },
    )
    expect(Object.keys(document.components.schemas)).toEqual(['a.message'])
    expect(document.channels['b']?.messages['message']).toEqual({
      title: 'A device',
      contentType: 'application/json',
      payload: { $ref: '#/components/schemas/a.message' },
    })
  })
})

describe('a document of hostile names', () => {
  const NASTY = [
    '</script><script>alert(1)</script>',
    'a{b}c',
    'a?b#c'.replace('#', '%23'),
    '100%',
    '温度/センサー',
    '__proto__',
    'constructor/prototype',
    'a~1b/~0',
    '"quoted": [yes]',
    ' spaces \t and tabs ',
    'null',
    '\u202egnirts',
    '/',
  ]

  it('is valid, and contains the real Topic Filter', async () => {
    const sends = NASTY.map(topic =>
      defineTopic(topic, { description: topic, schema: z.object({ a: z.int() }) }),
    )
    const { document } = await documentOf({ imports: [main] }, { sends })
    expect(await problemsOf(document)).toEqual([])
    const filters = Object.values(document.channels).map(channel => channel['x-mqtt-topic-filter'])
    expect(filters.toSorted()).toEqual(NASTY.toSorted())
  })

  it('is the same document in YAML', async () => {
    const sends = NASTY.map(topic =>
      defineTopic(topic, { description: topic, schema: z.object({ yes: z.int() }) }),
    )
    const { document } = await documentOf({ imports: [main] }, { sends })
    const { Parser } = await import('@asyncapi/parser')
    const { document: parsed } = await new Parser().parse(toYaml(document), { applyTraits: false })
    const { document: expected } = await new Parser().parse(JSON.stringify(document), { applyTraits: false })
    expect(parsed?.json()).toEqual(expected?.json())
    expect(await problemsOf(toYaml(document))).toEqual([])
  })

  it('gives names that collide a number', async () => {
    const sends = ['a/b', 'a.b', 'a b', 'a.b-2'].map(topic => defineTopic(topic))
    const { document } = await documentOf({ imports: [main] }, { sends })
    expect(Object.keys(document.channels)).toEqual(['a.b', 'a.b-2', 'a.b-3', 'a.b-2-2'])
  })

  it('numbers wildcards without a name beside parameters of the same name', async () => {
    const { document } = await documentOf({ imports: [main] }, { sends: [defineTopic('+level2/+/+rest/#')] })
    expect(await problemsOf(document)).toEqual([])
    expect(Object.values(document.channels)[0]?.address).toBe('{level2}/{level2_}/{rest}/{rest_}')
  })
})

describe('a document of 10,000 handlers', () => {
  it('has an operation for each of them', async () => {
    const { document } = await documentOf({ imports: [main], controllers: [manyHandlers(10_000)] })
    expect(Object.keys(document.operations)).toHaveLength(10_000)
    expect(document.channels['devices.9999.id']?.address).toBe('devices/9999/{id}')
    expect(JSON.stringify(document).length).toBeLessThan(10_000_000)
  })
})

function manyHandlers(count: number): Type {
  class Many {}
  for (let index = 0; index < count; index += 1) {
    const name = `handler${index}`
    Object.defineProperty(Many.prototype, name, { value: () => undefined, configurable: true })
    const descriptor = Object.getOwnPropertyDescriptor(Many.prototype, name)
    if (descriptor !== undefined) OnMqttEvent(`devices/${index}/+id`)(Many.prototype, name, descriptor)
  }
  Controller()(Many)
  return Many
}

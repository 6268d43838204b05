import { createServer } from 'node:http'
import { inspect } from 'node:util'
import { Controller, Module } from '@nestjs/common'
import { ModulesContainer, NestFactory } from '@nestjs/core'
import { EventPattern } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import { Endpoints } from '../../src/client/connection/endpoints.js'
import { MqttSession } from '../../src/client/mqtt-session.js'
import {
  MqttClientProxy,
  MqttError,
  MqttModule,
  type MqttModuleOptions,
  MqttService,
} from '../../src/index.js'
import { MQTT_OPTIONS, MqttConnectionModule } from '../../src/mqtt.connection-module.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { Sealed } from '../../src/options/resolved-options.js'
import { EmbeddedBroker, ScriptedPeer } from '../../src/testing/index.js'
import { MqttTransport } from '../../src/transport/mqtt.transport.js'
import { CollectingLogger } from '../support/nest-app.js'
import { RecordingLog } from '../support/recording-log.js'

const SECRET = 'hunter2'

/** Everything that an inspection may be told to show. */
const INSPECTIONS = [
  { depth: 4, showHidden: true },
  { depth: 4, showHidden: true, getters: true },
  { depth: 4, customInspect: false },
]

function expectNoSecret(value: unknown): void {
  for (const options of INSPECTIONS) expectNoSecretIn(inspect(value, options))
  // A deeper inspection shows parts of a client over and over again, so each one is inspected alone.
  for (const object of reachableFrom(value))
    for (const options of INSPECTIONS) expectNoSecretIn(inspect(object, { ...options, depth: 0 }))
  expect(jsonOf(value)).not.toContain(SECRET)
}

function expectNoSecretIn(text: string): void {
  const where = text.indexOf(SECRET)
  expect(where < 0 ? '' : text.slice(Math.max(0, where - 200), where + 50)).toBe('')
}

/** Every object that an inspection of unlimited depth would show. */
function reachableFrom(value: unknown): ReadonlySet<object> {
  const found = new Set<object>()
  const visit = (next: unknown): void => {
    if ((typeof next !== 'object' && typeof next !== 'function') || next === null || found.has(next)) return
    found.add(next)
    if (ArrayBuffer.isView(next)) return
    if (next instanceof Map) for (const entry of next) waiting.push(...entry)
    if (next instanceof Set) waiting.push(...next)
    for (const key of Reflect.ownKeys(next)) waiting.push(readOf(next, key))
  }
  const waiting = [value]
  while (waiting.length > 0) visit(waiting.pop())
  return found
}

/** A getter may throw. */
function readOf(object: object, key: PropertyKey): unknown {
  try {
    return Reflect.get(object, key)
  } catch {
    return undefined
  }
}

/** A circle has no JSON, and the error that says so must not quote what is in it either. */
function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? ''
  } catch (error) {
    return inspect(error)
  }
}

@Controller()
class EventController {
  @EventPattern<string>('a/+id')
  take(): void {}
}

async function appWith(module: ReturnType<typeof MqttModule.forRoot>) {
  @Module({ imports: [module], controllers: [EventController] })
  class AppModule {}
  const app = await NestFactory.create(AppModule, { logger: new CollectingLogger(), abortOnError: false })
  app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
  return app
}

const SECRETS = {
  username: `user-${SECRET}`,
  password: SECRET,
  will: { topic: 'gone', payload: SECRET },
  wsOptions: { headers: { authorization: SECRET } },
  credentials: () => ({ headers: { cookie: SECRET }, password: SECRET }),
} satisfies MqttModuleOptions

describe('secrets', () => {
  it('are found by this search at any depth', () => {
    const hidden = new Map([[1, { list: [new Set([{ inner: { innermost: { secret: SECRET } } }])] }]])
    expect(() => expectNoSecret({ level: { level: hidden } })).toThrow()
  })

  it.each([
    ['forRoot', (options: MqttModuleOptions) => MqttModule.forRoot(options)],
    ['forRootAsync', (options: MqttModuleOptions) => MqttModule.forRootAsync({ useFactory: () => options })],
  ])('cannot be inspected in anything that Nest holds of a connected %s', async (_name, importOf) => {
    const broker = await EmbeddedBroker.start()
    const url = `${broker.url.replace('//', `//user:${SECRET}@`)}/mqtt?token=${SECRET}`
    const app = await appWith(importOf({ url, ...SECRETS, drainTimeoutMs: 100 }))
    await app.init()
    await app.startAllMicroservices()
    const session = app.get(MqttSession, { strict: false })
    expect(session.connection.state.status).toBe('connected')
    const mqtt = app.get(MqttService)
    for (const part of [
      mqtt,
      mqtt.state,
      mqtt.health,
      app.get(MqttTransport),
      app.get(MqttClientProxy),
      session,
      session.connection,
      app.get(MqttConnectionModule, { strict: false }),
      app.get(MQTT_OPTIONS, { strict: false }),
    ])
      expectNoSecret(part)
    expect(inspect(mqtt.unwrap(), { depth: 2 })).toContain(SECRET)
    await app.close()
    await broker.stop()
  })

  it('cannot be inspected in the raw options, which Nest keeps', async () => {
    const { createStream } = new ScriptedPeer()
    const app = await appWith(MqttModule.forRoot({ createStream, ...SECRETS, key: SECRET, cert: SECRET }))
    const options: unknown = app.get(MQTT_OPTIONS, { strict: false })
    expect(options).toBeInstanceOf(Sealed)
    expectNoSecret(options)
    const connections = [...app.get(ModulesContainer).values()].filter(
      ({ metatype }) => metatype === MqttConnectionModule,
    )
    expect(connections).toHaveLength(1)
    for (const { providers } of connections)
      for (const [token, { instance }] of providers) if (typeof token === 'symbol') expectNoSecret(instance)
    await app.close()
  })
})

describe('errors', () => {
  it('quote no user and password if an SRV record names an invalid host', async () => {
    const options = resolveOptions({ url: `mqtt+srv://user:${SECRET}@example.org` })
    const record = { name: 'not a host', port: 1883, priority: 0, weight: 0 }
    const endpoints = new Endpoints(options, async () => [record])
    const error = await endpoints.next(0, undefined).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ message: 'the SRV record names "not a host:1883", which is not a host' })
    expectNoSecret(error)
  })

  it('quote no header and no token of a WebSocket handshake that was refused', async () => {
    const server = createServer((_request, response) => response.writeHead(401).end())
    const port = await new Promise<number>(resolve => {
      server.listen(0, '127.0.0.1', () => {
        const address = server.address()
        resolve(typeof address === 'object' && address !== null ? address.port : 0)
      })
    })
    const url = `ws://user:${SECRET}@127.0.0.1:${port}/mqtt?token=${SECRET}`
    const log = new RecordingLog()
    const session = new MqttSession(resolveOptions({ url, ...SECRETS }), log)
    const error = await session.start().catch((reason: unknown) => reason)
    expect(error).toMatchObject({
      message: expect.stringContaining('the WebSocket handshake failed with HTTP status 401'),
    })
    expectNoSecret(error)
    expectNoSecret(session)
    expectNoSecret(log.lines)
    await session.close()
    await new Promise(resolve => server.close(resolve))
  })

  it('show the messages of other packages, and not the properties of their errors', () => {
    const request = Object.assign(new Error('Request failed with status code 401'), {
      code: 'ERR_BAD_REQUEST',
      config: { headers: { authorization: SECRET } },
    })
    const cause = new Error('the attempt could not be made', { cause: request })
    const error = new MqttError('CONNECT_FAILED', 'could not connect', { cause, reasonCode: 0x87 })
    const text = inspect(error, { depth: Number.POSITIVE_INFINITY, showHidden: true })
    expect(text).not.toContain(SECRET)
    expect(text).toContain('CONNECT_FAILED, Reason Code 135')
    expect(text).toContain('[cause]: Error: Request failed with status code 401 {ERR_BAD_REQUEST}')
    expect(error.cause).toBe(cause)
    expect(JSON.stringify({ error })).not.toContain(SECRET)
  })

  it('survive a cause that refers to itself', () => {
    const cause = new Error('round')
    cause.cause = cause
    expect(inspect(new MqttError('TIMEOUT', 'late', { cause }))).toContain('round')
  })
})

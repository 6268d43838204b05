import 'reflect-metadata'
import type { Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import {
  type AsyncMicroserviceOptions,
  type ClientProxy,
  ClientProxyFactory,
  ClientsModule,
  type MicroserviceOptions,
  MqttRecordBuilder,
  Transport,
} from '@nestjs/microservices'
import { connectAsync, type IClientPublishOptions, type MqttClient } from 'mqtt'
import { lastValueFrom } from 'rxjs'
import { expect, it } from 'vitest'
import { MqttClientProxy, MqttModule, type MqttModuleOptions } from '../../src/index.js'
import { builtInIsSubscribed, heardFrom, type Version } from '../support/askers.js'
import { eventually } from '../support/eventually.js'
import { forgetObserved, legacyModule, OTHERS, observed } from '../support/legacy-app.js'
import { Mosquitto } from '../support/mosquitto.js'
import { CollectingLogger } from '../support/nest-app.js'

interface RunningApp {
  close(): Promise<unknown>
}
type Start = (url: string, protocolVersion: Version | undefined) => Promise<RunningApp>

const ours = (url: string, protocolVersion: Version | undefined): MqttModuleOptions => ({
  url,
  envelope: 'all',
  ...(protocolVersion === undefined ? {} : { protocolVersion }),
})
const builtIn = (url: string, protocolVersion: Version | undefined): MicroserviceOptions => ({
  transport: Transport.MQTT,
  options: { url, ...(protocolVersion === undefined ? {} : { protocolVersion }) },
})
const nest = () => ({ logger: new CollectingLogger(), abortOnError: false })

/** `ClientsModule` asks for a client whose status is any text. */
function isClientClass(candidate: unknown): candidate is Type<ClientProxy> {
  return candidate === MqttClientProxy
}

function oursModule(url: string, version: Version | undefined) {
  const { envelope: _envelope, ...own } = ours(url, version)
  const customClass: unknown = MqttClientProxy
  if (!isClientClass(customClass)) throw new Error('this is no client')
  const client = { name: OTHERS, customClass, options: { ...own, peer: 'nest' } }
  return legacyModule([ClientsModule.register([client]), MqttModule.forRoot(ours(url, version))])
}
function builtInModule(url: string, protocolVersion: Version | undefined) {
  const options = { url, ...(protocolVersion === undefined ? {} : { protocolVersion }) }
  return legacyModule([ClientsModule.register([{ name: OTHERS, transport: Transport.MQTT, options }])])
}

const oursAlone: Start = async (url, version) => {
  const app = await NestFactory.createMicroservice<AsyncMicroserviceOptions>(oursModule(url, version), {
    ...MqttModule.microservice(),
    ...nest(),
  })
  await app.listen()
  return app
}

const builtInAlone: Start = async (url, version) => {
  const app = await NestFactory.createMicroservice<MicroserviceOptions>(builtInModule(url, version), {
    ...builtIn(url, version),
    ...nest(),
  })
  await app.listen()
  await builtInIsSubscribed(app)
  return app
}

const oursInHybrid: Start = async (url, version) => {
  const app = await NestFactory.create(oursModule(url, version), nest())
  app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })
  await app.startAllMicroservices()
  await app.init()
  return app
}

const builtInInHybrid: Start = async (url, version) => {
  const app = await NestFactory.create(builtInModule(url, version), nest())
  const service = app.connectMicroservice<MicroserviceOptions>(builtIn(url, version), {
    inheritAppConfig: true,
  })
  await app.startAllMicroservices()
  await app.init()
  await builtInIsSubscribed(service)
  return app
}

/** What the broker saw of what the application sent: without the ids, which are random. */
class Witness {
  readonly seen: unknown[] = []

  private constructor(private readonly client: MqttClient) {
    client.on('message', (topic, payload, { qos, retain }) => {
      const { id: _id, ...envelope } = JSON.parse(payload.toString())
      this.seen.push({ topic, qos, retain, envelope })
    })
  }

  static async start(url: string): Promise<Witness> {
    const client = await connectAsync(url)
    const witness = new Witness(client)
    await client.subscribeAsync(['alarms/#', 'sum'], { qos: 2 })
    return witness
  }

  publish(topic: string, value: unknown, options: IClientPublishOptions) {
    return this.client.publishAsync(topic, JSON.stringify(value), options)
  }

  stop(): Promise<void> {
    return this.client.endAsync()
  }
}

const isEnd = (entry: unknown) => Array.isArray(entry) && (entry[0] === 'after' || entry[0] === 'filter')

/** Everything that can be seen of the application from within and from outside. */
async function observe(start: Start, version: Version | undefined) {
  forgetObserved()
  const broker = await Mosquitto.start()
  const witness = await Witness.start(broker.url)
  const app = await start(broker.url, version)
  const other = ClientProxyFactory.create({
    transport: Transport.MQTT,
    options: { url: broker.url, ...(version === undefined ? {} : { protocolVersion: version }) },
  })
  const handledAfter = async (work: () => Promise<unknown>): Promise<void> => {
    const before = observed.filter(isEnd).length
    await work()
    await eventually(() => observed.filter(isEnd).length > before)
  }
  const emit = (topic: string, data: unknown) =>
    handledAfter(() => lastValueFrom(other.emit(topic, data), { defaultValue: undefined }))
  const warm = new MqttRecordBuilder({ celsius: 8 })
    .setQoS(1)
    .setProperties({ userProperties: { trace: 'a1' } })
  await emit('trucks/7/temperature', { celsius: 4 })
  await emit('trucks/7/temperature', warm.build())
  await handledAfter(() => witness.publish('trucks/8/temperature', { celsius: 3 }, { qos: 1 }))
  await emit('broken', {})
  const responses = []
  for (const [topic, data] of [
    ['trucks/7/limit', { of: 'milk' }],
    ['relay', [1, 2]],
    ['several', [1, 2, 3]],
    ['refused', {}],
    ['crashes', {}],
  ] as const)
    responses.push(await heardFrom(other.send(topic, data)))
  await eventually(() => witness.seen.length === 2)
  const late = await Witness.start(broker.url)
  await eventually(() => late.seen.length === 1)
  const result = { observed: [...observed], responses, seen: witness.seen, retained: late.seen }
  for (const client of [witness, late]) await client.stop()
  await other.close()
  await app.close()
  await broker.stop()
  return result
}

const alarm = (retain: boolean) => ({
  topic: 'alarms/7',
  qos: 1,
  retain,
  envelope: { pattern: 'alarms/7', data: { celsius: 8 } },
})

const expected = (trace: string | undefined) => ({
  observed: [
    ['before', 'onTemperature'],
    ['event', 1, { celsius: 4 }, 'trucks/7/temperature', false, undefined],
    ['after', undefined],
    ['before', 'onTemperature'],
    ['event', 2, { celsius: 8 }, 'trucks/7/temperature', false, trace],
    ['after', undefined],
    ['before', 'onTemperature'],
    ['event', 3, { celsius: 3 }, 'trucks/8/temperature', false, undefined],
    ['after', undefined],
    ['before', 'onBroken'],
    ['filter', 'a bug', 'broken'],
    ['before', 'limit'],
    ['after', { celsius: 5, wanted: { of: 'milk' }, topic: 'trucks/7/limit', number: 5 }],
    ['before', 'relay'],
    ['before', 'sum'],
    ['after', 3],
    ['after', 3],
    ['before', 'several'],
    ['after', 1],
    ['after', 2],
    ['after', 3],
    ['before', 'refuse'],
    ['filter', 'Rpc Exception', 'refused'],
    ['before', 'crash'],
    ['filter', 'a bug', 'crashes'],
  ],
  responses: [
    {
      values: [{ celsius: 5, wanted: { of: 'milk' }, topic: 'trucks/7/limit', number: 5 }],
      error: undefined,
    },
    { values: [3], error: undefined },
    { values: [1, 2, 3], error: undefined },
    { values: [], error: { code: 'TOO_WARM' } },
    { values: [], error: { status: 'failed' } },
  ],
  seen: [alarm(false), { topic: 'sum', qos: 1, retain: false, envelope: { pattern: 'sum', data: [1, 2] } }],
  retained: [alarm(true)],
})

it.each([
  ['the built-in transport', undefined, builtInAlone],
  ['ours', undefined, oursAlone],
  ['the built-in transport', 4 as const, builtInAlone],
  ['ours', 4 as const, oursAlone],
  ['the built-in transport', 5 as const, builtInAlone],
  ['ours', 5 as const, oursAlone],
  ['the built-in transport in a hybrid', 5 as const, builtInInHybrid],
  ['ours in a hybrid', 5 as const, oursInHybrid],
])('one application on %s, MQTT version %s', async (_transport, version, start) => {
  expect(await observe(start, version)).toEqual(expected(version === 5 ? 'a1' : undefined))
})

import 'reflect-metadata'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { MqttRecordBuilder } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import {
  type InboxStore,
  MqttClientProxy,
  MqttModule,
  type MqttModuleOptions,
  MqttService,
  OnMqttEvent,
} from '../../src/index.js'
import { type MemoryStore, memoryStore, type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { heardFrom } from '../support/askers.js'
import { eventually } from '../support/eventually.js'
import { startMicroservice } from '../support/nest-app.js'
import { STORED } from '../support/stored-publishes.js'
import { acks, json } from '../support/subscriber-on-peer.js'

const IS_STORED = { status: 'stored', messageId: expect.any(String) }

function optionsOf(peer: ScriptedPeer, store: MemoryStore): MqttModuleOptions {
  return {
    createStream: peer.createStream,
    protocolVersion: 5,
    keepalive: 0,
    connect: 'background',
    reconnect: { delayMs: [60_000] },
    drainTimeoutMs: 200,
    store,
  }
}

/** A broker that refuses every connection. */
function outage(): ScriptedPeer {
  const peer = new ScriptedPeer()
  peer.refuse(Number.POSITIVE_INFINITY)
  return peer
}

/** Starts an application with these imports and providers, runs `work` in it, and closes it. */
async function withApp<T>(
  imports: Parameters<typeof Module>[0]['imports'],
  work: (mqtt: MqttService, proxy: MqttClientProxy) => T | Promise<T>,
  providers: Parameters<typeof Module>[0]['providers'] = [],
): Promise<T> {
  @Module({
    ...(imports === undefined ? {} : { imports }),
    ...(providers === undefined ? {} : { providers }),
  })
  class AppModule {}
  const app = await NestFactory.createApplicationContext(AppModule, { logger: false, abortOnError: false })
  try {
    return await work(app.get(MqttService), app.get(MqttClientProxy))
  } finally {
    await app.close()
  }
}

/** Acknowledges the publishes that arrive, and returns the first ones. */
async function acknowledged(connection: PeerConnection, count: number): Promise<string[]> {
  const texts: string[] = []
  while (texts.length < count) {
    const { topic, payload, messageId = 0 } = await connection.find('publish')
    texts.push(`${topic} ${payload.toString()}`)
    connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
  }
  return texts
}

/** Starts an application on the store, and returns what it sends by itself. */
function sentAfterRestart(store: MemoryStore, count: number): Promise<string[]> {
  const peer = new ScriptedPeer()
  return withApp([MqttModule.forRoot(optionsOf(peer, store))], async mqtt => {
    const texts = await acknowledged(await peer.accept(), count)
    await eventually(() => mqtt.stats().store?.messages === 0)
    return texts
  })
}

describe('the option "store" of a Nest application', () => {
  it.each(['forRoot', 'forRootAsync'] as const)(
    'of %s: what is published in an outage is sent by itself after a restart',
    async method => {
      const store = memoryStore()
      const options = optionsOf(outage(), store)
      const module =
        method === 'forRoot'
          ? MqttModule.forRoot(options)
          : MqttModule.forRootAsync({ useFactory: async () => options })
      const outcomes = await withApp([module], mqtt =>
        Promise.all([1, 2].map(payload => mqtt.publish('alarm', payload, STORED))),
      )
      expect(outcomes).toEqual([IS_STORED, IS_STORED])
      expect(await sentAfterRestart(store, 2)).toEqual(['alarm 1', 'alarm 2'])
    },
  )

  it('stores what an asynchronous provider publishes and awaits, before the connection starts', async () => {
    const store = memoryStore()
    const outcomes: unknown[] = []
    const starter = {
      provide: 'STARTER',
      inject: [MqttService],
      useFactory: async (mqtt: MqttService): Promise<void> => {
        outcomes.push(mqtt.state.status, await mqtt.publish('started', 1, STORED))
      },
    }
    await withApp([MqttModule.forRoot(optionsOf(outage(), store))], () => {}, [starter])
    expect(outcomes).toEqual(['idle', IS_STORED])
    expect(await sentAfterRestart(store, 1)).toEqual(['started 1'])
  })

  it('stops the application from starting if two connections share a store', async () => {
    const store = memoryStore()
    const imports = ['one', 'two'].map(name => MqttModule.forRoot({ ...optionsOf(outage(), store), name }))
    await expect(withApp(imports, () => {})).rejects.toMatchObject({
      code: 'STORE_LOCKED',
      message: 'the store in memory is already open; use one store for each client',
    })
  })
})

describe('emit() of the MqttClientProxy of the module, with outbound.whenBlocked "store"', () => {
  const storing = { outbound: { whenBlocked: 'store' } } as const

  it('completes when the event is stored, and the event is sent after a restart', async () => {
    const store = memoryStore()
    const options = { ...optionsOf(outage(), store), ...storing, eventQos: 1 } as const
    const heard = await withApp([MqttModule.forRoot(options)], (_mqtt, proxy) =>
      heardFrom(proxy.emit('alarm', { level: 3 })),
    )
    expect(heard).toMatchObject({ error: undefined })
    expect(await sentAfterRestart(store, 1)).toEqual(['alarm {"level":3}'])
  })

  it('takes the QoS of a record before eventQos, and fails for QoS 0, which cannot be stored', async () => {
    const store = memoryStore()
    const options = { ...optionsOf(outage(), store), ...storing } as const
    const [plain, record] = await withApp([MqttModule.forRoot(options)], async (_mqtt, proxy) => [
      await heardFrom(proxy.emit('alarm', 1)),
      await heardFrom(proxy.emit('alarm', new MqttRecordBuilder(2).setQoS(1).build())),
    ])
    expect(plain?.error).toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('QoS 0 has no acknowledgement'),
    })
    expect(record).toMatchObject({ error: undefined })
    expect(store.contents.messages).toBe(1)
  })

  it('fails with the outcome if the store is full', async () => {
    const store = memoryStore({ maxMessages: 1, overflow: 'drop-newest' })
    const options = { ...optionsOf(outage(), store), ...storing, eventQos: 1 } as const
    const [, full] = await withApp([MqttModule.forRoot(options)], async (_mqtt, proxy) => [
      await heardFrom(proxy.emit('alarm', 1)),
      await heardFrom(proxy.emit('alarm', 2)),
    ])
    expect(full?.error).toMatchObject({
      code: 'NOT_SENT',
      outcome: { status: 'dropped', reason: 'store-full' },
    })
  })
})

it('refuses an eventQos that does not exist', async () => {
  const options: object = { ...optionsOf(outage(), memoryStore()), eventQos: 3 }
  await expect(withApp([MqttModule.forRoot(options)], () => {})).rejects.toMatchObject({
    code: 'INVALID_OPTION',
    message: expect.stringContaining('"eventQos" must be'),
  })
})

/** Keys of several handlers and processes. */
function sharedInbox(): InboxStore {
  const keys = new Set<string>()
  return {
    has: (key, { name }) => keys.has(`${name} ${key}`),
    add: (key, { name }) => keys.add(`${name} ${key}`),
  }
}

describe('the scope of dedupe in a Nest application', () => {
  /** An application with two handlers of the same messages, and one store for their keys. */
  async function startOn(store: InboxStore, ran: string[]) {
    const dedupe = { by: 'message-id', store } as const

    @Controller()
    class Alarms {
      @OnMqttEvent('alarm/+id', { dedupe })
      onAlarm(): void {
        ran.push('Alarms.onAlarm')
      }
    }

    @Controller()
    class Audit {
      @OnMqttEvent('alarm/+id', { dedupe })
      onAlarm(): void {
        ran.push('Audit.onAlarm')
      }
    }

    const peer = new ScriptedPeer()
    const options = { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 200 } as const
    const starting = startMicroservice(options, { controllers: [Alarms, Audit] })
    const connection = await peer.accept()
    await connection.grant()
    const { app } = await starting
    let packetId = 0
    const receive = async (id: string): Promise<void> => {
      packetId += 1
      const properties = { userProperties: { 'message-id': id } }
      connection.send(json('alarm/7', 1, { qos: 1, messageId: packetId, properties }))
      await eventually(() => acks(connection).includes(packetId))
    }
    return { app, receive, connection }
  }

  it('is its own for each handler, and the same in every process', async () => {
    const store = sharedInbox()
    const ran: string[] = []
    const first = await startOn(store, ran)
    await first.receive('a')
    expect(ran.toSorted()).toEqual(['Alarms.onAlarm', 'Audit.onAlarm'])
    await first.receive('a')
    expect(ran).toHaveLength(2)
    const second = await startOn(store, ran)
    await second.receive('a')
    expect(ran).toHaveLength(2)
    await second.receive('b')
    expect(ran).toHaveLength(4)
    await Promise.all([first.app.close(), second.app.close()])
  })

  it('must not be the same for two handlers', async () => {
    const dedupe = { by: 'message-id', store: sharedInbox(), scope: 'alarms' } as const

    @Controller()
    class Alarms {
      @OnMqttEvent('alarm/+id', { dedupe })
      onAlarm(): void {}

      @OnMqttEvent('alarm/#', { dedupe })
      onAny(): void {}
    }

    const peer = new ScriptedPeer()
    const options = { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 200 } as const
    await expect(startMicroservice(options, { controllers: [Alarms] })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('another handler has the same dedupe.scope "alarms"'),
    })
  })
})
